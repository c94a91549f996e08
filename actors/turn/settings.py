"""What the TURN door is told: plain values, seconds, bytes and counts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network

from wire.turn.settings import TurnRules

Address = tuple[str, int]
Network = IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True)
class TurnSettings:
    """Of one door.

    Attributes:
        realm: of the long-term credentials.
        listen, listen_tcp, listen_tls: where clients come in.
        relay_hosts: one address per family to bind relayed sockets to.
        external: by bound host, what clients and peers see instead.
        first_port, last_port: of relayed addresses.
        quarantine: a freed port is not given to another client for so long.
        rules: of the protocol machine.
        users: static users, name and password.
        secrets: of time-limited names; several during a rotation.
        stamp_secret: of Firezone's scheme; empty: not used.
        nonce_lifetime: of a nonce; a new secret signs after as long.
        replies_per_second: to strangers of one source; 0: no limit.
        allowed, denied: networks of peers; see `wire.turn.peer_filter`.
        closed: networks that are not public are denied by default.
        stream_buffer: bytes that wait for a client that came by TCP.
        stream_deadline: a client by TCP has to have an allocation by then.
        max_streams, max_streams_per_source: clients by TCP and TLS.
        proxy_from: networks that write a PROXY header.
    """

    realm: str = "trunkline"
    listen: tuple[Address, ...] = ()
    listen_tcp: tuple[Address, ...] = ()
    listen_tls: tuple[Address, ...] = ()
    relay_hosts: tuple[str, ...] = ()
    external: Mapping[str, str] = field(default_factory=dict)
    first_port: int = 49152
    last_port: int = 65535
    quarantine: float = 120.0
    rules: TurnRules = TurnRules()  # noqa: RUF009  # frozen value
    users: Mapping[str, str] = field(default_factory=dict, repr=False)
    secrets: tuple[bytes, ...] = field(default=(), repr=False)
    stamp_secret: str = field(default="", repr=False)
    nonce_lifetime: float = 3600.0
    replies_per_second: float = 100.0
    allowed: tuple[Network, ...] = ()
    denied: tuple[Network, ...] = ()
    closed: bool = True
    stream_buffer: int = 256 * 1024
    stream_deadline: float = 30.0
    max_streams: int = 10_000
    max_streams_per_source: int = 256
    proxy_from: tuple[Network, ...] = ()
