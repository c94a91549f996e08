"""What the peer says, frame by frame, and what becomes of it.

Source: protocol sheet rendezvous 2.1 to 2.5.
"""

from __future__ import annotations

from typing import Final

from wire.yamux.errors import YamuxError
from wire.yamux.events import (
    DataReceived,
    Event,
    FinReceived,
    PeerGoingAway,
    SessionDead,
    StreamFinished,
    StreamOpened,
    StreamReset,
)
from wire.yamux.frame import MAX_NUMBER, Flag, FrameType, GoAway
from wire.yamux.limits import INITIAL_WINDOW, Limits
from wire.yamux.parser import FrameParser
from wire.yamux.stream_lives import StreamLives
from wire.yamux.stream_state import StreamState

#: What is smaller is joined with what follows: each event costs its owner more than a copy.
_CRUMBS: Final = 4096


class Receiver:
    """What the peer says, frame by frame, and what becomes of it.

    Attributes:
        refusing: we accept no new streams.
        peer_going_away: the peer accepts none.
        unknown_frames: frames for streams that are not there (late ones are normal).
        late_bytes: payload behind the FIN of its stream.
        more: bytes wait because `frames_per_turn` were looked at.
    """

    def __init__(self, limits: Limits, lives: StreamLives, now: float) -> None:
        self._limits = limits
        self._lives = lives
        self._streams = lives.streams
        self._outbox = lives.outbox
        self._pings = lives.pings
        self._parser = FrameParser()
        #: The stream the present DATA frame belongs to; None: it is dropped.
        self._current: StreamState | None = None
        self._current_flags = 0
        self.refusing = False
        self.peer_going_away = False
        self.unknown_frames = 0
        self.late_bytes = 0
        self.more = False
        self._second = now  # the one that `_unknown_seen` is about
        self._unknown_seen = 0
        self._idle_seen = 0

    def receive(self, data: bytes, now: float, events: list[Event]) -> bool:
        """Bytes of the peer; True when it ended the session with them.

        Raises:
            YamuxError: it broke a rule; the events tell what it said before.
        """
        if now - self._second >= 1.0:
            self._second, self._unknown_seen, self._idle_seen = now, 0, 0
        parser, left = self._parser, self._limits.frames_per_turn
        parser.feed(data)
        self.more = False
        while True:
            if parser.pending:
                self._payload(parser.payload(), events)
                if parser.pending:
                    return False
                self._frame_done(now, events)
            if not left:
                self.more = True
                return False
            left -= 1
            found = parser.next_header()
            if found is None:
                return False
            frame_type, flags, wire_id, length = found
            if frame_type == FrameType.DATA:
                self._data(flags, wire_id, length, now, events)
            elif frame_type == FrameType.WINDOW_UPDATE:
                self._window_update(flags, wire_id, length, now, events)
            elif frame_type == FrameType.PING:
                self._ping(flags, length, events)
            elif length != GoAway.NORMAL:
                events.append(SessionDead(None, length))
                return True
            elif not self.peer_going_away:
                self.peer_going_away = True
                events.append(PeerGoingAway())

    def _data(self, flags: int, wire_id: int, length: int, now: float, events: list[Event]) -> None:
        stream = self._begin(flags, wire_id, length, events)
        if stream is not None:
            if length > stream.may_receive:
                raise YamuxError(
                    "window_exceeded",
                    f"stream {wire_id}: {length} bytes, {stream.may_receive} allowed",
                )
            stream.may_receive -= length
            if not length:
                self._idle(flags)
        self._parser.pending = length
        self._current = stream
        self._current_flags = flags
        if not length:
            self._frame_done(now, events)

    def _payload(self, data: bytes, events: list[Event]) -> None:
        stream = self._current
        if not data or stream is None or self._streams.find(stream.stream_id) is not stream:
            return  # of a stream that is gone: drained
        if stream.fin_received:
            self.late_bytes += len(data)  # peers whose Write and Close race send it (2.4 row 28)
        elif stream.discarding:
            self._lives.grant(stream, len(data))
        else:
            stream.unconsumed += len(data)
            self._streams.hold(len(data))
            if self._streams.hogs(stream):
                self._lives.overruns += 1
                self._lives.reset(stream)
                events.append(StreamReset(stream.stream_id, 0))
            else:
                _append(events, stream.stream_id, data)

    def _frame_done(self, now: float, events: list[Event]) -> None:
        stream, self._current = self._current, None
        if stream is not None and self._streams.find(stream.stream_id) is stream:
            self._end(stream, self._current_flags, 0, now, events)

    def _window_update(
        self, flags: int, wire_id: int, delta: int, now: float, events: list[Event]
    ) -> None:
        stream = self._begin(flags, wire_id, 0, events)
        if stream is None:
            return
        if not flags & Flag.RST:  # there it is a code
            if stream.may_send + delta > MAX_NUMBER:
                raise YamuxError("credit_overflow", f"stream {wire_id}: credit beyond 2**32 - 1")
            if not delta:
                self._idle(flags)
            self._lives.credited(stream, delta)
        self._end(stream, flags, delta, now, events)

    def _begin(
        self, flags: int, wire_id: int, size: int, events: list[Event]
    ) -> StreamState | None:
        """SYN, and any answer to ours; None: the frame, and its payload, belong to no stream."""
        stream = self._streams.on_wire(wire_id)
        if flags & Flag.SYN:
            # Whose ids are odd does not matter: some networks have a client at both ends.
            if stream is not None or not wire_id:
                raise YamuxError("bad_syn", f"SYN for stream {wire_id}")
            stream = self._opened(wire_id, events)
        if stream is None:
            self._stray(wire_id, size)
        elif stream.outbound and not stream.acknowledged and not flags & Flag.RST:
            self._lives.acknowledged(stream)
        return stream

    def _opened(self, wire_id: int, events: list[Event]) -> StreamState | None:
        streams, outbox = self._streams, self._outbox
        if outbox.crowded:
            raise YamuxError("too_many_streams", "resets that the peer does not read")
        if (
            self.refusing
            or streams.full
            or self._pings.full
            or outbox.resetting(wire_id)  # the peer could not tell which one our reset is for
        ):
            outbox.refuse(wire_id)
            streams.used(wire_id)
            streams.late_credit += INITIAL_WINDOW
            return None
        stream = streams.add(wire_id, outbound=False)
        events.append(StreamOpened(stream.stream_id))
        return stream

    def _stray(self, wire_id: int, size: int) -> None:
        """A frame for a stream that is not there: late, or of one that never was."""
        self.unknown_frames += 1
        if self._streams.existed(wire_id) and size <= self._streams.late_credit:
            self._streams.late_credit -= size
            return
        self._unknown_seen += 1
        if self._unknown_seen > self._limits.max_unknown:
            raise YamuxError("unknown_streams", f"{self._unknown_seen} frames within a second")

    def _idle(self, flags: int) -> None:
        """No payload, no credit: such a frame costs its sender less than us."""
        if flags & (Flag.SYN | Flag.FIN | Flag.RST):
            return
        self._idle_seen += 1
        if self._idle_seen > self._limits.max_idle:
            raise YamuxError("idle_frames", f"{self._idle_seen} frames within a second say nothing")

    def _end(
        self, stream: StreamState, flags: int, code: int, now: float, events: list[Event]
    ) -> None:
        """FIN and RST of a frame, behind its payload or credit."""
        if flags & Flag.FIN:
            if stream.fin_received:
                raise YamuxError("second_fin", f"stream {stream.wire_id}: FIN twice")
            if not flags & Flag.RST:  # an error is never an end
                if not stream.discarding:
                    events.append(FinReceived(stream.stream_id))
                self._lives.fin_came(stream, now)
        if flags & Flag.RST:
            self._lives.forget(stream)
            events.append(StreamReset(stream.stream_id, code))

    def _ping(self, flags: int, token: int, events: list[Event]) -> None:
        if flags & Flag.SYN:
            answer = self._pings.answer(token)
            if answer is not None:
                self._outbox.urgent(answer)
        elif flags & Flag.ACK:
            events.extend(StreamFinished(stream_id) for stream_id in self._pings.answered(token))


def _append(events: list[Event], stream_id: int, data: bytes) -> None:
    """The bytes, in one event with crumbs of the same stream before them."""
    last = events[-1] if events else None
    if type(last) is DataReceived and last.stream_id == stream_id and len(last.data) < _CRUMBS:
        events[-1] = DataReceived(stream_id, last.data + data)
    else:
        events.append(DataReceived(stream_id, data))
