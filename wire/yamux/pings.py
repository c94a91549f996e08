"""PING of one session: at most one of ours at a time, and the answers we owe.

A PING behind the last FIN of a stream asks whether the peer has read everything: its answer comes
behind whatever the peer had to say before. Streams that end while one is under way, or soon after
one, wait for the next: however many streams end, PINGs leave `ping_interval` apart.

Source: protocol sheet rendezvous 2.4, 2.5, 2.6.
"""

from __future__ import annotations

from wire.yamux.errors import YamuxError
from wire.yamux.frame import MAX_NUMBER, Flag, FrameType, header
from wire.yamux.limits import Limits


class Pings:
    """PING of one session: at most one of ours at a time, and the answers we owe. The session says
    what time it is with `clock`.

    Attributes:
        sent: when ours left that is not answered yet; None: there is none.
        round_trip: of the last one, seconds; 0 while unknown.
    """

    def __init__(self, limits: Limits, now: float) -> None:
        self._limits = limits
        self.sent: float | None = None
        self.round_trip = 0.0
        self._token = MAX_NUMBER  # the first is 0
        self._now = now
        self._not_before = now
        # Bound of both together: max_unconfirmed, and the streams that live then.
        self._asked: list[int] = []  # streams that finish with the answer
        self._to_ask: list[int] = []
        self._unsent_answers = 0
        self._second = now
        self._seen = 0

    def clock(self, now: float) -> None:
        """It is so late now."""
        self._now = now

    @property
    def due(self) -> bool:
        """True when streams wait for a PING, and it may go now."""
        return bool(self._to_ask) and self.sent is None and self._now >= self._not_before

    @property
    def full(self) -> bool:
        """True when the peer owes an answer for more streams than may be."""
        return len(self._asked) + len(self._to_ask) >= self._limits.max_unconfirmed

    def next_timer(self) -> float | None:
        """When a PING becomes due; None: it waits for something else, or there is none."""
        return self._not_before if self._to_ask and self.sent is None else None

    def ask_behind(self, stream_id: int) -> None:
        """Ask whether the peer has read the last of this stream."""
        self._to_ask.append(stream_id)

    def question(self) -> bytes:
        """A PING, for all streams that wait; only while none is under way."""
        self._asked, self._to_ask = self._to_ask, []
        return self.keepalive()

    def keepalive(self) -> bytes:
        """A PING that asks about no stream."""
        self._token = (self._token + 1) & MAX_NUMBER
        self.sent = self._now
        self._not_before = self._now + self._limits.ping_interval
        return header(FrameType.PING, Flag.SYN, 0, self._token)

    def answered(self, token: int) -> list[int]:
        """The peer's answer; returns the streams it has read to their end."""
        if self.sent is None or token != self._token:
            return []
        self.round_trip = self._now - self.sent
        self.sent = None
        asked, self._asked = self._asked, []
        return asked

    def answer(self, token: int) -> bytes | None:
        """What to send for the peer's PING; None when too many answers were not sent yet.

        Raises:
            YamuxError: more pings within a second than a peer needs.
        """
        if self._now - self._second >= 1.0:
            self._second, self._seen = self._now, 0
        self._seen += 1
        if self._seen > self._limits.max_pings:
            raise YamuxError("too_many_pings", f"{self._seen} within a second")
        if self._unsent_answers >= self._limits.max_pongs:
            return None
        self._unsent_answers += 1
        return header(FrameType.PING, Flag.ACK, 0, token)

    def answers_sent(self) -> None:
        """All answers were handed to the transport."""
        self._unsent_answers = 0
