"""The edge door, from settings: the only module of this room that reads them."""

from __future__ import annotations

from actors.doors.door import DoorContext, DoorKind
from actors.edge.forward.settings import ForwardSettings
from actors.edge.relays.settings import RelaySettings
from actors.edge.settings import EdgeSettings
from actors.edge.tree import Edge
from actors.transport.key_log import KeyLog
from actors.transport.quic import QuicSettings
from actors.transport.tcp import TcpSettings
from config.schema import Settings
from wire.yamux.limits import INITIAL_WINDOW


def open_edge(context: DoorContext) -> Edge:
    """The door, not started yet."""
    settings = context.settings
    edge = settings.edge
    return Edge(
        context.system,
        identity=context.identity,
        control=context.control,
        listen=[(address.host, address.port) for address in edge.listen],
        settings=edge_settings(settings),
        quic=quic_settings(settings, context.key_log),
        listen_tcp=[(address.host, address.port) for address in edge.listen_tcp],
        tcp=tcp_settings(settings, context.key_log),
        meters=context.meters,
        access=context.access,
    )


DOOR = DoorKind("edge", open_edge)


def edge_settings(settings: Settings) -> EdgeSettings:

    edge = settings.edge
    return EdgeSettings(
        region=settings.node.region,
        tenants=frozenset(edge.tenants),
        hello_deadline=edge.hello_deadline_seconds,
        first_frame_deadline=edge.first_frame_deadline_seconds,
        register_deadline=edge.register_deadline_seconds,
        judge_registers=edge.judge_registers,
        resolve_deadline=edge.resolve_deadline_seconds,
        policy_deadline=edge.policy_deadline_seconds,
        incoming_deadline=edge.incoming_deadline_seconds,
        accept_deadline=edge.accept_deadline_seconds,
        max_agents=edge.max_agents,
        max_services_per_agent=edge.max_services_per_agent,
        max_connections_per_agent=edge.max_connections_per_agent,
        max_streams=edge.max_streams,
        max_streams_per_agent=edge.max_streams_per_agent,
        max_halves=edge.max_halves,
        max_halves_per_agent=edge.max_halves_per_agent,
        max_forward_per_agent=edge.max_forward_streams_per_agent,
        tenant_share=edge.max_tenant_percent / 100,
        opens_per_second=edge.max_opens_per_second,
        returns_per_second=4 * edge.max_opens_per_second,
        candidates_per_second=edge.max_candidates_per_second,
        tenant_rate=edge.max_tenant_multiple,
        forward=_forward_settings(settings),
        relays=_relay_settings(settings),
    )


def _relay_settings(settings: Settings) -> RelaySettings:
    relays = settings.edge.relays
    return RelaySettings(
        relay_id=settings.node.id,
        accept=frozenset(relays.accept),
        server_name=relays.server_name,
        check_id=relays.check_id,
        dial_timeout=relays.dial_deadline_seconds,
        idle=relays.idle_timeout_seconds,
        max_connections=relays.max_connections,
    )


def _forward_settings(settings: Settings) -> ForwardSettings | None:

    forward = settings.edge.forward
    if forward.listen is None:
        return None
    advertise = forward.advertise
    return ForwardSettings(
        listen=(forward.listen.host, forward.listen.port),
        advertise=None if advertise is None else (advertise.host, advertise.port),
        idle=forward.idle_timeout_seconds,
        max_allocations=2 * forward.max_streams,
        check_source=forward.check_source,
        invented_ids=forward.invented_ids,
    )


def tcp_settings(settings: Settings, log: KeyLog | None = None) -> TcpSettings:
    edge = settings.edge
    return TcpSettings(
        handshake_timeout=edge.handshake_deadline_seconds,
        stream_window=max(INITIAL_WINDOW, edge.stream_window_bytes),
        connection_window=edge.connection_window_bytes,
        unread=edge.tcp_unread_bytes,
        max_streams=edge.max_streams_per_agent,
        max_pending=edge.max_pending_handshakes,
        max_pending_per_source=edge.max_pending_handshakes_per_source,
        keepalive=edge.idle_timeout_seconds,
        ping_timeout=edge.idle_timeout_seconds,
        key_log=log,
    )


def quic_settings(settings: Settings, log: KeyLog | None = None) -> QuicSettings:

    edge = settings.edge
    return QuicSettings(
        idle_timeout=edge.idle_timeout_seconds,
        keepalive=edge.keepalive_seconds,
        handshake_timeout=edge.handshake_deadline_seconds,
        stream_window=edge.stream_window_bytes,
        connection_window=edge.connection_window_bytes,
        max_streams=edge.max_streams_per_agent,
        max_pending=edge.max_pending_handshakes,
        max_pending_per_source=edge.max_pending_handshakes_per_source,
        engine=edge.quic_engine,
        key_log=log,
    )
