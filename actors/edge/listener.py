"""The listeners: each owns the socket of an endpoint, and admits verified connections.

Killed or crashed, it is restarted and binds the same address; connections live on, because they
belong to their agent connections (docs/decisions/0013).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from actors.edge.connection.agent_connection import AgentConnection
from actors.edge.context import EdgeContext
from actors.edge.relays.relay_connection import RelayConnection
from actors.runtime import Actor, ActorRef, ChildRefused, ChildSpec, Restart, escape_id, naming
from actors.transport.addresses import address_text
from actors.transport.connection import Connection
from actors.transport.quic import QuicEndpoint
from actors.transport.refusal_log import RefusalLog
from actors.transport.tcp import TcpEndpoint
from wire.orp.close_codes import CloseCode
from wire.orp.identity import IdentityError, RelayUri, parse_identity

#: Verified connections that wait for the supervisor they belong below, which is being restarted;
#: one more is refused. Refusing all would cost each of them its dialler's back-off.
MAX_HELD = 1024
#: Seconds one waits at most, and between two looks.
HELD_SECONDS = 2.0
LOOK_SECONDS = 0.01


class _Binding:
    """The socket of an endpoint as a resource."""

    __slots__ = ("_endpoint",)

    def __init__(self, endpoint: QuicEndpoint | TcpEndpoint) -> None:
        self._endpoint = endpoint

    def abort(self) -> None:
        """Close the socket; connections live on."""
        self._endpoint.detach()


class _Listener(Actor):
    """What listeners of every transport share.

    Args:
        address: to bind; with port 0 every incarnation binds the port of the first.
        only_ipv6: `[::]` leaves IPv4 to another listener.
    """

    transport = ""  #: for the log
    setting = ""  #: where the address comes from

    def __init__(
        self,
        door: EdgeContext,
        endpoint: QuicEndpoint | TcpEndpoint,
        address: tuple[str, int],
        *,
        only_ipv6: bool = False,
    ) -> None:
        self._door = door
        self._endpoint = endpoint
        self._address = address
        self._only_ipv6 = only_ipv6
        self._held = 0

    def init(self) -> None:
        """Bind."""
        self._refusals = RefusalLog(self.transport, self.log.warning)
        self._endpoint.on_connection = self.guard("listener", self._admit)
        with naming(self.setting):
            self._endpoint.attach(self._address, self.guard, only_ipv6=self._only_ipv6)
        self.own(_Binding(self._endpoint), "socket")
        where = address_text(*(self._endpoint.address or ("", 0)))
        self.log.info("listening on {} ({})", where, self.transport)

    def _admit(self, connection: Connection) -> None:
        counters, settings = self._door.counters, self._door.settings
        try:
            identity = parse_identity(connection.peer.uri)
        except IdentityError as error:
            counters[f"identity_{error.label}"] += 1
            self._refusals.note(f"identity {error.label.replace('_', ' ')}", connection.peer.uri)
            connection.close(CloseCode.SILENT, "")
            return
        if isinstance(identity, RelayUri):
            self._admit_relay(connection, identity)
            return
        if settings.tenants and identity.tenant not in settings.tenants:
            counters["tenant_not_served"] += 1
            self._refusals.note("tenant not in edge.tenants", identity.text)
            connection.close(CloseCode.SILENT, "")
            return
        if self._door.draining:
            counters["refused_draining"] += 1
            connection.close(CloseCode.GOING_AWAY, "going away")
            return
        who, quotas = (identity.tenant, identity.text), self._door.quotas
        ticket = None
        if quotas.connects.take(*who, self.now()):
            ticket = quotas.connections.take(*who)
        if ticket is None:
            self._refuse(connection, "agent", "quota")
            return
        child = escape_id(f"{identity.tenant}:{identity.uuid}~{self._door.next_serial()}")
        spec = ChildSpec(
            child,
            lambda: AgentConnection(self._door, connection, identity, ticket),
            restart=Restart.TEMPORARY,
            shutdown=2.0,
        )
        self._place(connection, "agent", self._door.agents, spec)

    def _admit_relay(self, connection: Connection, identity: RelayUri) -> None:
        counters = self._door.counters
        if not self._door.relays.accepts(identity.relay_id):
            counters["relay_not_accepted"] += 1
            self._refusals.note("relay not in edge.relays.accept", identity.text)
            connection.close(CloseCode.ILLEGAL_FRAME, "relay role not served")
            return
        if self._door.draining:
            counters["refused_draining"] += 1
            connection.close(CloseCode.GOING_AWAY, "going away")
            return
        ticket = self._door.quotas.links.take(identity.relay_id, identity.text)
        if ticket is None:
            self._refuse(connection, "relay", "quota")
            return
        spec = ChildSpec(
            f"from-{escape_id(identity.relay_id)}~{self._door.next_serial()}",
            lambda: RelayConnection(self._door, connection, identity, ticket),
            restart=Restart.TEMPORARY,
            shutdown=2.0,
        )
        self._place(connection, "relay", self._door.links, spec)

    def _place(
        self, connection: Connection, kind: str, home: Callable[[], ActorRef], spec: ChildSpec
    ) -> None:
        """Give the connection its actor, now or when the supervisor is back."""
        why = self._try_place(kind, home, spec)
        if why == "down" and self._held < MAX_HELD:
            self._held += 1
            self._door.counters[f"{kind}s_held"] += 1
            self.own(connection, "held")
            self.spawn_task(self._place_later(connection, kind, home, spec), "held")
        elif why:
            self._refuse(connection, kind, why)

    def _try_place(self, kind: str, home: Callable[[], ActorRef], spec: ChildSpec) -> str:
        """Empty, or why not."""
        try:
            self.system.start_child(home(), spec)
        except ChildRefused as refused:
            return refused.why
        self._door.counters[f"{kind}s_admitted"] += 1
        return ""

    async def _place_later(
        self, connection: Connection, kind: str, home: Callable[[], ActorRef], spec: ChildSpec
    ) -> None:
        deadline = self.now() + HELD_SECONDS
        why = "down"
        try:
            while why == "down" and self.now() < deadline and connection.closed is None:
                await asyncio.sleep(LOOK_SECONDS)
                why = self._try_place(kind, home, spec)
        finally:
            self._held -= 1
        self.disown(connection)
        if why:
            self._refuse(connection, kind, why)

    def _refuse(self, connection: Connection, kind: str, why: str) -> None:
        self._door.counters[f"{kind}_refused_{why}"] += 1
        self._refusals.note(f"{kind}: {why}", connection.peer.uri)
        connection.close(CloseCode.OVERLOADED, "overloaded")


class QuicListener(_Listener):
    """A UDP socket and its QUIC endpoint."""

    transport = "QUIC"
    setting = "edge.listen"

    def __init__(
        self,
        door: EdgeContext,
        endpoint: QuicEndpoint,
        address: tuple[str, int],
        *,
        only_ipv6: bool = False,
    ) -> None:
        super().__init__(door, endpoint, address, only_ipv6=only_ipv6)
        self._quic = endpoint

    def describe(self) -> dict[str, object]:
        """Address and counters."""
        statistics = self._quic.statistics()
        return {
            "address": address_text(*(self._quic.address or ("", 0))),
            "engine": self._quic.engine.name,
            "engine_reason": self._quic.engine.reason,
            "connections": statistics.connections,
            "connections_by_engine": statistics.engines,
            "pending_handshakes": statistics.pending,
            "datagrams_in": statistics.datagrams_in,
            "datagrams_out": statistics.datagrams_out,
            "endpoint": statistics.counters,
            "udp": statistics.udp._asdict(),
            "door": dict(self._door.counters),
        }


class TcpListener(_Listener):
    """A TCP socket and its endpoint: TLS and yamux, for networks that let no UDP through."""

    transport = "TCP"
    setting = "edge.listen_tcp"

    def describe(self) -> dict[str, object]:
        """Address and counters."""
        statistics = self._endpoint.statistics()
        return {
            "address": address_text(*(self._endpoint.address or ("", 0))),
            "connections": statistics.connections,
            "pending_handshakes": statistics.pending,
            "endpoint": statistics.counters,
        }
