"""The TURN door, from settings: the only module of this room that reads them."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_network
from pathlib import Path

from actors.doors.door import DoorContext, DoorKind
from actors.turn.addresses import outgoing_hosts
from actors.turn.settings import TurnSettings
from actors.turn.tree import Turn
from config.rendezvous_settings import parse_range
from config.turn_settings import TurnSettings as Room
from wire.stun.address import family_of
from wire.turn import limits
from wire.turn.settings import TurnRules

#: Bytes of a file that holds a secret.
MAX_SECRET = 4096


def open_turn(context: DoorContext) -> Turn | None:
    """The door, not started yet; None when the settings name no address.

    Raises:
        OSError: a secret cannot be read, or no relayed address can be told.
    """
    room: Room = context.settings.turn
    if not (room.listen or room.listen_tcp or room.listen_tls):
        return None
    return Turn(
        context.system,
        turn_settings(room),
        identity=context.identity,
        meters=context.meters,
        access_log=context.access,
        relay=context.settings.node.id,
        key_log=context.key_log,
        again=_again(context),
    )


DOOR = DoorKind("turn", open_turn)


def _again(context: DoorContext) -> Callable[[], TurnSettings]:
    present = context.present
    return lambda: turn_settings((present() if present else context.settings).turn)


def turn_settings(room: Room) -> TurnSettings:
    """The plain values; secrets are read from their files.

    Raises:
        OSError: as `open_turn`.
    """
    ports = parse_range(room.ports)
    hosts = room.relay_addresses or outgoing_hosts(
        (one.host, one.port) for one in (*room.listen, *room.listen_tcp, *room.listen_tls)
    )
    last = limits.LAST_OLD_CHANNEL if room.old_channel_numbers else limits.LAST_CHANNEL
    return TurnSettings(
        realm=room.realm,
        listen=tuple((one.host, one.port) for one in room.listen),
        listen_tcp=tuple((one.host, one.port) for one in room.listen_tcp),
        listen_tls=tuple((one.host, one.port) for one in room.listen_tls),
        relay_hosts=hosts,
        external={
            host: shown
            for host in hosts
            for shown in room.external_addresses
            if family_of(host) == family_of(shown)
        },
        first_port=ports[0],
        last_port=ports[-1],
        quarantine=room.port_quarantine_seconds,
        rules=TurnRules(
            default_lifetime=room.default_lifetime_seconds,
            max_lifetime=room.max_lifetime_seconds,
            max_allocations=room.max_allocations,
            max_per_user=room.max_allocations_per_user,
            max_per_source=room.max_allocations_per_source,
            max_permissions=room.max_permissions,
            max_channels=room.max_channels,
            last_channel=last,
            mobility=room.mobility,
            one_per_user=room.one_allocation_per_user,
            alternates=tuple((one.host, one.port) for one in room.alternates),
            software=room.software,
        ),
        users={name: password.get_secret_value() for name, password in room.users.items()},
        secrets=tuple(_secret(path) for path in room.secret_files),
        nonce_lifetime=room.nonce_seconds,
        replies_per_second=room.replies_per_second_per_source,
        allowed=tuple(map(ip_network, room.allowed_peers)),
        denied=tuple(map(ip_network, room.denied_peers)),
        closed=room.private_peers == "deny",
        stream_buffer=room.stream_buffer_bytes,
        stream_deadline=room.stream_deadline_seconds,
        max_streams=room.max_streams,
        max_streams_per_source=room.max_streams_per_source,
        proxy_from=tuple(map(ip_network, room.proxy_from)),
    )


def _secret(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            secret = file.read(MAX_SECRET).strip()
    except OSError as error:
        raise OSError(f"turn.secret_files: {path}: {error.strerror}") from None
    if not secret:
        raise OSError(f"turn.secret_files: {path} is empty; write the secret into it")
    return secret
