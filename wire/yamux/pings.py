"""PING of one session: at most one of ours at a time, and the answers we owe.

A PING behind the last FIN of a stream asks whether the peer has read everything: its answer comes
behind whatever the peer had to say before. Streams that end while one is under way wait for the
next.

Source: protocol sheet rendezvous 2.4, 2.6.
"""

from __future__ import annotations

from wire.yamux.errors import YamuxError
from wire.yamux.frame import MAX_NUMBER, Flag, FrameType, header
from wire.yamux.limits import Limits


class Pings:
    """See the module docstring.

    Attributes:
        sent: when ours left that is not answered yet; None: there is none.
        round_trip: of the last one, seconds; 0 while unknown.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.sent: float | None = None
        self.round_trip = 0.0
        self._token = 0
        self._asked: list[int] = []  # streams that finish with the answer
        self._to_ask: list[int] = []
        self._unsent_answers = 0
        self._seen = 0

    @property
    def due(self) -> bool:
        """True when streams wait for a PING, and none is under way."""
        return bool(self._to_ask) and self.sent is None

    def ask_behind(self, stream_id: int) -> None:
        """Ask whether the peer has read the last of this stream."""
        self._to_ask.append(stream_id)

    def question(self, now: float) -> bytes:
        """A PING, for all streams that wait; only while none is under way."""
        self._asked, self._to_ask = self._to_ask, []
        return self.keepalive(now)

    def keepalive(self, now: float) -> bytes:
        """A PING that asks about no stream."""
        self._token = (self._token + 1) & MAX_NUMBER
        self.sent = now
        return header(FrameType.PING, Flag.SYN, 0, self._token)

    def answered(self, token: int, now: float) -> list[int]:
        """The peer's answer; returns the streams it has read to their end."""
        if self.sent is None or token != self._token:
            return []
        self.round_trip = now - self.sent
        self.sent = None
        asked, self._asked = self._asked, []
        return asked

    def answer(self, token: int) -> bytes | None:
        """What to send for the peer's PING; None when too many answers were not sent yet.

        Raises:
            YamuxError: more pings within a second than a peer needs.
        """
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

    def new_second(self) -> None:
        """The peer may ping again."""
        self._seen = 0
