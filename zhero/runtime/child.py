"""A child process: runs one job after the other for the node that started it, and never outlives it.

The main thread runs the jobs, so that what they call finds itself where it expects to be. A second thread reads the
connection: when that ends, the node is gone or has given this child up, and the process ends at once, in the middle
of a job if need be. On Linux the kernel kills it too, should a job hold the interpreter's lock for ever.

SIGINT and SIGTERM are heard and not obeyed: Ctrl-C and a service manager mean the node, which lets jobs end first and
then kills its children. (Handlers, not SIG_IGN: that would be inherited by what a job starts.)

Said on the connection, each with four bytes of length before it, all in msgpack:

    node -> child, once    sys.path, PYTHONPATH or nil, sys.argv
    node -> child          job, task, attempt, tries, epoch, number, enqueued_at_ms, params, result_max_bytes,
                           module or nil, path or nil, attribute
    child -> node          "returned", result
                           "raised", kind, message, traceback, then, status, delay_ms or nil

stdin, stdout and stderr are not used: what a job prints appears where the node prints. A child imports what its jobs
need and keeps it; a node whose code was reloaded takes new children.
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
import threading
from collections.abc import Awaitable, Callable
from contextvars import copy_context
from functools import partial
from queue import SimpleQueue
from types import FrameType, ModuleType
from typing import Any

from msgpack import packb, unpackb

from ..core.values import SUCCEEDED, Failure, Header, JobId, Outcome, Run, Status
from ..errors import TaskNotFound
from .handlers import RUNNING, Ending, Raised, Running, Source, attempted, failure, raised

HEAD_BYTES = 4
"""Length of a frame, big-endian, before it."""

_PR_SET_PDEATHSIG = 1
_MAIN = "__mp_main__"
"""What multiprocessing calls the main module in a child: so `if __name__ == "__main__"` is not entered."""

Function = Callable[[dict[str, Any]], Any]


# --- what is said -------------------------------------------------------------------------------------------------


def framed(value: object) -> bytes:
    data = packb(value)
    return len(data).to_bytes(HEAD_BYTES) + data


def pack_welcome() -> bytes:
    """What a node tells a child first: where it is to look for modules."""
    return framed([sys.path, os.environ.get("PYTHONPATH"), sys.argv])


def pack_request(run: Run, source: Source, result_max_bytes: int) -> bytes:
    where = (source.module, source.path, source.attribute)
    counted = (run.attempt, run.tries, run.epoch, run.number, run.enqueued_at_ms)
    return framed([run.job.to_bytes(16), run.header.task, *counted, run.params, result_max_bytes, *where])


def _unpack_request(data: bytes) -> tuple[Run, Source, int]:
    job, task, attempt, tries, epoch, number, enqueued_at_ms, params, result_max_bytes, module, path, attribute = (
        unpackb(data)
    )
    run = Run(JobId(int.from_bytes(job)), Header(task), params, attempt, tries, epoch, enqueued_at_ms, number)
    return run, Source(module, path, attribute, task), result_max_bytes


def _pack_ending(ending: Ending) -> bytes:
    if isinstance(ending, Outcome):
        return framed(["returned", ending.result])
    told = ending.failure
    return framed(
        ["raised", told.kind, told.message, told.traceback, ending.then, ending.status.value, ending.delay_ms]
    )


def unpack_ending(data: bytes) -> Ending:
    """What a child answered.

    Raises:
        ValueError, TypeError: it makes no sense.
    """
    how, *rest = unpackb(data)
    if how == "returned":
        (result,) = rest
        return SUCCEEDED if result == SUCCEEDED.result else Outcome(Status.SUCCEEDED, result)
    kind, message, traceback, then, status, delay_ms = rest
    return Raised(Failure(kind, message, traceback), then, Status(status), delay_ms)


# --- the process --------------------------------------------------------------------------------------------------


def main() -> None:
    """Serve the node. Arguments: descriptor of the connection, process id of the node."""
    descriptor, parent = int(sys.argv[1]), int(sys.argv[2])
    _die_with(parent)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _ignore)
    os.set_inheritable(descriptor, False)  # what a job starts must not keep the connection open
    connection = socket.socket(fileno=descriptor)
    requests: SimpleQueue[bytes] = SimpleQueue()
    _welcome(_receive(connection))
    threading.Thread(target=_read, args=(connection, requests), name="zhero-reader", daemon=True).start()
    found: dict[Source, Function] = {}
    while True:
        run, source, result_max_bytes = _unpack_request(requests.get())
        ending = copy_context().run(_run, run, source, result_max_bytes, found)
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except (OSError, ValueError, AttributeError):  # closed, or None
                pass
        connection.sendall(_pack_ending(ending))


def _die_with(parent: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it was gone before we asked
        os._exit(1)


def _ignore(number: int, frame: FrameType | None) -> None:
    pass


def _welcome(data: bytes) -> None:
    path, python_path, arguments = unpackb(data)
    sys.path[:] = path
    sys.argv[:] = arguments
    # The node put its own sys.path there, for this interpreter to find zhero by: no business of what a job starts.
    os.environ.pop("PYTHONPATH", None)
    if python_path is not None:
        os.environ["PYTHONPATH"] = python_path


def _read(connection: socket.socket, requests: SimpleQueue[bytes]) -> None:
    while True:
        requests.put(_receive(connection))


def _receive(connection: socket.socket) -> bytes:
    return _receive_exactly(connection, int.from_bytes(_receive_exactly(connection, HEAD_BYTES)))


def _receive_exactly(connection: socket.socket, count: int) -> bytes:
    received = bytearray()
    while len(received) < count:
        try:
            data = connection.recv(count - len(received))
        except OSError:
            data = b""
        if not data:
            os._exit(0)
        received += data
    return bytes(received)


# --- a job --------------------------------------------------------------------------------------------------------


def _run(run: Run, source: Source, result_max_bytes: int, found: dict[Source, Function]) -> Ending:
    RUNNING.set(Running(run, None))
    try:
        if source not in found:
            found[source] = find(source)
    except TaskNotFound as error:
        return Raised(failure(error), "dead")
    except BaseException as error:  # importing runs code of the application
        return raised(error)
    return attempted(partial(_call, found[source]), run.params, result_max_bytes)


def _call(function: Function, params: dict[str, Any]) -> Any:
    made = function(params)
    return asyncio.run(_result_of(made)) if inspect.isawaitable(made) else made


async def _result_of(made: Awaitable[Any]) -> Any:
    return await made


def find(source: Source) -> Function:
    """The function of a task, taking its params.

    Raises:
        TaskNotFound: the module has none of that name.
        Exception: whatever importing the module raises.
    """
    module = _module(source)
    found: Any = module
    try:
        for part in source.attribute.split("."):
            found = getattr(found, part)
    except AttributeError:
        named = (
            it
            for it in vars(module).values()
            if hasattr(it, "__zhero_call__") and getattr(it, "name", None) == source.name
        )
        found = next(named, None)
    if found is None:
        raise TaskNotFound(
            f"task {source.name}: a child process finds no {source.attribute} in {module.__name__}; "
            "define it at the top level of its module"
        )
    if isinstance(found, type):
        found = found()
    call = getattr(found, "__zhero_call__", None)
    if call is not None:
        return lambda params: call(params, None)
    return lambda params: found(**params)


def _module(source: Source) -> ModuleType:
    name, path = source.module, source.path
    if name is not None and name != "__main__":
        try:
            module = importlib.import_module(name)
        except ModuleNotFoundError as error:
            if path is None or not f"{name}.".startswith(f"{error.name}."):
                raise
        else:
            if path is None or _is_file(module, path):
                return module
    if path is None:
        raise TaskNotFound(
            f"task {source.name} was defined in a program without a file, where a child process can't find it: "
            "put it into a module"
        )
    return _load(_MAIN if name == "__main__" else name or f"zhero_task_{source.name}", path)


def _is_file(module: ModuleType, path: str) -> bool:
    try:
        return os.path.samefile(module.__file__ or "", path)
    except OSError:
        return False


def _load(name: str, path: str) -> ModuleType:
    """A module from its file, under that name."""
    loaded = sys.modules.get(name)
    if loaded is not None and _is_file(loaded, path):
        return loaded
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise TaskNotFound(f"{path} is no Python file that a child process can import")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    if name == _MAIN:
        sys.modules["__main__"] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
