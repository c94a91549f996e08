"""What the two ends of a ctrl stream have in common: frames in, events and bytes out, deadlines.

`ControlSession` is the relay's end, `AgentSession` the agent's. A session is a state machine over
frames: `TRANSITIONS` holds every legal (state, frame type), `ACTIONS` what a legal frame does. In
the first state only the peer's HELLO or HELLO_ACK is legal, within a deadline, and never again;
every other unknown frame is skipped and counted, so that later versions may add some. Failure is
final: one `SessionFailed` ends the events, and further bytes are ignored.

Nothing here waits. The owner calls `handle_timer` at `next_timer()`, passes `now` in seconds of one
monotonic clock, and writes `data_to_send()` after every call. A session holds at most one
unfinished frame (8 bytes and 64 KiB) and the bytes its owner has not taken yet.
"""

from __future__ import annotations

from abc import ABC
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar

from wire.errors import PeerError
from wire.orp.errors import FrameTimeout, HelloTimeout, IllegalFrame, SessionMisuse
from wire.orp.events import ControlClosed, SessionFailed
from wire.orp.frame import Frame, FrameReader, FrameType, type_name
from wire.orp.limits import FRAME_TIMEOUT_SECONDS, MAX_CTRL_PAYLOAD_BYTES, MAX_UNTAKEN_BYTES

StateT = TypeVar("StateT", bound=Enum)
EventT = TypeVar("EventT")


class ControlStatistics(NamedTuple):
    """Counters since the session began."""

    bytes_received: int  #: everything fed, including what came after the session closed
    bytes_sent: int  #: everything handed out by `data_to_send`
    bytes_pending: int  #: of an unfinished frame, now
    frames_received: int  #: complete frames, including skipped ones
    frames_skipped: int  #: of an unknown type, or of one that has no meaning here
    frames_irregular: int  #: with another version, reserved bits or flags; handled as usual
    frames_dropped: int  #: outgoing, refused because too many bytes were held back


class SessionCore(ABC, Generic[StateT, EventT]):
    """One end of one ctrl stream.

    Args:
        now: when the wait for the peer's first frame began.
        hello_timeout: seconds until it must be complete.
    """

    #: Every legal frame and the state it leads to.
    TRANSITIONS: ClassVar[Mapping[Any, Mapping[int, Any]]]
    #: What a legal frame does: an event to report, or None.
    ACTIONS: ClassVar[Mapping[int, Callable[[Any, Frame, float], Any]]]
    FIRST: ClassVar[Any]  #: the state before the peer's first frame
    CLOSED: ClassVar[Any]  #: the last state
    #: The only legal frame of the first state.
    GREETING: ClassVar[FrameType]

    __slots__ = (
        "_bytes_received",
        "_bytes_sent",
        "_frame_deadline",
        "_frames_dropped",
        "_frames_irregular",
        "_frames_received",
        "_frames_skipped",
        "_hello_deadline",
        "_hello_timeout",
        "_outgoing",
        "_reader",
        "_state",
    )

    def __init__(self, now: float, hello_timeout: float) -> None:
        self._state: StateT = self.FIRST
        self._hello_timeout = hello_timeout
        self._hello_deadline = now + hello_timeout
        self._reader = FrameReader(MAX_CTRL_PAYLOAD_BYTES)
        # Bound: MAX_UNTAKEN_BYTES plus what one chunk causes: no more than its own length (relay)
        # or the queued REGISTERs (agent). Overflow: SessionMisuse, because the owner takes the
        # bytes after each call.
        self._outgoing = bytearray()
        self._bytes_received = self._bytes_sent = 0
        self._frames_received = self._frames_irregular = 0
        self._frames_skipped = self._frames_dropped = 0
        #: When the unfinished frame must be complete; None at a frame border.
        self._frame_deadline: float | None = None

    @property
    def state(self) -> StateT:
        """The current state."""
        return self._state

    def receive(
        self, chunk: bytes | bytearray | memoryview, now: float
    ) -> list[EventT | SessionFailed | ControlClosed]:
        """Bytes from the ctrl stream, any chunk borders; `chunk` may be reused afterwards.

        Returns:
            What happened, in order; at most one event per 8 bytes and one `SessionFailed`.
        """
        self._bytes_received += len(chunk)
        if self._state is self.CLOSED:
            return []
        events: list[EventT | SessionFailed | ControlClosed] = []
        try:
            self._reader.feed(chunk)
            for frame in self._reader:
                self._frames_received += 1
                self._frames_irregular += frame.irregular
                self._frame_deadline = None  # whatever follows is another frame, begun now
                event = self._advance(frame, now)
                if event is not None:
                    events.append(event)
                self._after_frame(events)
            if not self._reader.pending:
                self._frame_deadline = None
            elif self._frame_deadline is None:
                self._frame_deadline = now + FRAME_TIMEOUT_SECONDS
        except PeerError as error:
            events.append(self._fail(error))
        return events

    def receive_eof(self) -> list[EventT | SessionFailed | ControlClosed]:
        """The peer ended the ctrl stream: `ControlClosed`, or `SessionFailed` inside a frame."""
        if self._state is self.CLOSED:
            return []
        try:
            self._reader.eof()
        except PeerError as error:
            return [self._fail(error)]
        self._state = self.CLOSED
        return [ControlClosed()]

    def next_timer(self) -> float | None:
        """When `handle_timer` is to be called next; None while no deadline runs."""
        if self._state is self.CLOSED:
            return None
        return self._hello_deadline if self._state is self.FIRST else self._next_deadline()

    def handle_timer(self, now: float) -> list[EventT | SessionFailed | ControlClosed]:
        """What ran out by `now`; nothing when called early or late."""
        events: list[EventT | SessionFailed | ControlClosed] = []
        try:
            if self._state is self.FIRST:
                if now >= self._hello_deadline:
                    raise HelloTimeout(f"no {self.GREETING.name} within {self._hello_timeout:g} s")
            elif self._state is not self.CLOSED:
                self._check_deadlines(now, events)
        except PeerError as error:
            events.append(self._fail(error))
        return events

    def data_to_send(self) -> bytes:
        """The bytes to write to the ctrl stream now, in order; also after the session closed."""
        data = bytes(self._outgoing)
        self._outgoing.clear()
        self._bytes_sent += len(data)
        return data

    def statistics(self) -> ControlStatistics:
        """A snapshot of the counters."""
        return ControlStatistics(
            bytes_received=self._bytes_received,
            bytes_sent=self._bytes_sent,
            bytes_pending=self._reader.pending,
            frames_received=self._frames_received,
            frames_skipped=self._frames_skipped,
            frames_irregular=self._frames_irregular,
            frames_dropped=self._frames_dropped,
        )

    # For the two ends.

    def _advance(self, frame: Frame, now: float) -> EventT | None:
        target = self.TRANSITIONS[self._state].get(frame.type)
        if target is None:
            if self._state is self.FIRST or frame.type == self.GREETING:
                raise self._illegal(frame)
            self._frames_skipped += 1
            return None
        event: EventT | None = self.ACTIONS[frame.type](self, frame, now)
        self._state = target
        return event

    def _illegal(self, frame: Frame) -> PeerError:
        """What is wrong with a frame that may not come now."""
        return IllegalFrame(type_name(frame.type), self._state.value)

    def _after_frame(self, events: list[EventT | SessionFailed | ControlClosed]) -> None:
        """A frame was handled; more may follow from it."""

    def _next_deadline(self) -> float | None:
        return self._frame_deadline

    def _check_deadlines(
        self, now: float, events: list[EventT | SessionFailed | ControlClosed]
    ) -> None:
        """Add what ran out; raise what ends the session."""
        if self._frame_deadline is not None and now >= self._frame_deadline:
            pending = self._reader.pending
            raise FrameTimeout(f"{pending} bytes of a frame after {FRAME_TIMEOUT_SECONDS:g} s")

    def _fail(self, error: PeerError) -> SessionFailed:
        self._state = self.CLOSED
        return SessionFailed(error)

    def _writable(self) -> bool:
        """False when the session is closed, and nothing will be sent.

        Raises:
            SessionMisuse: before the greeting.
        """
        if self._state is self.FIRST:
            raise SessionMisuse("only the greeting may be sent before HELLO_ACK")
        return self._state is not self.CLOSED

    def _put_answer(self, data: bytes) -> None:
        """Queue what a received frame causes; never refused, or a peer could make us fail."""
        self._outgoing += data

    def _put(self, data: bytes) -> None:
        """Queue bytes the owner wants sent.

        Raises:
            SessionMisuse: more than MAX_UNTAKEN_BYTES wait for `data_to_send`.
        """
        if len(self._outgoing) + len(data) > MAX_UNTAKEN_BYTES:
            raise SessionMisuse(f"{len(self._outgoing)} bytes not taken by data_to_send")
        self._outgoing += data
