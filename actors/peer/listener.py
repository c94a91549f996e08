"""The TCP side of an address of the door: WebSocket, or WebSocket over TLS."""

from __future__ import annotations

import socket
from typing import Any

from actors.peer.context import PeerContext
from actors.peer.peer_tls import PeerTls
from actors.peer.websocket import WebSocketClient
from actors.runtime import Actor
from actors.transport.addresses import address_text, host_and_port
from actors.transport.gate import Place
from actors.transport.tcp.acceptor import AcceptLimits, Acceptor, listen_tcp
from actors.transport.tcp.plain_transport import PlainTransport
from actors.transport.tcp.proxied import ProxiedArrivals
from actors.transport.tcp.tls_transport import TlsTransport


class Binding:
    """An address of the door; outlives its listeners.

    Attributes:
        wanted: host and port of the settings.
        bound: what was bound first; a new incarnation binds it again.
        accepting: newcomers are taken.
    """

    def __init__(self, wanted: tuple[str, int]) -> None:
        self.wanted = wanted
        self.bound: tuple[str, int] | None = None
        self.accepting = True


class PeerListener(Actor):
    """Takes connections; see `WebSocketClient`."""

    def __init__(
        self, door: PeerContext, binding: Binding, tls: PeerTls | None, *, only_ipv6: bool
    ) -> None:
        self._door = door
        self._binding = binding
        self._tls = tls
        self._only_ipv6 = only_ipv6

    def init(self) -> None:
        """Bind."""
        door, settings = self._door, self._door.settings
        limits = AcceptLimits(
            settings.max_pending, settings.max_pending_per_source, settings.auth_deadline
        )
        arrivals = ProxiedArrivals(
            settings.proxy_from, self._took, gate=lambda: self._acceptor.gate, counters=door.events
        )
        sock = listen_tcp(*(self._binding.bound or self._binding.wanted), only_ipv6=self._only_ipv6)
        self._binding.bound = host_and_port(sock.getsockname())
        text = address_text(*self._binding.bound)
        self._acceptor = self.own(
            Acceptor(limits, arrivals.accepted, name=f"peer {text}", counters=door.events),
            "acceptor",
        )
        self._acceptor.attach(sock, self.guard)
        self.log.info("listening on {} ({}, peer)", text, "wss" if self._tls else "ws")

    def describe(self) -> dict[str, object]:
        """Address and who waits at the gate."""
        return {
            "address": address_text(*(self._binding.bound or self._binding.wanted)),
            "pending_handshakes": len(self._acceptor.gate),
            "peers": len(self._door.registry.peers),
        }

    def _took(self, sock: socket.socket, address: Any, place: Place) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        client = WebSocketClient(self._door, place, address[:2])
        if self._tls is None:
            PlainTransport(sock).start(client)
            return
        transport = TlsTransport(sock, self._tls.context, self._tls.buffer)
        place.give_way = transport.abort
        transport.accept(client)
