"""A WebSocket echo server, its client, and a server for `nc -N`; see `rendezvous.sh`."""

from __future__ import annotations

import asyncio
import os
import sys

from aiohttp import ClientSession, WSMsgType, web


async def websocket_server(port: int) -> None:
    """Echo until somebody says bye; then the server closes."""

    async def echo(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(max_msg_size=0)
        await socket.prepare(request)
        async for message in socket:
            if message.type is not WSMsgType.BINARY:
                await socket.close()
                break
            await socket.send_bytes(message.data)
        return socket

    app = web.Application()
    app.router.add_get("/", echo)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    await asyncio.Event().wait()


async def websocket_client(port: int) -> None:
    """Echo messages of many sizes, and see the server's close."""
    async with (
        ClientSession() as session,
        session.ws_connect(f"http://127.0.0.1:{port}/", max_msg_size=0) as socket,
    ):
        for size in range(1, 200_000, 1000):
            data = os.urandom(size)
            await socket.send_bytes(data)
            assert (await socket.receive()).data == data
        await socket.send_str("bye")
        assert (await socket.receive()).type is WSMsgType.CLOSE


async def answering_server(port: int, path: str) -> None:
    """Answer a request that was ended by FIN with a file, then end."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        with open(path, "rb") as file:  # noqa: ASYNC230  # nobody else waits
            writer.write(file.read())
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    what, port = sys.argv[1], int(sys.argv[2])
    if what == "serve":
        asyncio.run(websocket_server(port))
    elif what == "talk":
        asyncio.run(websocket_client(port))
    else:
        asyncio.run(answering_server(port, sys.argv[3]))
