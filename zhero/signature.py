"""How the function of a task takes the params of a job.

Params are a dict with text keys. A function gets them in one of these forms, told apart by the *names* of its first
parameters, so that what a reader sees is what happens:

    (to, subject="hi")            one argument per key
    (**values)                    the same, any keys
    (params)                      the dict itself
    (api, to, subject="hi")       the node first, then as above
    (api, params)                 the origin's form

The origin's third parameter, the callback `next`, is refused: a task ends by returning, or fails by raising.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping, Sequence
from inspect import Parameter
from typing import Any, cast

from .errors import ParamsInvalid

_POSITIONAL = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)


class Signature:
    """The form of one function.

    Attributes:
        takes_api: whether its first argument is the node.
        takes_dict: whether it gets the params as one dict.

    Args:
        function: bound already, if it is a method.

    Raises:
        ValueError: it can't be called with params; says why.
    """

    __slots__ = ("_names", "_open", "_positional", "_required", "takes_api", "takes_dict")

    def __init__(self, function: Callable[..., Any]) -> None:
        try:
            parameters = list(inspect.signature(function).parameters.values())
        except (TypeError, ValueError) as error:
            raise ValueError(f"its parameters can't be read: {error}") from error
        self.takes_api = _begins_with(parameters, "api")
        if self.takes_api:
            del parameters[0]
        self.takes_dict = _begins_with(parameters, "params")
        if self.takes_dict:
            del parameters[0]
            extra = next((it.name for it in parameters if _is_required(it)), None)
            if extra is not None:
                hint = "there are no callbacks: return, or raise" if extra == "next" else "it gets everything in params"
                raise ValueError(f"it takes params, so {extra} would never be given; {hint}")
            parameters = []
        nameless = next((it.name for it in parameters if it.kind is Parameter.POSITIONAL_ONLY), None)
        if nameless is not None:
            raise ValueError(f"params are given by name, and {nameless} can only be given by position: remove the '/'")
        self._positional = [it.name for it in parameters if it.kind is Parameter.POSITIONAL_OR_KEYWORD]
        self._names = {*self._positional, *(it.name for it in parameters if it.kind is Parameter.KEYWORD_ONLY)}
        self._required = [it.name for it in parameters if _is_required(it)]
        self._open = self.takes_dict or any(it.kind is Parameter.VAR_KEYWORD for it in parameters)

    def params_of(self, task: str, args: Sequence[Any], kwargs: dict[str, Any]) -> dict[str, Any]:
        """The params of a call, checked.

        Args:
            task: what errors call it.

        Raises:
            ParamsInvalid: they do not fit the function.
        """
        if not args:
            self.check(task, kwargs)
            return kwargs
        if self.takes_dict:
            if len(args) > 1 or kwargs or not isinstance(args[0], Mapping):
                raise ParamsInvalid(f"task {task}: give its params as keyword arguments, or as one dict")
            params = dict(cast("Mapping[str, Any]", args[0]))
        else:
            if len(args) > len(self._positional):
                raise ParamsInvalid(f"task {task}: takes {len(self._positional)} params by position, got {len(args)}")
            params = dict(zip(self._positional, args, strict=False))
            twice = next((key for key in kwargs if key in params), None)
            if twice is not None:
                raise ParamsInvalid(f"task {task}: {twice!r} is given twice")
            params.update(kwargs)
        self.check(task, params)
        return params

    def check(self, task: str, params: Mapping[str, Any]) -> None:
        """Whether the function can be called with these.

        Raises:
            ParamsInvalid: naming the task and the key that is missing, unexpected or no text.
        """
        for key in cast("Mapping[object, Any]", params):
            if key in self._names:
                continue
            if not isinstance(key, str):
                raise ParamsInvalid(f"task {task}: the key {key!r} of its params is no text")
            if not self._open or (key == "api" and self.takes_api and not self.takes_dict):
                near = difflib.get_close_matches(key, sorted(self._names), 1)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                raise ParamsInvalid(f"task {task}: unexpected param {key!r}{hint}")
        for name in self._required:
            if name not in params:
                raise ParamsInvalid(f"task {task}: param {name!r} is missing")

    def caller(self, function: Callable[..., Any], api: Any) -> Callable[[dict[str, Any]], Any]:
        """The function as one of the params, with the node bound where it takes one."""
        first = (api,) if self.takes_api else ()
        if self.takes_dict:
            return lambda params: function(*first, params)
        if first:
            return lambda params: function(api, **params)
        return lambda params: function(**params)


def _begins_with(parameters: list[Parameter], name: str) -> bool:
    return bool(parameters) and parameters[0].name == name and parameters[0].kind in _POSITIONAL


def _is_required(parameter: Parameter) -> bool:
    return parameter.default is Parameter.empty and parameter.kind not in (
        Parameter.VAR_POSITIONAL,
        Parameter.VAR_KEYWORD,
    )
