"""Two agents' ends of one stream, coupled: bytes, credit, ends, and the loss of a connection.

Bytes that arrive on one side are written to the other by the stream's callback itself. A side is
given credit for what the other side's transport has taken, so that the relay holds at most one
window per direction, beside the replay ring (`replay_ring`).

A side whose connection is lost is *away*: the other side is paused, nothing is lost, and the agent
may `return_` with a new stream and its positions. Positions count application bytes from the start
of the stream, per direction, over all streams that carried it (sheet 3.7). What the agent did not
receive is replayed; what we did not receive it sends again, because the echo says how far we are:
the relay answers as if it were the other agent.

A side that *left* reads its stream here no more, because its agent found another path (sheet 3.8:
STOP_SENDING 0). That concerns nobody else: what the agent sent here before still goes across, the
other agent is not told, and what it sends is kept for a return.

Only EOF becomes FIN. Source: protocol sheet ORP 3.4, 3.7, 3.8; 6.1 R1, R2, R4, R12, R13.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from actors.edge.context import ByteCounter
from actors.runtime import Guard
from actors.transport.stream import CloseReason, StreamEnd
from wire.orp.close_codes import ResetCode
from wire.orp.messages import StreamResume
from wire.orp.replay import ReplayPositions, ReplayRing, RingBudget


class SpliceOwner(Protocol):
    """What a splice tells its actor; called from the streams' callbacks, under `guard`."""

    def side_away(self, side: Side, reason: CloseReason) -> None:
        """The connection of this side is lost."""

    def side_reset(self, side: Side, code: int) -> None:
        """This side's agent reset its stream: the bytes are incomplete."""

    def side_left(self, side: Side) -> None:
        """This side's agent reads its stream here no more: it found, or seeks, another path."""

    def nobody_listens(self) -> None:
        """Neither side wants anything more."""

    def splice_finished(self) -> None:
        """Everything both sides sent has been passed on."""


class Side(ReplayPositions):
    """One agent's end, over all the streams it lives on.

    Attributes:
        name: consumer or provider, for counters and logs.
        uri: of the agent.
        end: its present stream; None while it is away.
        eof: it sent FIN, or nobody wants what it sends.
        stop_received: it wants nothing more (STOP_SENDING).
        left: it wants nothing more on its present stream.
        done: its present stream is over, and its transport has everything.
        relay: the other relay where the agent is; empty: it is connected here.
    """

    __slots__ = (
        "credited",
        "done",
        "end",
        "eof",
        "left",
        "name",
        "relay",
        "stop_received",
        "undrained",
        "uri",
    )

    def __init__(
        self,
        name: str,
        uri: str,
        ring_bytes: int,
        budget: RingBudget,
        *,
        received: int = 0,
        sent: int = 0,
    ) -> None:
        super().__init__(ReplayRing(ring_bytes, budget, sent), received)
        self.name = name
        self.uri = uri
        self.end: StreamEnd | None = None
        self.relay = ""
        self.eof = False
        self.stop_received = False
        self.left = False
        self.done = False
        #: Of the bytes from this side, those it got credit for (or was given on an older stream).
        self.credited = received
        #: Bytes written to its present stream, frames included, that the transport still holds.
        self.undrained = 0

    @property
    def away(self) -> bool:
        """True while its connection is lost."""
        return self.end is None

    @property
    def gone(self) -> bool:
        """True when it is away, or will be as soon as its paused stream may say so."""
        return self.end is None or self.end.stream.connection.closed is not None

    @property
    def reads(self) -> bool:
        """True while somebody wants what is written to its present stream."""
        return self.end is not None and not self.left and not self.stop_received


class Splice:
    """Two agents' ends of one stream, coupled: bytes, credit, ends, and the loss of a connection.

    Args:
        guard: `Actor.guard`: a failing callback is its owner's exit.
        first, second: the two sides.
        volume: counts what is passed on.
    """

    def __init__(
        self, owner: SpliceOwner, guard: Guard, first: Side, second: Side, volume: ByteCounter
    ) -> None:
        self._volume = volume
        self.sides = (first, second)
        self.finished = False
        self._owner = owner
        self._guard = guard

    def other(self, side: Side) -> Side:
        """The side across."""
        first, second = self.sides
        return second if side is first else first

    def side_of(self, uri: str) -> Side | None:
        """The side of this agent."""
        return next((side for side in self.sides if side.uri == uri), None)

    # Coupling.

    def attach(self, side: Side, end: StreamEnd, *, already: int = 0) -> None:
        """Give a side its stream, paused; `start` begins.

        Args:
            already: bytes written to this stream before that its transport may still hold.
        """
        side.end = end
        side.done = side.left = False
        side.undrained = already
        side.credited = side.received
        other, stream = self.other(side), end.stream
        guard, name = self._guard, side.name
        stream.on_data = guard(name, self._taker(side, other))
        stream.on_drain = guard(name, self._drainer(other, side))
        stream.on_eof = guard(name, lambda: self._ended(side, other))
        stream.on_reset = guard(name, lambda code: self._owner.side_reset(side, code))
        stream.on_lost = guard(name, lambda reason: self._lost(side, end, reason))
        stream.on_stop_sending = guard(name, lambda code: self._stopped(side, code))
        stream.on_finished = guard(name, lambda: self._done(side, end))

    def start(self, held: dict[Side, list[bytes]], ended: set[Side]) -> None:
        """Both sides have a stream: pass on what came early, then let bytes flow.

        Args:
            held: bytes delivered before, not consumed.
            ended: sides whose FIN was delivered before.
        """
        for side in self.sides:
            self._notice_deaf(side)
        for source in self.sides:
            sink = self.other(source)
            for chunk in held.get(source, ()):
                self._pass(source, sink, chunk)
            if source in ended:
                self._ended(source, sink)
        for side in self.sides:
            if side.end is not None and not self.other(side).away and not self.finished:
                side.end.stream.start()

    def _notice_deaf(self, side: Side) -> None:
        """STOP_SENDING came before anybody listened."""
        end = side.end
        if (
            end is not None
            and end.stream.write_closed
            and not side.stop_received
            and not self.other(side).eof
            and end.stream.connection.closed is None
        ):
            # The code is not known. A relay is asked again: it repeats what its agent wants.
            code = ResetCode.RELAY_FAULT if side.relay else ResetCode.SOURCE_FAILED
            self._stopped(side, code)

    def _taker(self, source: Side, sink: Side) -> Callable[[bytes], None]:
        """The data path: everything a chunk needs, bound once."""
        ring, volume = sink.ring, self._volume

        def take(chunk: bytes) -> None:
            size = len(chunk)
            volume.bytes += size
            source.received += size
            ring.append(chunk)
            end = sink.end
            if end is not None and not (sink.stop_received or sink.left):
                sink.undrained += size
                end.stream.write(chunk)

        return take

    def _pass(self, source: Side, sink: Side, chunk: bytes) -> None:
        self._taker(source, sink)(chunk)

    def _drainer(self, source: Side, sink: Side) -> Callable[[int], None]:
        """`sink`'s transport took bytes: `source` may send as many."""

        def drained(count: int) -> None:
            sink.undrained -= count
            credit = source.received - max(0, sink.undrained) - source.credited
            end = source.end
            if credit > 0 and end is not None:
                source.credited += credit
                end.stream.consume(credit)

        return drained

    # Ends.

    def _ended(self, source: Side, sink: Side) -> None:
        """`source` sent FIN: so do we, towards the other side."""
        source.eof = True
        if sink.end is not None and not sink.left:
            sink.end.stream.write_eof()

    def _stopped(self, side: Side, code: int) -> None:
        if side.relay and code == ResetCode.RELAY_FAULT:
            # The other relay gave up the whole stream: its reset says the same.
            self._owner.side_reset(side, code)
        elif code == ResetCode.NONE:
            side.left = True
            self._owner.side_left(side)
        else:
            self.unwanted(side, code)

    def unwanted(self, sink: Side, code: int = ResetCode.UNWANTED) -> None:
        """`sink` wants nothing more of the other side's bytes: nor do we."""
        source = self.other(sink)
        sink.stop_received = True
        source.eof = True
        if source.end is not None:
            source.end.stream.stop_sending(code)
        if source.stop_received:
            self._owner.nobody_listens()

    def _done(self, side: Side, end: StreamEnd) -> None:
        """Both halves of this side's stream are over, and the agent's transport has everything."""
        if side.end is not end or side.left or self.finished:
            return
        self._complete(side)

    def _complete(self, side: Side) -> None:
        side.done = True
        if not all(one.done for one in self.sides):
            return
        self.finished = True
        for one in self.sides:
            one.ring.clear()
        self._owner.splice_finished()

    @property
    def certain(self) -> bool:
        """True when no byte can be lost any more, once finished.

        What another relay took may still be lost with it, until its agent said that it has it. And
        an agent that wanted nothing more here may go on elsewhere.
        """
        return not any(side.stop_received or side.left for side in self.sides) and all(
            not side.relay or side.confirmed == side.sent for side in self.sides
        )

    @property
    def deserted(self) -> bool:
        """True when nothing more can pass here: nobody reads, or one side left, and what it had
        sent before has arrived.
        """
        if not any(side.reads for side in self.sides):
            return True
        for side in self.sides:
            across = self.other(side).end
            if side.left and side.eof and (across is None or not across.stream.backlog):
                return True
        return False

    def _has_everything(self, side: Side) -> bool:
        """Both directions ended, and the side's application has all bytes, as it said.

        A FIN that went to another relay may be lost with it: then the agent must have said that it
        came.
        """
        everything = side.has_everything(fin=bool(side.relay))
        return everything and side.eof and self.other(side).eof

    def abort(self) -> None:
        """Forget what was kept for replay; the streams are their owner's business."""
        self.finished = True
        for side in self.sides:
            side.ring.clear()

    def confirm(self, side: Side, received: int, *, ended: bool = False) -> None:
        """The side's application has everything before this position, and the FIN if `ended`."""
        side.confirm(received, ended=ended)
        for one in self.sides:
            if not self.finished and not one.done and one.gone and self._has_everything(one):
                self._complete(one)

    # Away and back.

    def _lost(self, side: Side, end: StreamEnd, reason: CloseReason) -> None:
        if side.end is not end or self.finished or side.done:
            return
        if self._has_everything(side):
            # Only the transport's last acknowledgement is missing: it will not come back.
            self._complete(side)
        else:
            self.leave(side)
            self._owner.side_away(side, reason)

    def leave(self, side: Side) -> None:
        """The side has no stream any more; the other one waits."""
        side.end = None
        side.undrained = 0
        across = self.other(side).end
        if across is not None:
            across.stream.pause()

    def return_(
        self,
        side: Side,
        end: StreamEnd,
        resume: StreamResume,
        *,
        greeting: Callable[[StreamResume], bytes],
        held: Sequence[bytes] = (),
        ended: bool = False,
    ) -> None:
        """Go on with a new stream: echo, replay, then whatever comes.

        `Side.fits` was asked before.

        Args:
            end: the stream behind the agent's frame, paused.
            resume: its positions.
            greeting: encodes our positions for it; empty for an agent that expects none.
            held, ended: bytes and FIN that were delivered already, not consumed.
        """
        other, stream = self.other(side), end.stream
        replay = side.ring.since(resume.peer_ack_position)
        assert replay is not None
        self.confirm(side, resume.peer_ack_position)
        # What was acknowledged before the loss counts as drained; what is replayed does not.
        self.attach(side, end)
        if not stream.write_closed:
            frame = greeting(StreamResume(resume.stream_id, other.received, side.received))
            if frame:
                side.undrained += len(frame)
                stream.write(frame)
            for chunk in replay:
                side.undrained += len(chunk)
                stream.write(chunk)
            if other.eof and not side.stop_received:
                stream.write_eof()
        if side.stop_received:
            stream.reset(ResetCode.UNWANTED)
        if other.stop_received:
            stream.stop_sending(ResetCode.UNWANTED)
        self._notice_deaf(side)
        for chunk in held:
            self._pass(side, other, chunk)
        if ended:
            self._ended(side, other)
        if side.end is end and other.end is not None and not self.finished:
            stream.start()
        if side.end is end and other.end is not None and not self.finished:
            other.end.stream.start()
            # What was drained while nobody could be told.
            self._drainer(other, side)(0)
