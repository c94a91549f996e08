"""The rendezvous door, from settings: the only module of this room that reads them."""

from __future__ import annotations

from ipaddress import ip_network

from actors.doors.door import DoorContext, DoorKind
from actors.rendezvous.access import Access, AccessError
from actors.rendezvous.service_tls import ServiceTls
from actors.rendezvous.settings import RendezvousSettings
from actors.rendezvous.tree import Rendezvous
from actors.transport.tcp.pump import QuietLimits
from config.rendezvous_settings import RendezvousSettings as Room
from config.rendezvous_settings import parse_range


def open_rendezvous(context: DoorContext) -> Rendezvous | None:
    """The door, not started yet; None when the settings name no address.

    Raises:
        OSError: the token file cannot be used.
    """
    room: Room = context.settings.rendezvous
    if not room.listen:
        return None
    try:
        access = Access(room.tokens)
    except AccessError as error:
        raise OSError(str(error)) from None
    tls = None
    if room.tls != "off":
        tls = ServiceTls(
            context.identity,
            certificates=room.client_certificates == "required",
            required=room.tls == "required",
            key_log=context.key_log,
        )
    return Rendezvous(
        context.system,
        listen=[(address.host, address.port) for address in room.listen],
        settings=rendezvous_settings(room),
        access=access,
        user_host=room.user_host,
        meters=context.meters,
        log_place=context.access,
        tls=tls,
        relay=context.settings.node.id,
    )


DOOR = DoorKind("rendezvous", open_rendezvous)


def rendezvous_settings(room: Room) -> RendezvousSettings:
    """The plain values."""
    return RendezvousSettings(
        ports=frozenset(port for text in room.ports for port in parse_range(text)) or None,
        require_auth=room.require_auth,
        visitors=tuple(map(ip_network, room.visitors)),
        proxy_from=tuple(map(ip_network, room.proxy_from)),
        handshake=room.handshake_deadline_seconds,
        max_pending=room.max_pending_handshakes,
        max_pending_per_source=room.max_pending_handshakes_per_source,
        user_wait=room.user_wait_seconds,
        max_waiting=room.max_waiting_users,
        max_members=room.max_pool_members,
        pool_grace=room.pool_grace_seconds,
        keepalive=room.keepalive_seconds,
        keepalive_deadline=room.keepalive_deadline_seconds,
        quiet=QuietLimits(room.half_closed_seconds, room.idle_seconds),
        stall=room.stall_seconds,
        quarantine=room.port_quarantine_seconds,
        name_kept=room.name_seconds,
        max_services=room.max_services,
        max_services_per_source=room.max_services_per_source,
        max_services_per_client=room.max_services_per_client,
        max_users=room.max_users_per_service,
        max_users_per_source=room.max_users_per_source,
        new_users_per_second=room.max_new_users_per_second,
        bytes_per_second=room.max_service_bytes_per_second,
        window=room.stream_window_bytes,
    )
