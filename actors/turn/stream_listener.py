"""Clients that come in by TCP or TLS: accepted here, served by an actor each.

Balancers in front of us may say who a connection is from, in a PROXY header.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections import Counter
from collections.abc import Callable
from itertools import count
from typing import TYPE_CHECKING, Any, Final

from actors.runtime import Actor, ChildRefused, ChildSpec, Restart, naming
from actors.transport.addresses import address_text, host_and_port
from actors.transport.gate import PROVED, Place
from actors.transport.tcp.acceptor import AcceptLimits, Acceptor, listen_tcp
from actors.transport.tcp.plain_transport import PlainTransport
from actors.transport.tcp.proxied import ProxiedArrivals
from actors.transport.tcp.tls_transport import READ, TlsTransport
from actors.turn.stream_client import StreamClient

if TYPE_CHECKING:
    from actors.turn.context import TurnContext

#: Protocols that TLS clients of this kind name (RFC 7443).
ALPN: Final = ("stun.turn", "stun.nat-discovery")


class StreamBinding:
    """One address for streams.

    Attributes:
        wanted: of the settings.
        bound: as it was bound first; None before that.
        tls: makes the context of a new connection; None: plain TCP.
    """

    def __init__(
        self, wanted: tuple[str, int], tls: Callable[[], ssl.SSLContext] | None = None
    ) -> None:
        self.wanted = wanted
        self.bound: tuple[str, int] | None = None
        self.tls = tls


class Arrived(asyncio.Protocol):
    """A connection that an actor is about to take over; what comes meanwhile waits.

    It waits in the kernel, but for TLS, where it may have come with the end of the handshake.
    """

    def __init__(
        self, transport: PlainTransport | TlsTransport, address: Any, place: Place
    ) -> None:
        self.transport = transport
        self.address = address[:2]
        self.place = place
        self.tls = isinstance(transport, TlsTransport)
        self._taker: asyncio.Protocol | None = None
        self._held = b""  # one read: then it is paused
        self._over = False
        if self.tls:
            transport.start(self)

    def start(self, taker: asyncio.Protocol) -> None:
        """Deliver to it from now on, and what waited first."""
        self._taker = taker
        if not self.tls:
            self.transport.start(self)
        held, self._held = self._held, b""
        if held:
            taker.data_received(held)
            self.transport.resume_reading()
        if self._over:
            taker.connection_lost(None)

    def data_received(self, data: bytes) -> None:
        if self._taker is not None:
            self._taker.data_received(data)
        else:
            self._held += data
            self.transport.pause_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self._over = True
        if self._taker is not None:
            self._taker.connection_lost(exc)


class _Handshake:
    """A TLS connection that is not established yet; see `HandshakeOwner`."""

    def __init__(
        self, listener: StreamListener, sock: socket.socket, address: Any, place: Place,
        context: ssl.SSLContext,
    ) -> None:  # fmt: skip
        self._listener = listener
        self._address = address
        self._place = place
        self.transport = TlsTransport(sock, context, listener.buffer)
        place.give_way = self.transport.abort
        listener.shaking.add(self)
        self.transport.accept(self)

    def handshake_heard(self) -> None:
        """It spoke."""
        self._place.heard()

    def handshake_done(self, transport: TlsTransport) -> None:
        """Served from now on."""
        self._listener.shaking.discard(self)
        self._listener.serve(Arrived(transport, self._address, self._place))

    def handshake_failed(self, why: str) -> None:
        """The socket is closed."""
        self._listener.shaking.discard(self)
        if self._place.taken:
            self._place.leave()
            self._listener.counters[f"handshake_failed_{why}"] += 1


class StreamListener(Actor):
    """Owns the listening socket; connections outlive it."""

    def __init__(
        self, door: TurnContext, binding: StreamBinding, *, only_ipv6: bool = False
    ) -> None:
        self._door = door
        self._binding = binding
        self._only_ipv6 = only_ipv6
        self._serial = count(1)
        self.counters: Counter[str] = door.events
        self.shaking: set[_Handshake] = set()

    def init(self) -> None:
        """Bind, and accept."""
        binding, settings = self._binding, self._door.settings
        self.buffer = memoryview(bytearray(READ if binding.tls is not None else 0))
        host, port = binding.bound or binding.wanted
        with naming("turn.listen_tls" if binding.tls else "turn.listen_tcp"):
            sock = listen_tcp(host, port, only_ipv6=self._only_ipv6)
        first = binding.bound is None
        binding.bound = host_and_port(sock.getsockname())
        arrivals = ProxiedArrivals(
            settings.proxy_from, self._accepted, gate=lambda: acceptor.gate, counters=self.counters
        )
        limits = AcceptLimits(
            settings.max_streams,
            settings.max_streams_per_source,
            deadline=settings.stream_deadline,
            yields=PROVED - 1,
        )
        acceptor = Acceptor(
            limits, arrivals.accepted, name="turn", counters=self.counters, log=self.log.warning
        )
        self.own(acceptor, "acceptor")
        self.own(self, "handshakes")
        acceptor.attach(sock, self.guard)
        if first:
            kind = "TLS" if binding.tls else "TCP"
            self.log.info("TURN on {} ({})", address_text(*binding.bound), kind)

    def abort(self) -> None:
        """The actor's resource: handshakes that are under way."""
        for one in list(self.shaking):
            one.transport.abort()

    def describe(self) -> dict[str, object]:
        """Address."""
        return {"address": address_text(*(self._binding.bound or ("", 0)))}

    def _accepted(self, sock: socket.socket, address: Any, place: Place) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._door.dispatcher.draining and not self._door.settings.rules.alternates:
            sock.close()
            place.leave()
        elif self._binding.tls is not None:
            _Handshake(self, sock, address, place, self._binding.tls())
        else:
            self.serve(Arrived(PlainTransport(sock), address, place))

    def serve(self, arrived: Arrived) -> None:
        """Start the actor of a connection."""
        try:
            self.system.start_child(
                self._door.place("clients"),
                ChildSpec(
                    f"c{self.incarnation}-{next(self._serial)}",
                    lambda: StreamClient(self._door, arrived),
                    restart=Restart.TEMPORARY,
                ),
            )
        except ChildRefused:
            self.counters["no_actor"] += 1
            arrived.transport.abort()
            arrived.place.leave()
