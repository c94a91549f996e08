"""What connections of agents and of relays have in common: they bring streams.

The first frame of a stream says what it is; then the stream goes to an actor of its own. Between
the two, and when that actor ends before it ever ran, the stream belongs to the connection.

Source: protocol sheet ORP 2.5, 3.3, 3.7.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import ClassVar, Final

from actors.edge.connection.first_frame import FirstFrame
from actors.edge.context import EdgeContext
from actors.edge.opening.open_request import OpenRequest
from actors.edge.opening.stream_pair import StreamPair
from actors.edge.resume.resuming_stream import ResumeHalf
from actors.edge.resume.returning import ResumingStream
from actors.runtime import Actor, ActorRef, ChildRefused, ChildSpec, Down, Restart, handles
from actors.transport.stream import Stream
from wire.errors import PeerError
from wire.orp.close_codes import ResetCode
from wire.orp.frame import Frame
from wire.orp.messages import decode

#: Streams of one connection that are taken in one turn of the event loop. A peer may open thousands
#: at once; each costs an actor, and all of those would begin in the same turn.
STREAMS_PER_TURN: Final = 16


#: Gets the first frame of a stream, and what came behind it.
_Then = Callable[[FirstFrame, Frame, bytes], object]


class _TakeMore:
    """Streams wait to be taken."""

    __slots__ = ()


class _HandedOver(dict[int, OpenRequest | ResumingStream]):
    """By the token of the monitor, as a resource: what nobody took yet ends with the connection."""

    def abort(self) -> None:
        """The connection's actor ended; idempotent."""
        for what in self.values():
            what.abandon()
        self.clear()


class StreamAcceptor(Actor):
    """See the module docstring."""

    #: In front of the names of counters.
    counted_as: ClassVar[str] = ""

    def __init__(self, door: EdgeContext, tenant: str, identity: str) -> None:
        self._door = door
        #: Whose the streams are until their first frame says more.
        self._bringer = (tenant, identity)
        #: Bound: `EdgeQuotas.opening`.
        self._opening: dict[FirstFrame, None] = {}
        #: Streams that wait for their turn, and are not read. Bound: the streams of the connection.
        self._arrived: deque[tuple[Stream, _Then]] = deque()
        self._taken = 0  # in this turn
        #: Streams and halves that went to an actor of their own, until it ends.
        self._handed = _HandedOver()

    def _count(self, what: str) -> None:
        self._door.counters[self.counted_as + what] += 1

    # Streams in their turn.

    def _take(self, stream: Stream, then: _Then) -> None:
        """`_read_frame` of a stream that arrived, now or in one of the next turns."""
        if self._taken < STREAMS_PER_TURN:
            if not self._taken:
                self.start_timer(0.0, _TakeMore(), "take")
            self._taken += 1
            self._read_frame(stream, then)
        else:
            self._arrived.append((stream, then))

    @handles(_TakeMore)
    def _take_more(self, _: _TakeMore) -> None:
        self._taken = min(STREAMS_PER_TURN, len(self._arrived))
        if self._taken:
            self.start_timer(0.0, _TakeMore(), "take")
        for _taken in range(self._taken):
            self._read_frame(*self._arrived.popleft())

    # The first frame.

    def _read_frame(
        self,
        stream: Stream,
        then: _Then,
        early: bytes = b"",
    ) -> None:
        """Call `then` with the next frame of the stream and what came behind it.

        Too many that wait for a frame: the stream is reset.
        """
        ticket = self._door.quotas.opening.take(*self._bringer)
        if ticket is None:
            stream.abort(ResetCode.DEADLINE)
            self._barren()
            return

        def read(first: FirstFrame, frame: Frame, rest: bytes) -> None:
            self._leave_opening(first)
            then(first, frame, rest)

        first = FirstFrame(
            self.system,
            stream,
            self._door.settings.first_frame_deadline,
            self.guard("first frame", read),
            self.guard("first frame", self._no_frame),
            ticket,
        )
        self._opening[first] = None
        self.own(first, "opening")
        first.start(early)

    def _no_frame(self, first: FirstFrame, label: str) -> None:
        self._count(label)
        self._leave_opening(first)
        if label != "first_frame_lost":
            self._barren()

    def _barren(self) -> None:
        """A stream ended without a first frame that says what it is for.

        Counted only: what agents do in a hurry may look like that at the next relay, and its
        connection carries the streams of all of them.
        """

    def _leave_opening(self, first: FirstFrame) -> None:
        self._opening.pop(first, None)
        self.disown(first)

    def _decoded(self, stream: Stream, frame: Frame) -> object:
        """The message; None: it was none, and the stream was reset."""
        try:
            return decode(frame)
        except PeerError as error:
            self._count(f"first_frame_{error.label}")
            stream.abort(ResetCode.MALFORMED)
            self._barren()
            return None

    def _unexpected(self, stream: Stream) -> None:
        """The sheet's relay ends such a stream without a frame (2.5, silent outcomes)."""
        self._count("first_frame_unexpected")
        stream.write_eof()
        stream.stop_sending(ResetCode.MALFORMED)
        self._barren()

    # The actor of the stream.

    def _start_half(self, half: ResumingStream, counter: str) -> None:
        """A stream that came back gets an actor that finds its other half."""
        quotas = self._door.quotas
        if quotas.returns.take(half.tenant, half.uri, self.now()):
            half.ticket = quotas.halves.take(half.tenant, half.uri)
        if half.ticket is None:
            half.abort()  # as after any fault of a relay: the agent may try again
            return
        spec = self._child(half.stream_id, lambda: ResumeHalf(self._door, half))
        try:
            self._hand_over(half, self.system.start_child(self._door.halves(), spec))
            self._door.counters[counter] += 1
        except ChildRefused as refused:
            self._door.counters[f"resume_refused_{refused.why}"] += 1
            half.abort()

    def _start_pair(self, opening: OpenRequest, make: type[StreamPair]) -> bool:
        """A new stream gets its pair. False: it was refused."""
        quotas = self._door.quotas
        if quotas.opens.take(opening.tenant, opening.consumer, self.now()):
            opening.ticket = quotas.streams.take(opening.tenant, opening.consumer)
        if opening.ticket is None:
            opening.refuse()
            return False
        spec = self._child(opening.message.stream_id, lambda: make(self._door, opening))
        try:
            self._hand_over(opening, self.system.start_child(self._door.streams(), spec))
        except ChildRefused as refused:
            self._door.counters[f"stream_refused_{refused.why}"] += 1
            opening.refuse()
            return False
        return True

    def _child(self, stream_id: int, make: Callable[[], Actor]) -> ChildSpec:
        name = f"{stream_id:016x}~{self._door.next_serial()}"
        return ChildSpec(name, make, restart=Restart.TEMPORARY, shutdown=1.0)

    def _hand_over(self, what: OpenRequest | ResumingStream, to: ActorRef) -> None:
        """Keep an eye on a stream whose new owner might die before it runs."""
        self._handed[self.monitor(to)] = what

    def _owner_ended(self, down: Down) -> bool:
        """If it did before it ran, the stream is still ours to end. False: no such owner."""
        handed = self._handed.pop(down.token, None)
        if handed is None:
            return False
        handed.abandon()
        return True
