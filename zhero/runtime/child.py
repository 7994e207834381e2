"""The child process that runs jobs of executor "process", one at a time.

It speaks with its node over one end of a socket pair: length-prefixed msgpack, a request and its answer. It ignores
Ctrl-C, which is the node's to deal with, and can't outlive the node: the system kills it when the thread that started
it is gone (Linux), and a closed connection ends it anywhere.
"""

from __future__ import annotations

import asyncio
import ctypes
import importlib
import importlib.util
import inspect
import os
import signal
import socket
import sys
from collections.abc import Callable
from typing import Any

import msgpack

from .. import codec
from ..core.values import Header, JobId, Run
from .handlers import Context, Raised, Source, enter, raised_by

LENGTH_BYTES = 4
_PR_SET_PDEATHSIG = 1
_MAIN = "__mp_main__"


def packed(value: Any) -> bytes:
    """A length and that many bytes."""
    data = msgpack.packb(value)
    return len(data).to_bytes(LENGTH_BYTES) + data


def request(source: Source, run: Run) -> bytes:
    """What the node asks of a child."""
    told = [
        [source.module, source.path, source.attribute],
        [run.job.to_bytes(16), run.header.task, run.attempt, run.tries, run.epoch, run.enqueued_at_ms, run.number],
        run.params,
    ]
    return packed(told)


def main(descriptor: int) -> None:
    """Answer requests until the node closes the connection."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() == 1:  # the node died before we asked to be told
            return
    found: dict[Source, Callable[[dict[str, Any]], Any]] = {}
    with socket.socket(fileno=descriptor) as connection:
        while True:
            data = _read(connection)
            if data is None:
                return
            connection.sendall(packed(_answer(data, found)))


def _read(connection: socket.socket) -> bytes | None:
    head = _exactly(connection, LENGTH_BYTES)
    return None if head is None else _exactly(connection, int.from_bytes(head))


def _exactly(connection: socket.socket, count: int) -> bytes | None:
    data = b""
    while len(data) < count:
        part = connection.recv(count - len(data))
        if not part:
            return None
        data += part
    return data


def _answer(data: bytes, found: dict[Source, Callable[[dict[str, Any]], Any]]) -> list[Any]:
    try:
        where, told, params = msgpack.unpackb(data)
        source = Source(*where)
        job, name, attempt, tries, epoch, enqueued_at_ms, number = told
        header = Header(name)
        run = Run(JobId(int.from_bytes(job)), header, params, attempt, tries, epoch, enqueued_at_ms, number)
        enter(Context(run, None))
        if source not in found:
            found[source] = _find(source)
        result = found[source](codec.decode(params))
        if inspect.isawaitable(result):
            result = asyncio.run(_await(result))
        return ["result", codec.encode(result, "result")]
    except BaseException as error:
        return raised_as_list(raised_by(error))


async def _await(result: Any) -> Any:
    return await result


def raised_as_list(raised: Raised) -> list[Any]:
    """What a run raised, in a form that travels."""
    failure = raised.failure
    return ["raised", raised.verdict.value, failure.kind, failure.message, failure.traceback, raised.wait_ms]


def _find(source: Source) -> Callable[[dict[str, Any]], Any]:
    """The task's code, imported here."""
    target: Any = _module(source)
    for name in source.attribute.split("."):
        target = getattr(target, name)
    if inspect.isclass(target):
        target = target()
    bound = getattr(target, "__zhero_call__", None)
    if bound is not None:
        return lambda params: bound(params, None)
    return lambda params: target(**params)


def _module(source: Source) -> Any:
    name = _MAIN if source.module == "__main__" else source.module
    if name in sys.modules:
        return sys.modules[name]
    if name != _MAIN:
        try:
            return importlib.import_module(name)
        except ImportError:
            if source.path is None:
                raise
    spec = importlib.util.spec_from_file_location(name, source.path or "")
    if spec is None or spec.loader is None:
        raise ImportError(f"can't import {name} from {source.path}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


if __name__ == "__main__":
    sys.path[:] = sys.argv[2:]
    main(int(sys.argv[1]))
