"""The streams of one session: who is who, how many there are, and what they hold.

A number on the wire may come back: peers accept one whose stream is over, and one segment may hold
the end of a stream and its next life. So streams have a number of their own: that of the wire, and
where it may have been used before, 2**32 times a count on top. What an owner says about a stream
that is gone cannot hit another.

Source: protocol sheet rendezvous 2.2, 2.4 rows 10, 22; 2.5, 2.8.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from wire.yamux.limits import INITIAL_WINDOW, NARROW_WINDOW, Limits
from wire.yamux.stream_state import StreamState
from wire.yamux.unread_budget import UnreadBudget


class StreamTable:
    """The streams of one session: who is who, how many there are, and what they hold.

    Attributes:
        inbound: live streams the peer opened.
        unaccepted: of those, not accepted yet.
        awaited: ours that the peer did not answer, as long as that counts.
        unconsumed: bytes the application holds, of streams that live and of streams that are over.
        late_credit: bytes that peers may have sent for streams they did not know to be over.

    Args:
        budget: what other sessions hold counts as well.
        relieved: called when credit that was withheld for their sake may be given.
    """

    def __init__(
        self, limits: Limits, budget: UnreadBudget, relieved: Callable[[], object]
    ) -> None:
        self._limits = limits
        self._budget = budget
        self._relieved = relieved
        #: Streams with credit that is withheld; bound: the live ones.
        self._withheld: dict[StreamState, None] = {}
        self._live: dict[int, StreamState] = {}  # by their number on the wire
        #: Bytes not consumed yet of streams that are over; none has zero.
        self._unread: dict[int, int] = {}
        self._highest = [-1, -1]  # of even and odd numbers that were used on the wire
        self._used_again = 0
        self._extra = 0  # of the windows of live streams, beyond the first 256 KiB
        self.inbound = 0
        self.unaccepted = 0
        self.awaited = 0
        self.unconsumed = 0
        self.late_credit = 0

    def __len__(self) -> int:
        return len(self._live)

    def __iter__(self) -> Iterator[StreamState]:
        return iter(self._live.values())

    def find(self, stream_id: int) -> StreamState | None:
        """The live stream that is called so by its owner."""
        stream = self._live.get(stream_id & 0xFFFF_FFFF)
        return stream if stream is not None and stream.stream_id == stream_id else None

    def on_wire(self, wire_id: int) -> StreamState | None:
        """The live stream that has this number now."""
        return self._live.get(wire_id)

    def existed(self, wire_id: int) -> bool:
        """True when the number may have been used."""
        return 0 < wire_id <= self._highest[wire_id & 1]

    @property
    def full(self) -> bool:
        """True when the peer may open none."""
        limits = self._limits
        return (
            self.inbound + len(self._unread) >= limits.max_inbound
            or self.unaccepted >= limits.max_unaccepted
            or self.unconsumed > self._most
        )

    # What is unread.

    def hold(self, count: int) -> None:
        """The application holds so many bytes more; negative: it is done with them."""
        before = self.unconsumed
        self.unconsumed = before + count
        self._budget.change(before, self.unconsumed)

    @property
    def _most(self) -> int:
        """Unread bytes above which nothing is taken that adds to them."""
        most, budget = self._limits.max_unconsumed, self._budget
        return min(most, budget.share) if budget.full else most

    @property
    def tight(self) -> bool:
        """True while credit is withheld."""
        held, budget = self.unconsumed, self._budget
        return held > self._limits.credit_until or (budget.tight and held > budget.share // 2)

    def creditable(self, stream: StreamState) -> int:
        """Of the stream's ungranted bytes those that may be granted now."""
        if not self.tight:
            return stream.ungranted
        if not self._withheld:
            self._budget.withheld += 1
        self._withheld[stream] = None
        self._wait()
        room = NARROW_WINDOW - stream.may_receive - stream.unconsumed
        return max(0, min(stream.ungranted, room))

    def _wait(self) -> None:
        """When only what others hold is in the way, they tell; what we hold we know."""
        if self._budget.tight:
            self._budget.wait(self, self._relieved)

    def relieved(self) -> list[StreamState]:
        """Streams whose credit is withheld no more."""
        if not self._withheld:
            return []
        if self.tight:
            self._wait()
            return []
        streams = list(self._withheld)
        self._withheld.clear()
        self._budget.leave(self)
        return streams

    def add(self, wire_id: int, *, outbound: bool) -> StreamState:
        """A new stream; the number is not that of a live one."""
        stream_id = wire_id
        if self.existed(wire_id):
            self._used_again += 1
            stream_id += self._used_again << 32
        stream = StreamState(stream_id, outbound=outbound, window=self._window())
        self._live[wire_id] = stream
        self._extra += stream.window - INITIAL_WINDOW
        self.used(wire_id)
        if outbound:
            self.awaited += 1
        else:
            self.inbound += 1
            self.unaccepted += 1
        return stream

    def used(self, wire_id: int) -> None:
        """The number was used on the wire, if only to be refused."""
        parity = wire_id & 1
        self._highest[parity] = max(self._highest[parity], wire_id)

    def _window(self) -> int:
        """Of one more stream; large ones take an eighth, and leave the rest to small ones."""
        limits = self._limits
        extra = limits.window - INITIAL_WINDOW
        room = self._extra + extra <= limits.max_unconsumed // 8 and not self.tight
        return limits.window if room else INITIAL_WINDOW

    def forget(self, stream: StreamState) -> None:
        """The stream is over, and what it holds is void."""
        del self._live[stream.wire_id]
        self._extra -= stream.window - INITIAL_WINDOW
        self._withheld.pop(stream, None)
        self.hold(-stream.unconsumed)
        self.late_credit += stream.may_receive
        stream.drop_queue()
        self.answered(stream)
        if not stream.outbound:
            self.inbound -= 1
            self.unaccepted -= not stream.acknowledged

    def answered(self, stream: StreamState) -> None:
        """It takes none of the places for streams the peer did not answer."""
        self.awaited -= stream.awaited
        stream.awaited = False

    def settle(self, stream: StreamState) -> None:
        """Both directions are over; what the application holds counts until it is consumed."""
        unread = stream.unconsumed
        self.forget(stream)
        if unread:
            self._unread[stream.stream_id] = unread
            self.hold(unread)

    def consume_late(self, stream_id: int, count: int | None = None) -> None:
        """Bytes of a stream that is over; None: all of them."""
        left = self._unread.pop(stream_id, 0)
        freed = left if count is None else min(count, left)
        if freed < left:
            self._unread[stream_id] = left - freed
        self.hold(-freed)

    def hogs(self, stream: StreamState) -> bool:
        """More is held than may be, and more of it by this stream than its share.

        Beyond a quarter more, which streams hold that are over, no stream may add to it.
        """
        most, held = self._most, self.unconsumed
        return held > most and (stream.unconsumed * len(self._live) > most or 4 * held > 5 * most)

    def clear(self) -> None:
        """The session is over."""
        self._live.clear()
        self._unread.clear()
        self._withheld.clear()
        self._budget.leave(self)
        self._relieved = int  # the session holds us
        self.hold(-self.unconsumed)
        self.inbound = self.unaccepted = self.awaited = self.late_credit = 0
