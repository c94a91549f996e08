"""The peer door, from settings: the only module of this room that reads them."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_network
from pathlib import Path

from actors.doors.door import DoorContext, DoorKind
from actors.peer.peer_tls import PeerTls
from actors.peer.secrets import read_secrets
from actors.peer.settings import PeerSettings
from actors.peer.tree import PeerDoor
from config.peer_settings import PeerSettings as Room
from wire.peer.instance_url import instance_url


def open_peer(context: DoorContext) -> PeerDoor | None:
    """The door, not started yet; None when the settings name no address.

    Raises:
        OSError: a secret cannot be read, or the exposed address is none.
    """
    room: Room = context.settings.peer
    if not room.listen:
        return None
    tls = PeerTls(context.identity, context.key_log) if room.tls == "on" else None
    try:
        url = instance_url(room.exposed_address, tls=tls is not None)
    except ValueError as error:
        raise OSError(f"peer.exposed_address: {error}") from None
    files: Sequence[Path] = room.secret_files
    return PeerDoor(
        context.system,
        listen=[(address.host, address.port) for address in room.listen],
        url=url,
        secrets=read_secrets(files),
        read_secrets=lambda: read_secrets(files),
        settings=peer_settings(room),
        tls=tls,
        meters=context.meters,
        log_place=context.access,
        relay=context.settings.node.id,
    )


DOOR = DoorKind("peer", open_peer)


def peer_settings(room: Room) -> PeerSettings:
    """The plain values."""
    return PeerSettings(
        auth_deadline=room.auth_deadline_seconds,
        max_pending=room.max_pending_handshakes,
        max_pending_per_source=room.max_pending_handshakes_per_source,
        max_peers=room.max_peers,
        max_peers_per_source=room.max_peers_per_source,
        max_subscriptions=room.max_subscriptions_per_peer,
        queue_bytes=room.queue_bytes,
        queue_messages=room.max_queue_messages,
        write_deadline=room.write_deadline_seconds,
        bytes_per_second=room.max_peer_bytes_per_second,
        health_interval=room.health_interval_seconds,
        health_timeout=room.health_timeout_seconds,
        health_attempts=room.max_health_attempts,
        drain_spread=room.drain_spread_seconds,
        trusted_proxies=tuple(map(ip_network, room.trusted_proxies)),
        proxy_from=tuple(map(ip_network, room.proxy_from)),
        same_origin=room.same_origin,
    )
