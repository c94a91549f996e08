"""Connected TCP sockets on loopback, and what a test reads from them."""

from __future__ import annotations

import asyncio
import hashlib
import socket


def connected(buffers: int = 0) -> tuple[socket.socket, socket.socket]:
    """Two ends of one TCP connection, non-blocking; buffers of a fixed size (bytes) if given."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        one = socket.create_connection(server.getsockname())
        other, _ = server.accept()
    for sock in (one, other):
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for kind in (socket.SO_SNDBUF, socket.SO_RCVBUF) if buffers else ():
            sock.setsockopt(socket.SOL_SOCKET, kind, buffers)
    return one, other


async def read_to_end(sock: socket.socket) -> tuple[int, str]:
    """How many bytes came before the FIN, and their hash.

    Raises:
        ConnectionResetError: RST instead.
    """
    loop, count, digest = asyncio.get_running_loop(), 0, hashlib.sha256()
    while data := await loop.sock_recv(sock, 1 << 18):
        count += len(data)
        digest.update(data)
    return count, digest.hexdigest()


async def exactly(sock: socket.socket, count: int) -> bytes:
    """So many bytes."""
    data = b""
    while len(data) < count:
        more = await asyncio.get_running_loop().sock_recv(sock, count - len(data))
        assert more, f"{len(data)} of {count} bytes, then the end"
        data += more
    return data
