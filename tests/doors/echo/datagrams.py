"""The echo door's QUIC: clients without a certificate, and DATAGRAM frames that go back."""

from __future__ import annotations

from collections import Counter
from itertools import count

from actors.runtime import Actor, ChildSpec, Restart, shutdown
from actors.transport.connection import Connection
from actors.transport.peer_policy import PeerPolicy
from actors.transport.quic import QuicEndpoint, QuicSettings
from actors.transport.stream import CloseReason
from actors.transport.tls import TlsIdentity

SETTINGS = QuicSettings(max_streams=0, max_datagram_frame=16_383)


def make_endpoint(identity: TlsIdentity, counters: Counter[str]) -> QuicEndpoint:
    """Made once per process; its socket belongs to the listener."""
    return QuicEndpoint(
        alpn=("echo",),
        identity=identity,
        settings=SETTINGS,
        peer_policy=PeerPolicy.SERVER_ONLY,
        counters=counters,
    )


class DatagramListener(Actor):
    """The socket; connections outlive it."""

    def __init__(
        self, endpoint: QuicEndpoint, address: tuple[str, int], counters: Counter[str]
    ) -> None:
        self._endpoint, self._address, self._counters = endpoint, address, counters
        self._serial = count(1)

    def init(self) -> None:
        """Bind."""
        self._endpoint.on_connection = self.guard("accept", self._take)
        self._endpoint.accepting = True
        self._endpoint.attach(self._address, self.guard)
        self.own(self, "socket")

    def abort(self) -> None:
        """The actor's resource: the socket."""
        self._endpoint.detach()

    def _take(self, connection: Connection) -> None:
        connections = self.system.ref("/echo/connections")
        assert connections is not None
        name = f"q{self.incarnation}-{next(self._serial)}"
        self.system.start_child(
            connections,
            ChildSpec(name, lambda: Peer(connection, self._counters), restart=Restart.TEMPORARY),
        )


class Peer(Actor):
    """One QUIC connection."""

    def __init__(self, connection: Connection, counters: Counter[str]) -> None:
        self._connection, self._counters = connection, counters

    def init(self) -> None:
        """Own it, and echo."""
        connection = self.own(self._connection, "connection")
        connection.on_datagrams = self.guard("datagrams", self._echo)
        connection.on_closed = self.guard("connection", self._closed)
        connection.start()

    def _echo(self, payloads: list[bytes]) -> None:
        for payload in payloads:
            self._counters["echoed_datagrams"] += self._connection.send_datagram(payload)

    def _closed(self, reason: CloseReason) -> None:
        self.stop(shutdown(str(reason)))
