"""A server of plain threads with a node in it: the way of Flask, Django and everything else that knows no asyncio.

    python examples/plain_threads.py

    POST /orders?thing=lamp      202 and the id of the job
    GET  /orders/ID              200 and the result; 500: it failed

`node.start()` when the program starts, `node.stop()` when it ends; between the two any thread enqueues. Each request is
a thread of the server; so is each job, as its function is a plain one. The program makes requests to itself, and ends.
"""

from __future__ import annotations

import json
import threading
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import zhero


@zhero.task(timeout=30)
def pack(thing: str) -> str:
    where = "the main thread" if threading.current_thread() is threading.main_thread() else "another thread"
    return f"a {thing}, packed in {where}"


orders: dict[str, zhero.Job[str]] = {}
"""Id of each job that was taken here -> its handle."""


class Orders(BaseHTTPRequestHandler):
    """What a view of a web framework would do."""

    def do_POST(self) -> None:
        thing = parse_qs(urlsplit(self.path).query)["thing"][0]
        job = pack.enqueue_soon(thing)
        job.wait_accepted(timeout=15)  # until then it could be refused
        orders[job.id] = job
        self._answer(202, {"id": job.id})

    def do_GET(self) -> None:
        job = orders[self.path.rpartition("/")[2]]
        try:
            self._answer(200, {"result": job.result_sync(timeout=15)})
        except zhero.JobFailed as error:
            self._answer(500, {"error": str(error)})

    def _answer(self, status: int, body: dict[str, str]) -> None:
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: the program says itself what it does."""


def request(method: str, url: str) -> tuple[int, dict[str, str]]:
    """What a browser does."""
    with urllib.request.urlopen(urllib.request.Request(url, method=method), timeout=30) as response:
        return response.status, json.load(response)


def main() -> None:
    node = zhero.Node(tasks=[pack])
    node.start()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Orders)
    serving = threading.Thread(target=server.serve_forever)
    serving.start()
    site = f"http://127.0.0.1:{server.server_port}"
    try:
        with ThreadPoolExecutor(8) as people:
            things = ["lamp", "chair"] * 20
            taken = list(people.map(request, ["POST"] * 40, [f"{site}/orders?thing={thing}" for thing in things]))
            print("POST:", *{status for status, _ in taken})
            print("orders:", len({body["id"] for _, body in taken}))
            packed = list(people.map(request, ["GET"] * 40, [f"{site}/orders/{body['id']}" for _, body in taken]))
            print("GET:", *{status for status, _ in packed})
            for result in sorted({body["result"] for _, body in packed}):
                print(result)
    finally:
        server.shutdown()
        serving.join()
        server.server_close()
        lost = node.stop()
    print("jobs that will not run:", lost)


if __name__ == "__main__":
    main()
