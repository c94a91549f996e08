"""A local TCP listener for one consumed service; it survives the loss of the relay."""

from __future__ import annotations

import socket
from collections import Counter

from actors.runtime import Actor, ChildRefused, ChildSpec, Down, Restart, escape_id, handles, naming
from actors.transport.addresses import address_text, host_and_port, only_ipv6
from actors.transport.gate import NOBODY, Place
from actors.transport.quic.rate_limit import RateLimit
from actors.transport.tcp.acceptor import AcceptLimits, Acceptor, listen_tcp
from tools.agent.consumer_bridge import ConsumerBridge
from tools.agent.messages import Drain
from tools.agent.settings import AgentSettings, Mapping
from tools.agent.stream_table import StreamTable

#: Local connections of one listener, and of one address: nobody gives way, because in many
#: protocols the server speaks first.
LIMITS = AcceptLimits(10_000, 5_000, yields=NOBODY)

#: About refused connections, above level DEBUG.
LINES_PER_SECOND = 10.0


class ServiceListener(Actor):
    """Accepts local connections and gives each a `ConsumerBridge`."""

    def __init__(
        self,
        settings: AgentSettings,
        mapping: Mapping,
        link: str,
        bridges: str,
        table: StreamTable,
    ) -> None:
        self._table = table
        self._settings = settings
        self._mapping = mapping
        self._link = link
        self._bridges = bridges
        self._accepted = 0
        #: Of connections that live, by the monitor of their bridge.
        self._places: dict[int, Place] = {}
        self._refused: Counter[str] = Counter()
        self._lines = RateLimit(LINES_PER_SECOND)
        self._address = ""

    def init(self) -> None:
        """Bind. A restarted listener binds the same address."""
        mapping = self._mapping
        where = (mapping.host, mapping.port)
        beside = [(other.host, other.port) for other in self._settings.consume]
        with naming("--listen"):
            sock = listen_tcp(*where, only_ipv6=only_ipv6(where, beside))
        acceptor = Acceptor(
            LIMITS, self._admit, name=mapping.service, counters=self._refused, log=self.log.warning
        )
        self._acceptor = self.own(acceptor, "listener")
        acceptor.attach(sock, self.guard)
        self._address = address_text(*host_and_port(sock.getsockname()))
        self.log.info("{} on {}", mapping.service, self._address)

    def describe(self) -> dict[str, object]:
        """Address and counters."""
        return {
            "service": self._mapping.service,
            "address": self._address,
            "accepted": self._accepted,
            "refused": dict(self._refused),
        }

    def _service_of(self, sock: socket.socket) -> str | None:
        """Which service this connection is for; None: none of ours."""
        return self._mapping.service

    def _admit(self, sock: socket.socket, _: object, place: Place) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        link, bridges = self.system.ref(self._link), self.system.ref(self._bridges)
        self._accepted += 1
        settings, service, table = self._settings, self._service_of(sock), self._table
        lines = self._lines
        if service is None:
            self._refused["no such service"] += 1
            place.leave()
            sock.close()
            return
        try:
            if link is None or bridges is None:
                raise ChildRefused(self._bridges, service, "down")
            spec = ChildSpec(
                escape_id(f"out-{service}~{self.incarnation}.{self._accepted}"),
                lambda: ConsumerBridge(settings, service, sock, link, table, lines),
                restart=Restart.TEMPORARY,
                shutdown=1.0,
            )
            bridge = self.system.start_child(bridges, spec)
        except ChildRefused as refused:
            self._refused[refused.why] += 1
            place.leave()
            sock.close()
            return
        self._places[self.monitor(bridge)] = place

    @handles(Drain)
    def _drain(self, _: Drain) -> None:
        self._acceptor.detach()

    @handles(Down)
    def _over(self, down: Down) -> None:
        """A bridge ended, and its connection with it."""
        place = self._places.pop(down.token, None)
        if place is not None:
            place.leave()
