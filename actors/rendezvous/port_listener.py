"""Where the users of one service come to.

Source: protocol sheet rendezvous 1.4, 1.7 row 18, 5.6 rows 2, 3, 11.
"""

from __future__ import annotations

import socket
from typing import Any

from actors.rendezvous.context import RendezvousContext
from actors.rendezvous.service import Service, User
from actors.runtime import Actor, MailboxSpec
from actors.transport.gate import NOBODY, Place
from actors.transport.quic.rate_limit import RateLimit
from actors.transport.tcp.acceptor import AcceptLimits, Acceptor
from actors.transport.tcp.proxied import ProxiedArrivals, is_within
from actors.transport.tcp.pump.reset import close_with_reset


class PortListener(Actor):
    """Accepts users and gives them to the service; a new incarnation goes on at the same port."""

    mailbox = MailboxSpec(bound=4)

    def __init__(self, door: RendezvousContext, service: Service) -> None:
        self._door = door
        self._service = service

    def init(self) -> None:
        """Accept, unless the port is closed already."""
        door, service = self._door, self._service
        settings = door.settings
        limits = AcceptLimits(
            settings.max_users,
            settings.max_users_per_source,
            deadline=settings.handshake if settings.proxy_from else 0.0,
            yields=NOBODY,
        )
        arrivals = ProxiedArrivals(
            settings.proxy_from, self._took, gate=lambda: self._acceptor.gate, counters=door.events
        )
        self._rate = RateLimit(settings.new_users_per_second)
        self._acceptor = self.own(
            Acceptor(
                limits,
                arrivals.accepted,
                name=service.title,
                counters=door.events,
                turn_away=close_with_reset,  # an end would be an answer
            ),
            "acceptor",
        )
        self._acceptor.accepting = not service.refusing
        service.refuse_users = self._refuse
        listening = service.lease.listening()
        if listening is not None:
            service.lease.on_closed = self._acceptor.detach
            self._acceptor.attach(listening, self.guard)

    def describe(self) -> dict[str, object]:
        """Where, and how many are here."""
        return {
            "port": self._service.port,
            "service": self._service.title,
            "users": len(self._acceptor.gate),
        }

    def _refuse(self) -> None:
        """Whoever comes is closed."""
        self._acceptor.accepting = False

    def _took(self, sock: socket.socket, address: Any, place: Place) -> None:
        place.proved()
        refusal = self._refusal(address[0])
        if refusal:
            self._door.refused[refusal] += 1
            place.leave()
            close_with_reset(sock)
            return
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        user = User(sock, address[:2], place, self.now())
        if self._service.user_came(user) is None:
            user.abort()  # the service failed meanwhile

    def _refusal(self, host: str) -> str:
        """Why this user may not come in; empty: it may."""
        if self._door.draining:
            return "draining"
        for networks in (
            self._door.settings.visitors,
            self._service.client.visitors,
            self._service.options.visitors,
        ):
            if networks and not is_within(host, networks):
                return "visitor_not_allowed"
        return "" if self._rate.take(self.now()) else "user_rate"
