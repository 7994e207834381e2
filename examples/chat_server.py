"""A TCP chat server with a node in it, whose task `pingSocketClients` drops the clients that are dead.

    python -m examples.chat_server        (in the folder above this one, as it uses tasks/ping_socket_clients.py)

Two clients connect. Ann answers pings; Bob has stopped doing anything, as a machine without power would. A ping round
finds out, Bob's connection is dropped, and Ann's stays. In production the round comes by itself, once a minute.
"""

from __future__ import annotations

import asyncio

import zhero
from tasks.ping_socket_clients import SocketClient, clients, ping_socket_clients


async def chat(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Serve one client: each line that it says goes to the others."""
    me = SocketClient(writer)
    clients.add(me)
    try:
        async for line in reader:
            me.heard()
            if line != b"pong\n":
                for other in clients - {me}:
                    other.writer.write(line)
    except ConnectionError:
        pass  # as good as a goodbye
    finally:
        clients.discard(me)
        writer.close()


async def answer_pings(port: int) -> None:
    """A client that is alive."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    async for line in reader:
        if line == b"ping\n":
            writer.write(b"pong\n")
    writer.close()


async def main() -> None:
    server = await asyncio.start_server(chat, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, zhero.Node(tasks=[ping_socket_clients], name="chat-1"):
        ann = asyncio.create_task(answer_pings(port))
        _, bob = await asyncio.open_connection("127.0.0.1", port)
        while len(clients) < 2:
            await asyncio.sleep(0.01)

        print("connected:", len(clients))
        print("ping round:", await ping_socket_clients.run(timeout_s=1))
        print("connected:", len(clients))

        bob.close()
        for client in clients:
            client.writer.close()
        await ann
        while clients:
            await asyncio.sleep(0.01)


if __name__ == "__main__":
    asyncio.run(main())
