"""Limits of a yamux session; defaults of sheet rendezvous 2.5."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

#: Both directions of a new stream; implicit, and cannot be lowered.
INITIAL_WINDOW: Final = 256 * 1024
#: The opener of streams stops here (sheet 2.2).
MAX_STREAM_ID: Final = 0xFFFF_FFFE


@dataclass(frozen=True, slots=True)
class Limits:
    """Plain values; bytes and seconds.

    Attributes:
        window: most unconsumed bytes of one stream; at least INITIAL_WINDOW. What is more is
            announced with the first frame of the stream, while `max_unconsumed` allows it for all.
        max_unconsumed: of all streams together. yamux has no window for a session, and the first
            256 KiB of a stream cannot be withheld: beyond this, a stream that holds more than its
            share is reset when more of it arrives, and any stream beyond twice as much.
        max_inbound: live streams the peer opened; one more is reset.
        max_unaccepted: of those, not accepted yet; one more is reset.
        max_unacknowledged: streams we opened and the peer did not answer; one more must wait.
        max_frame: payload of the DATA frames we send, so that no stream waits long for another.
        max_resets: resets of excess streams waiting to be sent; one more ends the session.
        max_pings: pings of the peer within a second; one more ends the session.
        max_pongs: answers waiting to be sent; a ping more stays unanswered.
        max_unknown: frames for streams that are not there, within a second; one more ends it.
        keepalive: PING after this much silence; 0 turns it off.
        ping_timeout: silence after a PING until the peer is taken for dead.
        linger: a peer that goes on sending after we said FIN and STOP is reset after so long.
    """

    window: int = 1024 * 1024
    max_unconsumed: int = 64 * 1024 * 1024
    max_inbound: int = 4096
    max_unaccepted: int = 256
    max_unacknowledged: int = 256
    max_frame: int = 32 * 1024
    max_resets: int = 1024
    max_pings: int = 1000
    max_pongs: int = 64
    max_unknown: int = 10_000
    keepalive: float = 10.0
    ping_timeout: float = 10.0
    linger: float = 5.0
