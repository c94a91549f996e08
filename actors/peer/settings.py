"""What the peer door is told: plain values, seconds, bytes and counts."""

from __future__ import annotations

from dataclasses import dataclass

from actors.transport.tcp.proxied import Network


@dataclass(frozen=True, slots=True)
class PeerSettings:
    """Deadlines and limits of the door (sheet peer 4, 9).

    Attributes:
        auth_deadline: from the connection to a good Auth.
        max_pending, max_pending_per_source: connections at the gate.
        max_peers, max_peers_per_source: connected at a time.
        max_subscriptions: of one peer.
        queue_bytes, queue_messages: what waits for one peer whose kernel takes nothing; newer
            messages of other peers are dropped.
        write_deadline: a peer that takes nothing for so long is gone.
        bytes_per_second: of one peer; 0: no limit.
        health_interval, health_timeout, health_attempts: see `wire.peer.health`.
        quic_health_interval: the same over QUIC, where a question may be lost.
        drain_spread: peers are told to go over so long.
        trusted_proxies: networks whose X-Real-Ip is believed.
        proxy_from: networks that write a PROXY header.
        same_origin: browsers must come from our own host.
    """

    auth_deadline: float = 10.0
    max_pending: int = 1024
    max_pending_per_source: int = 128
    max_peers: int = 50_000
    max_peers_per_source: int = 10_000
    max_subscriptions: int = 10_000
    queue_bytes: int = 256 * 1024
    queue_messages: int = 256
    write_deadline: float = 10.0
    bytes_per_second: int = 0
    health_interval: float = 20.0
    health_timeout: float = 25.0
    health_attempts: int = 1
    quic_health_interval: float = 10.0
    drain_spread: float = 3.0
    trusted_proxies: tuple[Network, ...] = ()
    proxy_from: tuple[Network, ...] = ()
    same_origin: bool = False
