"""The first lines over TLS, until the session takes the connection over."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

from actors.transport.tcp.tls_context import client_context
from actors.transport.tcp.tls_transport import READ, TlsTransport
from actors.transport.tls import TlsIdentity, TlsMaterialError
from config.endpoint import Endpoint
from tools.forward.relay_socket import NotServed, answer_of, dial
from tools.forward.settings import ForwardedService, RelayTls
from wire.rendezvous.registration import Registered, Registration


def _context(tls: RelayTls) -> ssl.SSLContext:
    """Chain and name of the relay are verified.

    Raises:
        NotServed: a file cannot be used.
    """
    try:
        if tls.certificate:
            identity = TlsIdentity.load(Path(tls.certificate), Path(tls.key), Path(tls.ca))
            return client_context(identity, ())
        context = ssl.create_default_context(cafile=tls.ca)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
    except (TlsMaterialError, OSError) as error:
        raise NotServed(f"TLS: {error}") from None
    return context


class _Lines(asyncio.Protocol):
    """What comes, piece by piece; `None` is the end."""

    def __init__(self) -> None:
        self.done: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._pieces: list[bytes | None] = []
        self._waiter: asyncio.Future[None] | None = None

    def handshake_heard(self) -> None:
        """What it says is looked at when all of it is there."""

    def handshake_done(self, transport: TlsTransport) -> None:
        if not self.done.done():
            self.done.set_result("")

    def handshake_failed(self, why: str) -> None:
        if not self.done.done():
            self.done.set_result(why)

    def data_received(self, data: bytes) -> None:
        self._put(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._put(None)

    def _put(self, piece: bytes | None) -> None:
        self._pieces.append(piece)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def read(self) -> bytes:
        """The next piece; empty at the end."""
        if not self._pieces:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        return self._pieces.pop(0) or b""

    def rest(self) -> bytes:
        """What came and was not read."""
        return b"".join(piece for piece in self._pieces if piece)


async def register_over_tls(
    relay: Endpoint, service: ForwardedService, tls: RelayTls
) -> tuple[TlsTransport, bytes, Registered]:
    """As `relay_socket.register`: the connection, what came behind the answer, and the port.

    Raises:
        OSError, NotServed: see there; also when the relay is not the one it should be.
    """
    context = _context(tls)
    sock = await dial(relay)
    buffer = memoryview(bytearray(READ))
    transport = TlsTransport(sock, context, buffer, tls.server_name or relay.host)
    lines = _Lines()
    try:
        transport.connect(lines)
        why = await lines.done
        if why:
            raise NotServed(f"TLS: {why}")
        transport.start(lines)
        registration = Registration(service.protocol, service.options)
        transport.write(registration.greeting())
        registered, _ = await answer_of(registration, lines.read, service.options)
    except BaseException:
        transport.abort()
        raise
    return transport, registration.rest + lines.rest(), registered
