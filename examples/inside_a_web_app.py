"""A web application with a node in it: a request enqueues a job, and is answered before it has run.

    python examples/inside_a_web_app.py

    POST /reports?about=sales    202 and the id of the job
    GET  /reports/ID             200 and the result; 202: not ready; 404: there is no such job; 500: it failed

The server is a few lines over asyncio's streams, in the place of a framework. What matters is in `main`: the node is
entered where the application starts and left where it stops, as in a lifespan of an ASGI application; it lives on the
same loop, so an enqueue is a function call. The program makes a few requests to itself, and ends.
"""

from __future__ import annotations

import asyncio
import json
import urllib.error
import urllib.request
from urllib.parse import parse_qs, urlsplit

import zhero

Answer = tuple[int, dict[str, object]]
"""Status and body."""


figures = asyncio.Event()
"""Set when there is something to report."""


@zhero.task(timeout=30, retries=2)
async def make_report(about: str) -> str:
    await figures.wait()
    return f"all is well with {about}"


async def post_report(about: str) -> Answer:
    job = await make_report.enqueue(about)
    return 202, {"id": job.id}


async def get_report(node: zhero.Node, job_id: str) -> Answer:
    try:
        return 200, {"result": await node.result(job_id, timeout=0.02)}
    except TimeoutError:
        return 202, {"id": job_id}
    except zhero.JobNotFound as error:
        return 404, {"error": str(error)}
    except zhero.JobFailed as error:
        return 500, {"error": str(error)}


class App:
    """Reads requests and writes answers, one per connection."""

    def __init__(self, node: zhero.Node) -> None:
        self._node = node

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        method, target, _ = head.decode("latin-1").split(" ", 2)
        status, body = await self._answer(method, target)
        data = json.dumps(body).encode()
        writer.write(
            f"HTTP/1.1 {status} .\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(data)}\r\nConnection: close\r\n\r\n".encode()
            + data
        )
        await writer.drain()
        writer.close()

    async def _answer(self, method: str, target: str) -> Answer:
        url = urlsplit(target)
        match method, url.path.strip("/").split("/"):
            case "POST", ["reports"]:
                return await post_report(parse_qs(url.query).get("about", ["nothing"])[0])
            case "GET", ["reports", job_id]:
                return await get_report(self._node, job_id)
            case _:
                return 404, {"error": "no such page"}


def request(method: str, url: str) -> Answer:
    """What a browser does."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method=method), timeout=10) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


async def main() -> None:
    async with zhero.Node(tasks=[make_report]) as node:
        server = await asyncio.start_server(App(node), "127.0.0.1", 0)
        async with server:
            site = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            status, body = await asyncio.to_thread(request, "POST", f"{site}/reports?about=sales")
            print("POST /reports:", status)
            report = f"{site}/reports/{body['id']}"
            status, body = await asyncio.to_thread(request, "GET", report)
            print("GET at once:", status)
            figures.set()
            while status == 202:
                status, body = await asyncio.to_thread(request, "GET", report)
            print("GET later:", status, body)
            status, body = await asyncio.to_thread(request, "GET", f"{site}/reports/{'0' * 32}")
            print("GET of no job:", status)


if __name__ == "__main__":
    asyncio.run(main())
