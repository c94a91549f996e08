"""What the rendezvous door is told: plain values, seconds, bytes and counts."""

from __future__ import annotations

from dataclasses import dataclass

from actors.transport.tcp.proxied import Network
from actors.transport.tcp.pump import QuietLimits


@dataclass(frozen=True, slots=True)
class RendezvousSettings:
    """Deadlines and limits of the door (sheet rendezvous 1.7, 1.8).

    Attributes:
        ports: what services may have; None: all above the base port.
        require_auth: only services that proved who they are may register.
        visitors: networks users may come from; empty: from anywhere.
        proxy_from: networks that write a PROXY header.
        handshake: from the connection to its complete first lines.
        max_pending, max_pending_per_source: connections at the gate.
        user_wait: of a user for a connection of the service.
        max_waiting: users of one service that wait.
        max_members: idle connections of one pool.
        pool_grace: a pool without members and pairs keeps its port so long.
        keepalive, keepalive_deadline: silence until a service is asked, and until it is dead.
        quiet: when a quiet user is given up.
        stall: see `wire.yamux.limits`.
        quarantine, name_kept: how long ports are kept; see `ports`.
        max_services, max_services_per_source, max_services_per_client: registered at a time.
        max_users, max_users_per_source: of one service.
        new_users_per_second: of one service.
        bytes_per_second: of one service; 0: no limit.
        window: of a stream.
    """

    ports: frozenset[int] | None = None
    require_auth: bool = False
    visitors: tuple[Network, ...] = ()
    proxy_from: tuple[Network, ...] = ()
    handshake: float = 10.0
    max_pending: int = 1024
    max_pending_per_source: int = 128
    user_wait: float = 10.0
    max_waiting: int = 1024
    max_members: int = 1024
    pool_grace: float = 30.0
    keepalive: float = 30.0
    keepalive_deadline: float = 10.0
    quiet: QuietLimits = QuietLimits()  # noqa: RUF009  # frozen value
    stall: float = 60.0
    quarantine: float = 30.0
    name_kept: float = 86_400.0
    max_services: int = 10_000
    max_services_per_source: int = 256
    max_services_per_client: int = 256
    max_users: int = 10_000
    max_users_per_source: int = 1024
    new_users_per_second: float = 5000.0
    bytes_per_second: float = 0.0
    window: int = 256 * 1024
