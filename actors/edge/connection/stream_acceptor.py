"""What connections of agents and of relays have in common: they bring streams.

The first message of a stream says what it is for; then the stream goes to an actor of its own.
Between the two, and when that actor ends before it ever ran, the stream belongs to the connection.

Source: protocol sheet ORP 2.5, 3.3, 3.7.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import ClassVar

from actors.edge.connection.opening_turns import Busy
from actors.edge.context import EdgeContext
from actors.edge.opening.open_request import OpenRequest
from actors.edge.opening.stream_pair import open_pair
from actors.edge.resume.resuming_stream import start_half
from actors.edge.resume.returning import ResumingStream
from actors.runtime import Actor, Down, handles
from actors.transport.first_message import FirstMessage, NoMessage
from actors.transport.quota import Ticket
from actors.transport.stream import Stream
from wire.orp.close_codes import ResetCode
from wire.orp.messages import FirstMessageReader, FirstWord

#: Gets the first message of a stream, and what came behind it.
_Then = Callable[[FirstWord, bytes], object]


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
    """Base of the actors of connections: reads what a stream is for, and hands it over."""

    #: In front of the names of counters.
    counted_as: ClassVar[str] = ""

    def __init__(self, door: EdgeContext, tenant: str, identity: str) -> None:
        self._door = door
        #: Whose the streams are until their first message says more.
        self._bringer = (tenant, identity)
        #: Streams without a complete first message. Bound: `EdgeQuotas.opening`.
        self._opening = 0
        #: Streams that wait for their turn, and are not read. Bound: `max_streams_per_agent`, those
        #: included that are over already; one more is reset.
        self._arrived: deque[tuple[Stream, _Then]] = deque()
        self._taken = 0  # in this turn
        self._busy: Busy | None = None  # while streams wait
        #: Streams and halves that went to an actor of their own, until it ends.
        self._handed = _HandedOver()

    def _count(self, what: str) -> None:
        self._door.counters[self.counted_as + what] += 1

    # Streams in their turn.

    def _take(self, stream: Stream, then: _Then) -> None:
        """`_read_message` of a stream that arrived, now or in one of the next turns."""
        if not self._arrived and self._taken < self._share():
            if not self._taken:
                self.start_timer(0.0, _TakeMore(), "take")
            self._taken += 1
            self._read_message(stream, then)
        elif len(self._arrived) < self._door.settings.max_streams_per_agent:
            if self._busy is None:
                self._busy = self.own(self._door.opening_turns.join(self._bringer[0]), "turn")
            self._arrived.append((stream, then))
        else:
            self._count("stream_crowded_out")
            stream.abort(ResetCode.DEADLINE)
            self._barren()

    def _share(self) -> int:
        return self._door.opening_turns.share(self._bringer[0])

    @handles(_TakeMore)
    def _take_more(self, _: _TakeMore) -> None:
        self._taken = min(self._share(), len(self._arrived))
        if self._taken:
            self.start_timer(0.0, _TakeMore(), "take")
        for _taken in range(self._taken):
            self._read_message(*self._arrived.popleft())
        if self._busy is not None and not self._arrived:
            self.disown(self._busy)
            self._busy.abort()
            self._busy = None

    # The first message.

    def _read_message(self, stream: Stream, then: _Then, early: bytes = b"") -> None:
        """Call `then` with the next message of the stream and what came behind it.

        Too many that wait for a message: the stream is reset.

        Args:
            early: delivered before, and not consumed.
        """
        ticket = self._door.quotas.opening.take(*self._bringer)
        if ticket is None:
            stream.abort(ResetCode.DEADLINE)
            self._barren()
            return
        self.own(ticket, "ticket")
        self._opening += 1

        def read(message: FirstWord, rest: bytes) -> None:
            self._opened(ticket)
            then(message, rest)

        def failed(why: NoMessage) -> None:
            self._opened(ticket)
            self._no_message(stream, why)

        FirstMessage[FirstWord](
            self,
            stream,
            FirstMessageReader(),
            read,
            failed,
            deadline=self._door.settings.first_frame_deadline,
            code=ResetCode.RELAY_FAULT,
            kind="opening",
        ).start(early)

    def _opened(self, ticket: Ticket) -> None:
        self._opening -= 1
        self.disown(ticket)
        ticket.abort()

    def _no_message(self, stream: Stream, why: NoMessage) -> None:
        self._count(f"first_frame_{why.why if why.error is None else why.error.label}")
        if why.why != "lost":
            late = why.why == "timeout"
            stream.abort(ResetCode.DEADLINE if late else ResetCode.MALFORMED)
            self._barren()

    def _barren(self) -> None:
        """A stream ended without a first message that says what it is for.

        Counted only: what agents do in a hurry may look like that at the next relay, and its
        connection carries the streams of all of them.
        """

    def _unexpected(self, stream: Stream) -> None:
        """The sheet's relay ends such a stream without a frame (2.5, silent outcomes)."""
        self._count("first_frame_unexpected")
        stream.write_eof()
        stream.stop_sending(ResetCode.MALFORMED)
        self._barren()

    # The actor of the stream.

    def _start_pair(self, request: OpenRequest) -> bool:
        """A new stream gets its pair. False: it was refused."""
        pair = open_pair(self._door, self.system, request)
        if pair is not None:
            self._handed[self.monitor(pair)] = request
        return pair is not None

    def _start_half(self, half: ResumingStream, counter: str) -> None:
        """A stream that came back gets an actor that finds its other half."""
        actor = start_half(self._door, self.system, half)
        if actor is not None:
            self._door.counters[counter] += 1
            self._handed[self.monitor(actor)] = half

    def _owner_ended(self, down: Down) -> bool:
        """If it did before it ran, the stream is still ours to end. False: no such owner."""
        handed = self._handed.pop(down.token, None)
        if handed is None:
            return False
        handed.abandon()
        return True
