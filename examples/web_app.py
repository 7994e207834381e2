"""A Starlette application under uvicorn with three workers: each worker is a node, and together they are the cluster.

    python examples/web_app.py

    POST /thumbnails?picture=cat.png     202 and the id of the job
    GET  /thumbnails/ID                  200 and the result, whichever worker is asked; 202: not ready; 404: no such job
    GET  /sweeps                         the rounds of the periodic task, by the worker that ran them
    GET  /members                        names of the members

All it takes is the lifespan: a node is entered where a worker starts and left where it ends. The periodic task is
defined in every worker, and runs once per period in all of them together. In production the server is started from a
shell, `uvicorn --app-dir examples --workers 3 web_app:app`; this program does the same, makes some requests, and ends.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

import zhero

CLUSTER = "example-web-app"
WORKERS = 3
PICTURES = 30
PATIENCE_S = 40.0


# --- tasks --------------------------------------------------------------------------------------------------------

sweeps: list[int] = []
"""Rounds of the periodic task that this worker has run."""


@zhero.task(timeout=30, announce=False)
async def make_thumbnail(picture: str) -> dict[str, object]:
    return {"picture": f"small {picture}", "worker": os.getpid()}


@zhero.task(frequency=300, announce=False)  # milliseconds
async def sweep() -> None:
    sweeps.append(zhero.current().number)


@zhero.task(scope="all", announce=False)
async def tell_sweeps() -> list[int]:
    return sweeps


# --- the application ----------------------------------------------------------------------------------------------


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncGenerator[None]:
    async with zhero.Node(tasks=[make_thumbnail, sweep, tell_sweeps], cluster=CLUSTER) as node:
        app.state.node = node
        yield


async def post_thumbnail(request: Request) -> JSONResponse:
    job = await make_thumbnail.enqueue(request.query_params["picture"])
    return JSONResponse({"id": job.id}, 202)


async def get_thumbnail(request: Request) -> JSONResponse:
    job_id = request.path_params["job_id"]
    try:
        return JSONResponse(await request.app.state.node.result(job_id, timeout=0.05))
    except TimeoutError:
        return JSONResponse({"id": job_id}, 202)
    except zhero.JobNotFound as error:
        return JSONResponse({"error": str(error)}, 404)


async def get_sweeps(request: Request) -> JSONResponse:
    outcomes = await (await tell_sweeps.enqueue()).result(timeout=20)
    return JSONResponse(outcomes.results())


async def get_members(request: Request) -> JSONResponse:
    members = request.app.state.node.members()
    return JSONResponse([it.name for it in members if it.standing == "alive" and "tell_sweeps" in it.tasks])


app = Starlette(
    routes=[
        Route("/thumbnails", post_thumbnail, methods=["POST"]),
        Route("/thumbnails/{job_id}", get_thumbnail),
        Route("/sweeps", get_sweeps),
        Route("/members", get_members),
    ],
    lifespan=lifespan,
)


# --- a server, and somebody who uses it ---------------------------------------------------------------------------


def request(method: str, url: str) -> tuple[int, Any]:
    """What a browser does; status 0: nobody listens yet."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method=method), timeout=30) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)
    except OSError:
        return 0, None


def until(url: str, enough: Callable[[Any], bool]) -> Any:
    """Ask again and again until the answer is as it has to be, whichever worker gives it."""
    until_s = time.monotonic() + PATIENCE_S
    while True:
        status, body = request("GET", url)
        if status == 200 and enough(body):
            return body
        if status not in (0, 200, 202) or time.monotonic() > until_s:
            raise RuntimeError(f"{url} answers {status}: {body}")
        time.sleep(0.05)


def use(site: str) -> None:
    until(f"{site}/members", lambda names: len(names) == WORKERS)
    print("members:", WORKERS)

    posted = [request("POST", f"{site}/thumbnails?picture={number}.png") for number in range(PICTURES)]
    print("POST:", *{status for status, _ in posted})
    made = [until(f"{site}/thumbnails/{body['id']}", lambda _: True) for _, body in posted]
    print("thumbnails:", len({it["picture"] for it in made}), "made by", len({it["worker"] for it in made}), "workers")
    print("GET of no job:", request("GET", f"{site}/thumbnails/{'0' * 32}")[0])

    rounds = until(f"{site}/sweeps", lambda found: len(found) == WORKERS and sum(map(len, found.values())) >= 5)
    numbers = [number for worker in rounds.values() for number in worker]
    print("sweeps: 5 or more, each in one worker only:", len(numbers) == len(set(numbers)))


def main() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    where = ["--app-dir", str(Path(__file__).parent), "--port", str(port), "--workers", str(WORKERS)]
    with subprocess.Popen(
        [sys.executable, "-m", "uvicorn", *where, "--log-level", "warning", "web_app:app"], stderr=subprocess.DEVNULL
    ) as server:
        try:
            use(f"http://127.0.0.1:{port}")
        finally:
            server.send_signal(signal.SIGTERM)
            print("server ended with", server.wait(30))


if __name__ == "__main__":
    main()
