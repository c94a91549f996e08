"""Limits and timers of a QUIC endpoint. Source: protocol sheet ORP 1.5, 6.1 R11."""

from __future__ import annotations

from dataclasses import dataclass, field

from actors.transport.key_log import KeyLog

MEBIBYTE = 1024 * 1024


@dataclass(frozen=True, slots=True)
class QuicSettings:
    """Plain values; seconds and bytes.

    Attributes:
        idle_timeout: max_idle_timeout we advertise.
        keepalive: PING after this much silence; 0 turns it off.
        handshake_timeout: from the first packet to a verified peer.
        stream_window: most unconsumed bytes of one stream; the peer stalls beyond it.
        connection_window: the same for all streams of a connection together.
        max_streams: concurrent bidirectional streams the peer may open.
        max_backlog: room offered to writers of one stream (`Stream.room`).
        max_pending: handshakes in progress; above it Initials are dropped and counted.
        max_pending_per_source: the same for one source address.
        retry_above: pending handshakes above which addresses are validated by Retry.
        max_datagram: UDP payload that every path is taken to carry, bytes.
        max_probed: largest UDP payload that is tried on a path; up to `max_datagram`: none is.
        max_datagram_frame: max_datagram_frame_size we advertise (RFC 9221); 0: DATAGRAM frames are
            not taken.
        datagram_queue: DATAGRAM frames of a connection that wait to be sent, and received ones that
            wait for `Connection.start`.
        engine: auto, native or aioquic (see `engines`).
        key_log: where TLS secrets are written to, if anywhere.
    """

    idle_timeout: float = 10.0
    keepalive: float = 3.0
    handshake_timeout: float = 5.0
    stream_window: int = MEBIBYTE
    connection_window: int = 16 * MEBIBYTE
    max_streams: int = 10_240
    max_backlog: int = MEBIBYTE
    max_pending: int = 1024
    max_pending_per_source: int = 128
    retry_above: int = 64
    max_datagram: int = 1280
    max_probed: int = 1472
    max_datagram_frame: int = 0
    datagram_queue: int = 128
    engine: str = "auto"
    key_log: KeyLog | None = field(default=None, repr=False, compare=False)
