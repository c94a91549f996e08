"""A connection to the door's own port, until it is a service, a further connection of one, or none.

Its first byte tells whether it speaks TLS; then it has its lines, read with one deadline for all of
them (the gate's). What is wrong is closed, counted by reason, and nobody else notices.

Source: protocol sheet rendezvous 1.2, 1.7 rows 1, 15, 16, 1.8.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Final

from actors.rendezvous.access import NOBODY
from actors.rendezvous.context import RendezvousContext
from actors.rendezvous.joins import Joining
from actors.rendezvous.registrar import register
from actors.rendezvous.service_tls import ServiceTls
from actors.runtime import Guard
from actors.transport.certificate_path import IdentityRejected
from actors.transport.gate import Place
from actors.transport.tcp.tls_transport import TlsTransport
from wire.rendezvous.handshake import Asked, Event, Handshake, Join, Refused, Register
from wire.rendezvous.line import Protocol
from wire.rendezvous.options import ERROR, OK, Options

#: Bytes read at a time; what follows the lines is handed on.
_READ: Final = 4096
_TLS: Final = 0x16
_HTTP: Final = (b"GET ", b"HEAD ", b"POST ", b"PUT ", b"OPTIONS ", b"CONNECT ")


class Arrival(asyncio.Protocol):
    """A connection to the door's own port, until it is a service, a further connection of one, or
    none.

    Args:
        sock: non-blocking; taken over.
        address: where it comes from.
        guard: wraps its callbacks.
    """

    __slots__ = ("_address", "_asked", "_client", "_door", "_handshake", "_loop", "_place", "_sock",
                 "_spoke", "_tls")  # fmt: skip

    def __init__(
        self,
        door: RendezvousContext,
        sock: socket.socket,
        address: tuple[str, int],
        place: Place,
        guard: Guard,
    ) -> None:
        self._door = door
        self._sock = sock
        self._address = address
        self._place = place
        self._client = NOBODY
        self._asked: Options | None = None
        self._handshake = Handshake()
        self._spoke = False
        self._tls: TlsTransport | None = None
        self._loop = asyncio.get_running_loop()
        place.give_way = self._close
        self._loop.add_reader(sock.fileno(), guard("arrival", self._readable))

    def _readable(self) -> None:
        tls = self._door.tls
        if not self._spoke and tls is not None and not self._sniffed(tls):
            return
        try:
            data = self._sock.recv(_READ)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self._refuse("reset")
            return
        if not self._spoke:
            self._spoke = True
            self._place.heard()
            if data.startswith(_HTTP):
                self._refuse("http")
                return
            if data and data[0] == _TLS:
                self._refuse("tls_not_served")
                return
        ended = not data
        self._take(self._handshake.receive_eof() if ended else self._handshake.receive(data))

    # TLS.

    def _sniffed(self, tls: ServiceTls) -> bool:
        """True when the connection goes on without TLS."""
        try:
            first = self._sock.recv(1, socket.MSG_PEEK)
        except OSError:
            return True  # reading tells
        if not first or first[0] != _TLS:
            if tls.required:
                self._spoke = True
                self._refuse("tls_required")
            return not tls.required
        self._spoke = True
        self._place.heard()
        self._unwatch()
        self._tls = TlsTransport(self._sock, tls.context, tls.buffer)
        self._tls.accept(self)
        return False

    def handshake_heard(self) -> None:
        """What it says is looked at when all of it is there."""

    def handshake_done(self, transport: TlsTransport) -> None:
        assert self._door.tls is not None
        try:
            self._client = self._door.tls.client_of(transport)
        except IdentityRejected as rejected:
            self._refuse(f"certificate_{rejected.slug}")
            return
        transport.start(self)

    def handshake_failed(self, why: str) -> None:
        """See `HandshakeOwner`; one that gave way is counted already."""
        if self._place.taken:
            self._door.refused[f"tls_{why}"] += 1
            self._place.leave()

    def data_received(self, data: bytes) -> None:
        """The lines, over TLS."""
        self._take(self._handshake.receive(data))

    def eof_received(self) -> None:
        """The end, over TLS."""
        self._take(self._handshake.receive_eof())

    def connection_lost(self, exc: Exception | None) -> None:
        """It ended, or is somebody else's."""
        if self._place.taken:
            self._refuse("reset")

    def _take(self, events: list[Event]) -> None:
        for event in events:
            if not self._place.taken:
                return
            if isinstance(event, Asked):
                self._identify(event.options)
            elif isinstance(event, Refused):
                self._refuse(event.reason)
            elif not self._allowed:
                self._deny("unauthorized")
            elif isinstance(event, Register):
                self._register(event)
            else:
                self._join(event)

    # Who it is.

    def _identify(self, options: Options) -> None:
        self._asked = options
        if options.token:
            client = self._door.access.client_of(options.token)
            if client is None:
                self._deny("unauthorized")
                return
            self._client = client
        if self._allowed:
            self._say(OK)
        else:
            self._deny("unauthorized")

    @property
    def _allowed(self) -> bool:
        return not self._door.settings.require_auth or self._client is not NOBODY

    def _say(self, line: str) -> None:
        if self._tls is not None:
            self._tls.write(f"{line}\n".encode())
            return
        try:
            self._sock.send(f"{line}\n".encode())
        except OSError:
            pass  # reading tells

    # What it wants.

    def _register(self, event: Register) -> None:
        if self._tls is not None and event.protocol is not Protocol.MULTIPLEX:
            self._deny("multiplex_only_over_tls")
            return
        self._unwatch()
        refusal = register(
            self._door,
            event.protocol,
            self._asked or Options(),
            self._client,
            self._address,
            self._sock if self._tls is None else self._tls,
            self._handshake.rest,
        )
        if refusal:
            self._deny(refusal)
        else:
            self._place.leave()

    def _join(self, event: Join) -> None:
        if self._tls is not None:
            self._deny("multiplex_only_over_tls")
            return
        self._unwatch()
        joining = Joining(self._sock, self._handshake.rest, self._client.name)
        if self._door.joins.join(event.protocol, event.id, joining):
            self._place.leave()
        else:
            self._deny("unknown_id")

    # The end.

    def _deny(self, reason: str) -> None:
        """Tell those who asked in a way that can be answered."""
        if self._asked is not None:
            self._say(f"{ERROR}{reason}")
        self._refuse(reason)

    def _refuse(self, reason: str) -> None:
        self._door.refused[reason] += 1
        self._place.leave()
        self._close()

    def _unwatch(self) -> None:
        if self._tls is not None:
            return
        self._loop.remove_reader(self._sock.fileno())

    def _close(self) -> None:
        if self._tls is not None:
            self._tls.close()
            return
        self._unwatch()
        self._sock.close()
