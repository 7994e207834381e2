"""The forms in which a function takes its params, and what fits them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from zhero.errors import ParamsInvalid
from zhero.signature import Signature

Taken = tuple[Any, ...]


def one_by_one(to: str, subject: str = "hi") -> Taken:
    return (to, subject)


def any_keys(**values: Any) -> Taken:
    return (values,)


def as_dict(params: dict[str, Any]) -> Taken:
    return (params,)


def node_first(api: str, to: str, *, subject: str = "hi") -> Taken:
    return (api, to, subject)


def node_and_any_keys(api: str, **values: Any) -> Taken:
    return (api, values)


def origin(api: str, params: dict[str, Any]) -> Taken:
    return (api, params)


def only_node(api: str) -> Taken:
    return (api,)


def nothing() -> Taken:
    return ()


class Holder:
    def run(self, to: str) -> Taken:
        return (to,)


@pytest.mark.parametrize(
    ("function", "params", "taken"),
    [
        (one_by_one, {"to": "ann"}, ("ann", "hi")),
        (one_by_one, {"subject": "x", "to": "ann"}, ("ann", "x")),
        (any_keys, {"a": 1}, ({"a": 1},)),
        (any_keys, {}, ({},)),
        (as_dict, {"a": 1}, ({"a": 1},)),
        (as_dict, {}, ({},)),
        (as_dict, {"params": 1}, ({"params": 1},)),
        (node_first, {"to": "ann"}, ("NODE", "ann", "hi")),
        (node_and_any_keys, {"a": 1}, ("NODE", {"a": 1})),
        (origin, {"a": 1}, ("NODE", {"a": 1})),
        (origin, {"api": 1}, ("NODE", {"api": 1})),
        (only_node, {}, ("NODE",)),
        (nothing, {}, ()),
        (Holder().run, {"to": "ann"}, ("ann",)),
    ],
)
def test_a_function_gets_its_params_in_its_form(
    function: Callable[..., Taken], params: dict[str, Any], taken: Taken
) -> None:
    signature = Signature(function)
    signature.check("it", params)
    assert signature.caller(function, "NODE")(params) == taken


@pytest.mark.parametrize(
    ("function", "params", "key"),
    [
        (one_by_one, {}, "'to' is missing"),
        (one_by_one, {"subject": "x"}, "'to' is missing"),
        (one_by_one, {"to": "ann", "sub": "x"}, "unexpected param 'sub'"),
        (one_by_one, {"to": "ann", 5: "x"}, "key 5"),
        (any_keys, {b"a": 1}, "key b'a'"),
        (as_dict, {1: 1}, "key 1"),
        (node_first, {}, "'to' is missing"),
        (node_first, {"to": "ann", "api": 1}, "unexpected param 'api'"),
        (node_and_any_keys, {"api": 1}, "unexpected param 'api'"),
        (nothing, {"a": 1}, "unexpected param 'a'"),
    ],
)
def test_params_that_do_not_fit_are_refused_with_task_and_key(
    function: Callable[..., Taken], params: dict[Any, Any], key: str
) -> None:
    with pytest.raises(ParamsInvalid, match=f"task it: .*{key}"):
        Signature(function).check("it", params)


def test_a_misspelt_param_is_named_with_the_nearest_one() -> None:
    with pytest.raises(ParamsInvalid, match=r"'subjct'; did you mean 'subject'\?"):
        Signature(one_by_one).check("it", {"to": "ann", "subjct": "x"})


@pytest.mark.parametrize(
    ("function", "args", "kwargs", "params"),
    [
        (one_by_one, ("ann",), {}, {"to": "ann"}),
        (one_by_one, ("ann", "x"), {}, {"to": "ann", "subject": "x"}),
        (one_by_one, ("ann",), {"subject": "x"}, {"to": "ann", "subject": "x"}),
        (node_first, ("ann",), {}, {"to": "ann"}),
        (as_dict, ({"a": 1},), {}, {"a": 1}),
        (origin, ({"a": 1},), {}, {"a": 1}),
        (origin, (), {"a": 1}, {"a": 1}),
    ],
)
def test_a_call_becomes_params(
    function: Callable[..., Taken], args: Taken, kwargs: dict[str, Any], params: dict[str, Any]
) -> None:
    assert Signature(function).params_of("it", args, kwargs) == params


def test_the_dict_of_the_caller_is_not_the_one_that_is_used() -> None:
    given = {"a": 1}
    assert Signature(as_dict).params_of("it", (given,), {}) is not given


@pytest.mark.parametrize(
    ("function", "args", "kwargs", "complaint"),
    [
        (one_by_one, ("ann", "x", "y"), {}, "takes 2 params by position, got 3"),
        (one_by_one, ("ann",), {"to": "bob"}, "'to' is given twice"),
        (any_keys, (1,), {}, "takes 0 params by position"),
        (as_dict, ({}, {}), {}, "as one dict"),
        (as_dict, ({},), {"a": 1}, "as one dict"),
        (as_dict, (5,), {}, "as one dict"),
    ],
)
def test_a_call_that_does_not_fit_is_refused(
    function: Callable[..., Taken], args: Taken, kwargs: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(ParamsInvalid, match=f"task it: .*{complaint}"):
        Signature(function).params_of("it", args, kwargs)


def with_callback(api: object, params: dict[str, Any], next: Any) -> None: ...
def with_more(params: dict[str, Any], more: int) -> None: ...
def by_position(to: str, /) -> None: ...


@pytest.mark.parametrize(
    ("function", "complaint"),
    [
        (with_callback, "there are no callbacks: return, or raise"),
        (with_more, "more would never be given"),
        (by_position, "remove the '/'"),
        (5, "can't be read"),
    ],
)
def test_a_function_that_params_can_not_reach_is_refused(function: Any, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        Signature(function)


def test_a_function_may_have_parameters_that_are_never_given() -> None:
    def lenient(params: dict[str, Any], more: int = 3, *rest: int) -> int:
        return more

    assert Signature(lenient).caller(lenient, None)({}) == 3
