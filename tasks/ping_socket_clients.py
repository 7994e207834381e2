"""pingSocketClients: each node pings the TCP clients that are connected to itself, and drops those that are dead.

The server of the application tells who is connected: it puts a `SocketClient` into `clients` when one comes, calls its
`heard` for whatever that one says, and takes it out when it goes. `examples/chat_server.py` is such a server. A client
has to answer the line `ping` with some line.

Server and node live on the same event loop (`async with zhero.Node(...)` in the server's program), as asyncio's streams
belong to one loop.
"""

from __future__ import annotations

import asyncio

import zhero


class SocketClient:
    """A client that is connected to this process."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self.writer = writer
        self._heard = asyncio.Event()

    def heard(self) -> None:
        """It has said something, so it is alive."""
        self._heard.set()

    async def is_alive(self, timeout_s: float) -> bool:
        """Whether it answers a ping in time."""
        self._heard.clear()
        try:
            async with asyncio.timeout(timeout_s):
                self.writer.write(b"ping\n")
                await self.writer.drain()
                await self._heard.wait()
        except (TimeoutError, ConnectionError):
            return False
        return True


clients: set[SocketClient] = set()
"""Those who are connected to this process. Bound: the connections that its server takes."""


@zhero.task(name="pingSocketClients", scope="all", frequency=60_000)  # milliseconds
async def ping_socket_clients(timeout_s: float = 5.0) -> dict[str, int]:
    """Ping all clients of this process at once; whoever has not answered after `timeout_s` seconds is dropped.

    Returns:
        How many are "alive", and how many were "dropped", for each node.
    """
    asked = list(clients)
    alive = await asyncio.gather(*[client.is_alive(timeout_s) for client in asked])
    dead = [client for client, answered in zip(asked, alive, strict=True) if not answered]
    for client in dead:
        clients.discard(client)
        client.writer.transport.abort()  # closing politely would wait for it to read what was sent
    return {"alive": len(asked) - len(dead), "dropped": len(dead)}
