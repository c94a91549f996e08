"""The door's own port: where services register."""

from __future__ import annotations

import socket
from typing import Any

from actors.rendezvous.arrival import Arrival
from actors.rendezvous.context import RendezvousContext
from actors.runtime import Actor
from actors.transport.addresses import address_text, host_and_port
from actors.transport.gate import Place
from actors.transport.tcp.acceptor import AcceptLimits, Acceptor, listen_tcp
from actors.transport.tcp.proxied import ProxiedArrivals


class Binding:
    """An address of the door; outlives its listeners.

    Attributes:
        wanted: host and port of the settings.
        bound: what was bound first; a new incarnation binds it again.
    """

    def __init__(self, wanted: tuple[str, int]) -> None:
        self.wanted = wanted
        self.bound: tuple[str, int] | None = None


class RendezvousListener(Actor):
    """Takes connections through their first lines; see `Arrival`."""

    def __init__(self, door: RendezvousContext, binding: Binding, *, only_ipv6: bool) -> None:
        self._door = door
        self._binding = binding
        self._only_ipv6 = only_ipv6

    def init(self) -> None:
        """Bind."""
        door, settings = self._door, self._door.settings
        limits = AcceptLimits(
            settings.max_pending, settings.max_pending_per_source, settings.handshake
        )
        arrivals = ProxiedArrivals(
            settings.proxy_from, self._took, gate=lambda: self._acceptor.gate, counters=door.events
        )
        where = self._binding.bound or self._binding.wanted
        sock = listen_tcp(*where, only_ipv6=self._only_ipv6)
        self._binding.bound = host_and_port(sock.getsockname())
        text = address_text(*self._binding.bound)
        self._acceptor = self.own(
            Acceptor(limits, arrivals.accepted, name=f"rendezvous {text}", counters=door.events),
            "acceptor",
        )
        self._acceptor.attach(sock, self.guard)
        self.log.info("listening on {} (TCP, rendezvous)", text)

    def describe(self) -> dict[str, object]:
        """Address and who waits at the gate."""
        return {
            "address": address_text(*(self._binding.bound or self._binding.wanted)),
            "pending_handshakes": len(self._acceptor.gate),
            "services": len(self._door.services),
        }

    def _took(self, sock: socket.socket, address: Any, place: Place) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        Arrival(self._door, sock, address[:2], place, self.guard)
