"""A local TCP listener for one consumed service; it survives the loss of the relay."""

from __future__ import annotations

import socket

from actors.runtime import Actor, ChildRefused, ChildSpec, Restart
from actors.transport.addresses import address_text, host_and_port, only_ipv6
from actors.transport.tcp.acceptor import listen_tcp
from tools.agent.consumer_bridge import ConsumerBridge
from tools.agent.ends import WatchedSocket
from tools.agent.settings import AgentSettings, Mapping
from tools.agent.stream_table import StreamTable

#: Connections accepted per wake-up.
BATCH = 64


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
        self._refused = 0
        self._address = ""

    def init(self) -> None:
        """Bind. A restarted listener binds the same address."""
        mapping = self._mapping
        where = (mapping.host, mapping.port)
        beside = [(other.host, other.port) for other in self._settings.consume]
        sock = listen_tcp(*where, only_ipv6=only_ipv6(where, beside))
        self.own(WatchedSocket(self, sock), "listener")
        self._address = address_text(*host_and_port(sock.getsockname()))
        self.system.loop.add_reader(sock, self.guard("listener", self._accept), sock)
        self.log.info("{} on {}", mapping.service, self._address)

    def describe(self) -> dict[str, object]:
        """Address and counters."""
        return {
            "service": self._mapping.service,
            "address": self._address,
            "accepted": self._accepted,
            "refused": self._refused,
        }

    def _accept(self, listening: socket.socket) -> None:
        for _ in range(BATCH):
            try:
                sock, _ = listening.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                # Out of descriptors or an aborted handshake: this connection only.
                self.log.warning("accept failed: {}", error.strerror)
                return
            self._admit(sock)

    def _service_of(self, sock: socket.socket) -> str | None:
        """Which service this connection is for; None: none of ours."""
        return self._mapping.service

    def _admit(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        link, bridges = self.system.ref(self._link), self.system.ref(self._bridges)
        self._accepted += 1
        settings, service, table = self._settings, self._service_of(sock), self._table
        if service is None:
            self._refused += 1
            sock.close()
            return
        try:
            if link is None or bridges is None:
                raise ChildRefused(self._bridges, service, "down")
            spec = ChildSpec(
                f"out-{service}~{self.incarnation}.{self._accepted}",
                lambda: ConsumerBridge(settings, service, sock, link, table),
                restart=Restart.TEMPORARY,
                shutdown=1.0,
            )
            self.system.start_child(bridges, spec)
        except ChildRefused:
            self._refused += 1
            sock.close()
