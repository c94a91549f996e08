"""Connections to a relay, up to the end of the first lines."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import Final

from actors.transport.dialling import connect_tcp
from config.endpoint import Endpoint
from wire.errors import PeerError
from wire.rendezvous.line import Protocol
from wire.rendezvous.options import Options
from wire.rendezvous.registration import Answer, Denied, Registered, Registration, joining

#: From the dial to the relay's answer, seconds.
ANSWER_SECONDS: Final = 10.0
#: Bytes read at a time.
_READ: Final = 4096
#: Silence until the kernel asks the relay, and until it is taken for dead, seconds.
_KEEPALIVE: Final = ((socket.TCP_KEEPIDLE, 30), (socket.TCP_KEEPINTVL, 3), (socket.TCP_KEEPCNT, 3))


class NotServed(Exception):
    """The relay does not serve us; the text says why."""


async def dial(relay: Endpoint) -> socket.socket:
    """A connection to the relay; the caller closes it, and sets a deadline.

    Raises:
        OSError: it is not there.
    """
    sock = await connect_tcp(*relay)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in _KEEPALIVE:
        sock.setsockopt(socket.IPPROTO_TCP, option, value)
    return sock


async def register(
    relay: Endpoint, protocol: Protocol, options: Options
) -> tuple[socket.socket, Registration, Registered, list[Answer]]:
    """Register, within `ANSWER_SECONDS`.

    Returns:
        The connection; what reads it; the port; what came behind that already.

    Raises:
        OSError: the relay is not there, or ended.
        NotServed: it says no, or does not speak this protocol.
    """
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(ANSWER_SECONDS):
        sock = await dial(relay)
        try:
            registration = Registration(protocol, options)
            await loop.sock_sendall(sock, registration.greeting())
            registered, more = await answer_of(
                registration, lambda: loop.sock_recv(sock, _READ), options
            )
        except BaseException:
            sock.close()
            raise
    return sock, registration, registered, more


async def answer_of(
    registration: Registration, read: Callable[[], Awaitable[bytes]], options: Options
) -> tuple[Registered, list[Answer]]:
    """The relay's answer, and what came behind it.

    Args:
        read: the next bytes; empty at the end.

    Raises:
        NotServed: it says no, or does not speak this protocol.
    """
    while True:
        data = await read()
        if not data:
            raise NotServed(_ended(options))
        try:
            answers = registration.receive(data)
        except PeerError:
            raise NotServed("what answers there is no rendezvous relay") from None
        if answers:
            first = answers[0]
            if isinstance(first, Denied):
                raise NotServed(f"the relay says: {first.reason}")
            assert isinstance(first, Registered)
            return first, answers[1:]


def _ended(options: Options) -> str:
    if options.wanted:
        return (
            "the relay ended the connection without an answer; relays of other make do not know "
            "name, token, port, proxy_protocol and visitors"
        )
    return "the relay ended the connection without an answer"


async def join(relay: Endpoint, protocol: Protocol, known: str, options: Options) -> socket.socket:
    """A further connection of a service, within `ANSWER_SECONDS`.

    Raises:
        OSError: the relay is not there.
    """
    async with asyncio.timeout(ANSWER_SECONDS):
        sock = await dial(relay)
        try:
            await asyncio.get_running_loop().sock_sendall(sock, joining(protocol, known, options))
        except BaseException:
            sock.close()
            raise
    return sock


def past_ok(data: bytes, options: Options) -> bytes | None:
    """What follows the relay's `ok` to a joining connection that proved who it is.

    Returns:
        None: the line is not complete.

    Raises:
        NotServed: it says no.
    """
    if not options.token:
        return data
    line, end, rest = data.partition(b"\n")
    if not end:
        return None
    if line.strip() != b"ok":
        raise NotServed("the relay does not take a further connection")
    return rest
