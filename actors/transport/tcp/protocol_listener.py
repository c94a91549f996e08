"""Serves an asyncio protocol, such as aiohttp's, behind the accept loop and gate of all listeners.

A connection holds its place until it ends. One that has not brought a complete request within the
deadline, its TLS handshake included, is closed; when all places are taken, those who never asked
anything give way.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections import Counter
from collections.abc import Callable
from typing import Any

from actors.runtime import Guard
from actors.transport.gate import Place
from actors.transport.tcp.acceptor import AcceptLimits, Acceptor
from actors.transport.tcp.tls_transport import READ, TlsTransport


class ProtocolListener:
    """Serves an asyncio protocol, such as aiohttp's, behind the accept loop and gate of all
    listeners. A resource.

    Args:
        make: makes the protocol of one connection.
        limits: of each listening socket.
        name: for the log.
        lifetime: seconds a connection may take in all; 0: it is not bounded.
        tls: the context of a new connection (`tls_context`), asked for each, so that another
            certificate is used from the next on; None: without TLS.
        log: writes a line about refusals.
    """

    def __init__(
        self,
        make: Callable[[], asyncio.Protocol],
        limits: AcceptLimits,
        *,
        name: str,
        lifetime: float = 0.0,
        tls: Callable[[], ssl.SSLContext] | None = None,
        log: Callable[[str], object] | None = None,
    ) -> None:
        self.counters: Counter[str] = Counter()
        self._make = make
        self._limits = limits
        self._name = name
        self._lifetime = lifetime
        self._tls = tls
        #: What all TLS connections read into.
        self._buffer = memoryview(b"" if tls is None else bytearray(READ))
        self._log = log
        self._acceptors: list[Acceptor] = []
        self._served: dict[asyncio.BaseTransport, _Served] = {}
        self._beginning: set[asyncio.Task[None]] = set()
        self._shaking: set[_Arrival] = set()

    def attach(self, listening: socket.socket, guard: Guard) -> None:
        """Accept from one more socket; see `Acceptor.attach`."""
        acceptor = Acceptor(
            self._limits, self._accepted, name=self._name, counters=self.counters, log=self._log
        )
        acceptor.attach(listening, guard)
        self._acceptors.append(acceptor)

    def asked(self, transport: asyncio.BaseTransport | None) -> None:
        """A complete request came over this connection."""
        served = None if transport is None else self._served.get(transport)
        if served is not None:
            served.place.proved()

    def __len__(self) -> int:
        return sum(len(acceptor.gate) for acceptor in self._acceptors)

    def abort(self) -> None:
        """Close everything; idempotent."""
        for acceptor in self._acceptors:
            acceptor.abort()
        for arrival in list(self._shaking):
            arrival.transport.abort()
        for transport in list(self._served):
            transport.abort()  # type: ignore[attr-defined]  # a socket's transport has it

    def _accepted(self, sock: socket.socket, _: Any, place: Place) -> None:
        if self._tls is not None:
            self._shaking.add(_Arrival(self, place, sock, self._tls()))
            return
        place.give_way = sock.close
        task = asyncio.get_running_loop().create_task(self._begin(sock, place))
        self._beginning.add(task)
        task.add_done_callback(self._beginning.discard)

    def _protocol(self, place: Place) -> _Served:
        return _Served(self._make(), place, self._served, self._lifetime)

    # Called by an arrival.

    def shaken(self, arrival: _Arrival, why: str = "") -> None:
        """Its TLS handshake is done; or why it failed."""
        self._shaking.discard(arrival)
        if not why:
            arrival.transport.start(self._protocol(arrival.place))
        elif arrival.place.taken:  # one that gave way is counted already
            arrival.place.leave()
            self.counters[f"handshake_failed_{why}"] += 1

    async def _begin(self, sock: socket.socket, place: Place) -> None:
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: self._protocol(place), sock
            )
        except (OSError, ValueError):  # ended, or gave way, before it began
            sock.close()
            place.leave()


class _Arrival:
    """A connection while its TLS handshake runs; see `HandshakeOwner`."""

    def __init__(
        self, listener: ProtocolListener, place: Place, sock: socket.socket, context: ssl.SSLContext
    ) -> None:
        self.place = place
        self.transport = TlsTransport(sock, context, listener._buffer)  # noqa: SLF001  # its part
        self._listener = listener
        place.give_way = self.transport.abort
        self.transport.accept(self)

    def handshake_heard(self) -> None:
        """It spoke."""
        self.place.heard()

    def handshake_done(self, transport: TlsTransport) -> None:
        """It is served from now on."""
        self._listener.shaken(self)

    def handshake_failed(self, why: str) -> None:
        """The socket is closed."""
        self._listener.shaken(self, why)


class _Served(asyncio.Protocol):
    """Between the transport and the protocol that is served: keeps the place."""

    def __init__(
        self,
        inner: asyncio.Protocol,
        place: Place,
        table: dict[asyncio.BaseTransport, _Served],
        lifetime: float,
    ) -> None:
        self.place = place
        self._inner = inner
        self._table = table
        self._lifetime = lifetime
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It begins, unless it gave way meanwhile."""
        assert isinstance(transport, asyncio.Transport)
        if not self.place.taken:
            transport.abort()
            return
        self._transport = transport
        self._table[transport] = self
        self.place.give_way = transport.abort
        if self._lifetime:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(self._lifetime, transport.abort)
        self._inner.connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """The place is free."""
        self.place.leave()
        transport, self._transport = self._transport, None
        if transport is None:
            return
        del self._table[transport]
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._inner.connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Passed on."""
        if self._transport is not None:
            self.place.heard()
            self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        """Passed on."""
        return self._inner.eof_received()

    def pause_writing(self) -> None:
        """Passed on."""
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        """Passed on."""
        self._inner.resume_writing()
