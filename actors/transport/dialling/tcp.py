"""A TCP connection to a host: whichever of its addresses answers first."""

from __future__ import annotations

import asyncio
import errno
import os
import socket

from actors.transport.addresses import Target
from actors.transport.dialling.attempts import first_to_connect
from actors.transport.dialling.names import resolve


async def connect_tcp(host: str, port: int) -> socket.socket:
    """A connected, non-blocking socket; the caller closes it. Set a deadline.

    Raises:
        OSError: the name does not resolve, or none of its addresses takes the connection.
    """
    return await first_to_connect(await resolve(host, port), connect_to, socket.socket.close)


async def connect_to(target: Target) -> socket.socket:
    """As `connect_tcp`, for one address."""
    kind = socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
    sock = socket.socket(target.family, kind)
    try:
        await _connected(sock, target)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except BaseException:
        sock.close()
        raise
    return sock


async def _connected(sock: socket.socket, target: Target) -> None:
    """By hand: uvloop's `sock_connect` loses the zone of a link-local address."""
    error = sock.connect_ex(target.address)
    if error in (errno.EINPROGRESS, errno.EINTR):
        loop = asyncio.get_running_loop()
        writable: asyncio.Future[None] = loop.create_future()
        loop.add_writer(sock, _settle, writable)
        try:
            await writable
        finally:
            loop.remove_writer(sock)
        error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if error:
        raise OSError(error, os.strerror(error))


def _settle(writable: asyncio.Future[None]) -> None:
    if not writable.done():
        writable.set_result(None)
