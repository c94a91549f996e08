"""Limits of a yamux session; defaults of sheet rendezvous 2.5."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

#: Both directions of a new stream; implicit, and cannot be lowered.
INITIAL_WINDOW: Final = 256 * 1024
#: A stream that is read gets this much while too much of others is not.
NARROW_WINDOW: Final = 32 * 1024
#: The opener of streams stops here (sheet 2.2).
MAX_STREAM_ID: Final = 0xFFFF_FFFE


@dataclass(frozen=True, slots=True)
class Limits:
    """Plain values; bytes and seconds.

    Attributes:
        window: most unconsumed bytes of one stream; at least INITIAL_WINDOW. What is more is
            announced with the first frame of the stream, while an eighth of `max_unconsumed` allows
            it.
        credit_until: unconsumed bytes of all streams together; while there are more, a stream gets
            credit for NARROW_WINDOW only, and for nothing while that much of it is unread.
        max_unconsumed: the same, at most. yamux has no window for a session, and the first 256 KiB
            of a stream cannot be withheld: beyond this, new streams are reset, and so is a stream
            that holds more than its share when more of it arrives; beyond a quarter more, any
            stream. The default holds whatever 448 streams send.
        max_inbound: streams the peer opened that live, or are over and not consumed; one more is
            reset.
        max_unaccepted: of those, not accepted yet; one more is reset.
        max_unacknowledged: streams we opened and the peer did not answer; one more must wait.
        max_unconfirmed: streams that are over, and of which the peer did not say yet that it has
            read them; with one more, none is opened by either side.
        max_frame: payload of the DATA frames we send, so that no stream waits long for another.
        max_resets: resets of excess streams waiting to be sent; one more ends the session. So does
            a stream more with `max_inbound` resets of any other kind before it.
        max_pings: pings of the peer within a second; one more ends the session. Far above what a
            peer needs that asks once per round trip.
        max_pongs: answers waiting to be sent; a ping more stays unanswered.
        max_unknown: frames within a second for streams that never were; one more ends the session.
            What is late for a stream that was is free, up to the credit it had.
        max_idle: frames within a second without payload, credit, begin or end of a stream; one more
            ends the session. Peers in good faith send one for each stream they accept.
        frames_per_turn: frames of the peer that are looked at in one call of `receive`; the owner
            calls again when others had their turn. A read of small frames costs a second at once.
        ping_interval: least time between two PINGs of ours.
        keepalive: PING after this much silence; 0 turns it off.
        ping_timeout: silence after a PING until the peer is taken for dead.
        linger: a peer that goes on sending after we said FIN and STOP is reset after so long.
        fin_hold: our FIN waits so long for the first answer of the peer. Where the FIN is there
            before the application accepts, the reference never answers (2.4 rows 8, 29).
        answer_timeout: a stream whose FIN went out unanswered counts so long among those the peer
            did not answer.
        stall: the peer said FIN and gives no credit for what waits: after so long it is taken for
            gone, and the stream is reset (2.4 row 25). Peers of the reference reset it as late.
    """

    window: int = 1024 * 1024
    credit_until: int = 32 * 1024 * 1024
    max_unconsumed: int = 128 * 1024 * 1024
    max_inbound: int = 4096
    max_unaccepted: int = 256
    max_unacknowledged: int = 256
    max_unconfirmed: int = 16_384
    max_frame: int = 32 * 1024
    max_resets: int = 1024
    max_pings: int = 100_000
    max_pongs: int = 64
    max_unknown: int = 10_000
    max_idle: int = 20_000
    frames_per_turn: int = 256
    ping_interval: float = 0.005
    keepalive: float = 10.0
    ping_timeout: float = 10.0
    linger: float = 5.0
    fin_hold: float = 1.0
    answer_timeout: float = 10.0
    stall: float = 300.0
