"""How the streams of a session begin, go quiet and end, and the deadlines on the way.

Source: protocol sheet rendezvous 2.2, 2.4 rows 8, 25, 29.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from wire.yamux.deadlines import Deadlines
from wire.yamux.events import Event, StreamFinished, StreamReset
from wire.yamux.limits import NARROW_WINDOW, Limits
from wire.yamux.outbox import Outbox
from wire.yamux.pings import Pings
from wire.yamux.stream_state import StreamState
from wire.yamux.stream_table import StreamTable
from wire.yamux.unread_budget import UnreadBudget


class StreamLives:
    """How the streams of a session begin, go quiet and end, and the deadlines on the way.

    Attributes:
        streams: those that live.
        outbox: what is to be sent.
        pings: what the peer is asked.
        overruns: streams that were reset because they held more than their share.
    """

    def __init__(
        self, limits: Limits, now: float, budget: UnreadBudget, relieved: Callable[[], object]
    ) -> None:
        self.streams = StreamTable(limits, budget, relieved)
        self.outbox = Outbox(limits, self.streams.creditable)
        self.pings = Pings(limits, now)
        self.overruns = 0
        self._lingering = Deadlines(limits.linger)
        self._fin_hold = Deadlines(limits.fin_hold)
        self._unanswered = Deadlines(limits.answer_timeout)
        self._stalled = Deadlines(limits.stall)

    def opening(self, stream: StreamState, now: float) -> None:
        """Our SYN goes out: the FIN behind it may wait for an answer."""
        self._fin_hold.set(stream.stream_id, now)

    def acknowledged(self, stream: StreamState) -> None:
        """The peer answered our SYN."""
        stream.acknowledged = True
        self.streams.answered(stream)
        self._unanswered.clear(stream.stream_id)
        self._release_fin(stream)

    def _release_fin(self, stream: StreamState) -> None:
        self._fin_hold.clear(stream.stream_id)
        stream.fin_held = False
        self.outbox.offer(stream)

    def grant(self, stream: StreamState, count: int) -> None:
        """So many bytes make room for others."""
        stream.ungranted += count
        if not stream.fin_received:
            window = NARROW_WINDOW if self.streams.tight else stream.window
            if self.streams.creditable(stream) >= window // 2:
                self.outbox.owe(stream)
        self.relieve()

    def relieve(self) -> None:
        """Less is held than was: give the credit that was withheld."""
        for stream in self.streams.relieved():
            self.outbox.owe(stream)

    def credited(self, stream: StreamState, count: int) -> None:
        """The peer takes so many bytes more."""
        stream.may_send += count
        if count:
            self._stalled.clear(stream.stream_id)
        self.outbox.offer(stream)

    def watch(self, stream: StreamState, now: float) -> None:
        """A peer that said FIN and gives no credit may have gone: wait for `stall` seconds."""
        if stream.stalled:
            self._stalled.set(stream.stream_id, now)

    def linger(self, stream: StreamState, now: float) -> None:
        """What still comes of a stream that nobody wants comes for `linger` seconds."""
        if stream.discarding and stream.fin_sent and not stream.fin_received:
            self._lingering.set(stream.stream_id, now)

    def fin_came(self, stream: StreamState, now: float) -> None:
        """The peer ended its direction."""
        stream.fin_received = True
        self._lingering.clear(stream.stream_id)
        self.watch(stream, now)
        self._settle(stream)

    def fin_went(self, stream: StreamState, now: float) -> None:
        """Our direction ended."""
        self.linger(stream, now)
        if stream.awaited:
            self._unanswered.set(stream.stream_id, now)
        self._settle(stream)

    def _settle(self, stream: StreamState) -> None:
        """With both directions over, ask whether the peer has read the last of it."""
        if stream.fin_sent and stream.fin_received:
            self.streams.settle(stream)
            self._leave(stream)
            self.pings.ask_behind(stream.stream_id)

    def reset(self, stream: StreamState, code: int = 0) -> None:
        """It is over by our word, both ways."""
        if self.outbox.unsent_syn(stream):
            stream.may_receive = 0  # the peer never heard of it
        else:
            self.outbox.reset(stream.wire_id, code)
        self.forget(stream)

    def forget(self, stream: StreamState) -> None:
        """It is over by the peer's word, or the reset is on its way."""
        self.streams.forget(stream)
        self._leave(stream)
        self.relieve()

    def _leave(self, stream: StreamState) -> None:
        self.outbox.forget(stream)
        for deadlines in self._deadlines:
            deadlines.clear(stream.stream_id)

    @property
    def _deadlines(self) -> tuple[Deadlines, ...]:
        return self._lingering, self._fin_hold, self._unanswered, self._stalled

    def timers(self) -> Iterator[float]:
        """The deadlines that come next."""
        for deadlines in self._deadlines:
            until = deadlines.next
            if until is not None:
                yield until

    def expire(self, now: float, events: list[Event]) -> None:
        """Do what was to be done by now."""
        for stream in self._expired(self._lingering, now):
            self.reset(stream)
            events.append(StreamFinished(stream.stream_id))
        for stream in self._expired(self._stalled, now):
            self.reset(stream)
            events.append(StreamReset(stream.stream_id, 0))
        for stream in self._expired(self._fin_hold, now):
            self._release_fin(stream)
        for stream in self._expired(self._unanswered, now):
            self.streams.answered(stream)

    def _expired(self, deadlines: Deadlines, now: float) -> Iterator[StreamState]:
        for stream_id in deadlines.expired(now):
            stream = self.streams.find(stream_id)
            if stream is not None:
                yield stream

    def clear(self) -> None:
        """The session is over."""
        self.streams.clear()
        self.outbox.clear()
