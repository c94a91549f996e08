"""Limits and timers of a TCP endpoint. Source: protocol sheets ORP 3.13, 6.4; rendezvous 2.5."""

from __future__ import annotations

from dataclasses import dataclass, field

from actors.transport.key_log import KeyLog

MEBIBYTE = 1024 * 1024


@dataclass(frozen=True, slots=True)
class TcpSettings:
    """Plain values; seconds and bytes.

    Attributes:
        handshake_timeout: from the accepted connection to a verified peer.
        stream_window: most unconsumed bytes of one stream; at least 256 KiB, which is implied.
        connection_window: the same for all streams of a connection together, as far as yamux
            allows: beyond twice as much, credit is withheld; beyond 8 times as much, new streams
            are refused and streams that hold more than their share are reset.
        unread: the same for all connections of a budget together: see `UnreadBudget`.
        max_streams: concurrent streams the peer may open.
        max_backlog: room offered to writers of one stream (`Stream.room`).
        max_pending: handshakes in progress; above it connections are closed and counted.
        max_pending_per_source: the same for one source address.
        keepalive: PING after this much silence; 0 turns it off.
        ping_timeout: silence after a PING until the peer is taken for dead.
        write_timeout: the peer's kernel takes nothing for so long: it is taken for dead.
        write_buffer: most bytes between the streams and the kernel: what a pong, or credit for
            another stream, may have to wait for; a frame is written while there is room for one.
        stall: a peer that ended a stream and gives no credit for what waits for it is gone after so
            long; see `wire.yamux.limits`.
        key_log: where TLS secrets are written to, if anywhere.
    """

    handshake_timeout: float = 5.0
    stream_window: int = MEBIBYTE
    connection_window: int = 16 * MEBIBYTE
    unread: int = 256 * MEBIBYTE
    max_streams: int = 10_240
    max_backlog: int = MEBIBYTE
    max_pending: int = 1024
    max_pending_per_source: int = 128
    keepalive: float = 10.0
    ping_timeout: float = 10.0
    write_timeout: float = 30.0
    write_buffer: int = 256 * 1024
    stall: float = 300.0
    key_log: KeyLog | None = field(default=None, repr=False, compare=False)
