"""One yamux session: streams, credit, pings, the order in which things are sent.

No I/O: `receive` turns bytes into events, `data_to_send` returns buffers for one gathered write,
`next_timer` and `handle_timer` are its clock. Reading never waits for writing: what we owe the peer
(credit, acknowledgements, resets, pongs) is kept as state, not as a growing queue, and goes out
before any payload; payload takes turns, `max_frame` bytes each, bounded by the peer's credit.

Two extensions that peers without them do not notice: the length of a frame with RST carries a code,
and a PING behind the last FIN of a stream asks whether the peer has read everything. An
acknowledgement is implied by any frame of the stream, because some peers never send one.

Source: protocol sheet rendezvous 2.1 to 2.6.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from wire.yamux.errors import SessionMisuse, YamuxError
from wire.yamux.events import (
    DataReceived,
    DataSent,
    Event,
    FinReceived,
    Openable,
    PeerGoingAway,
    SessionDead,
    StreamFinished,
    StreamOpened,
    StreamReset,
)
from wire.yamux.frame import MAX_NUMBER, Flag, FrameType, GoAway, header
from wire.yamux.limits import INITIAL_WINDOW, MAX_STREAM_ID, Limits
from wire.yamux.parser import FrameParser
from wire.yamux.pings import Pings
from wire.yamux.stream_state import StreamState

Buffer = bytes | memoryview


class Session:
    """See the module docstring.

    Args:
        client: opens odd stream ids, else even ones. The peer may open any.
        now: seconds of any clock that does not go back.
        next_id: first id we open, for tests of the end of the id space.

    Attributes:
        dead: nothing is accepted or sent any more, but for a last GO_AWAY.
        peer_going_away: the peer accepts no new streams.
        overruns: streams that were reset because they held more than their share.
        unknown_frames: frames for streams that are not there (late ones are normal).
    """

    def __init__(
        self,
        *,
        client: bool,
        now: float,
        limits: Limits = Limits(),  # noqa: B008  # frozen value
        next_id: int = 0,
    ) -> None:
        if limits.window < INITIAL_WINDOW:
            raise SessionMisuse(f"window {limits.window}, at least {INITIAL_WINDOW}")
        self._limits = limits
        self._next_id = next_id or (1 if client else 2)
        self._streams: dict[int, StreamState] = {}
        self._parser = FrameParser()
        #: The stream the present DATA frame belongs to; None: it is dropped.
        self._current: StreamState | None = None
        self._current_flags = 0
        # What we owe, by stream; bound: the live streams.
        self._owed: dict[int, int] = {}
        #: Sent before anything else; bound: max_pongs pongs, a GO_AWAY, a PING.
        self._urgent: deque[bytes] = deque()
        #: Bound: max_resets, then the session ends; ours are at most one per live stream.
        self._resets: dict[int, int] = {}
        #: Streams with something to send, in turn.
        self._ready: dict[int, None] = {}
        self._unconsumed = 0  # of all streams, those of `_unread` included
        #: Bytes not consumed yet of streams that are over, both directions; none has zero.
        self._unread: dict[int, int] = {}
        self._inbound = 0
        self._unaccepted = 0
        self._unacknowledged = 0
        self._open_refused = False
        self._freed = False  # an unanswered stream of ours is gone, and somebody wants to open one
        self._going_away = False
        self.peer_going_away = False
        self.dead = False
        self._pings = Pings(limits)
        self.unknown_frames = 0
        self.overruns = 0
        # Rates, per second.
        self._second = now
        self._unknown_seen = 0
        self._heard = now
        self._lingering: dict[int, None] = {}

    # What the owner does.

    @property
    def round_trip(self) -> float:
        """Of the last PING, seconds; 0 while unknown."""
        return self._pings.round_trip

    @property
    def streams(self) -> int:
        """Live streams."""
        return len(self._streams)

    @property
    def inbound(self) -> int:
        """Of those, opened by the peer."""
        return self._inbound

    def open(self) -> int | None:
        """The id of a new stream; None: not now (`Openable` follows), or never again."""
        if self.dead or self.peer_going_away or self._next_id > MAX_STREAM_ID:
            return None
        if self._unacknowledged >= self._limits.max_unacknowledged:
            self._open_refused = True
            return None
        while self._next_id in self._streams:
            self._next_id += 2  # the peer counts as we do, and was first
        stream_id = self._next_id
        self._next_id += 2
        stream = StreamState(stream_id, outbound=True, window=self._window())
        self._streams[stream_id] = stream
        self._unacknowledged += 1
        self._owed[stream_id] = Flag.SYN
        return stream_id

    def _window(self) -> int:
        """Of one more stream: the large one, while all may have it."""
        limits = self._limits
        fits = (len(self._streams) + 1) * limits.window <= limits.max_unconsumed
        return limits.window if fits else INITIAL_WINDOW

    def accept(self, stream_id: int) -> None:
        """The application took a stream the peer opened."""
        stream = self._streams.get(stream_id)
        if stream is None or stream.outbound or stream.acknowledged:
            return  # it is gone already
        stream.acknowledged = True
        self._unaccepted -= 1
        self._owed[stream_id] = self._owed.get(stream_id, 0) | Flag.ACK

    def write(self, stream_id: int, data: bytes | bytearray | memoryview) -> None:
        """Queue bytes; the caller bounds them by `backlog`.

        Raises:
            SessionMisuse: our direction of the stream has ended, or there is no such stream.
        """
        stream = self._streams.get(stream_id)
        if stream is None or stream.fin_wanted:
            raise SessionMisuse(f"stream {stream_id} is finished for writing")
        if data:
            stream.queue.append(memoryview(bytes(data)))
            stream.queued += len(data)
            if stream.may_send:
                self._ready[stream_id] = None

    def finish(self, stream_id: int) -> None:
        """FIN behind what was written; once."""
        stream = self._streams.get(stream_id)
        if stream is not None and not stream.fin_wanted:
            stream.fin_wanted = True
            if stream.sendable:
                self._ready[stream_id] = None

    def cancel(self, stream_id: int) -> None:
        """Send nothing of what waits, and no FIN: a reset follows."""
        stream = self._streams.get(stream_id)
        if stream is not None:
            stream.queue.clear()
            stream.queued = 0
            stream.fin_wanted = stream.fin_sent
            self._ready.pop(stream_id, None)

    def reset(self, stream_id: int, code: int = 0) -> None:
        """Drop the stream and what waits on it, both ways."""
        stream = self._streams.get(stream_id)
        if stream is None:
            return
        fresh = bool(self._owed.get(stream_id, 0) & Flag.SYN)
        self._forget(stream)
        if not fresh:  # else the peer never heard of it
            self._resets[stream_id] = code

    def discard(self, stream_id: int, now: float) -> None:
        """Drop what the peer still sends; yamux has no word to stop it."""
        stream = self._streams.get(stream_id)
        if stream is None:
            self._unconsumed -= self._unread.pop(stream_id, 0)
            return
        if stream.discarding or stream.fin_received:
            return
        stream.discarding = True
        self._lingering[stream_id] = None
        self._linger(stream, now)
        self.consume(stream_id, stream.unconsumed)

    def _linger(self, stream: StreamState, now: float) -> None:
        if stream.discarding and stream.fin_sent and not stream.linger_until:
            stream.linger_until = now + self._limits.linger

    def consume(self, stream_id: int, count: int) -> None:
        """The application is done with so many bytes: the peer may send as many."""
        stream = self._streams.get(stream_id)
        if stream is None:
            self._read_late(stream_id, count)
            return
        if count > stream.unconsumed:
            raise SessionMisuse(f"{count} bytes consumed of {stream.unconsumed}")
        stream.unconsumed -= count
        self._unconsumed -= count
        stream.ungranted += count
        if stream.ungranted >= stream.window // 2 and not stream.fin_received:
            self._owed.setdefault(stream_id, 0)

    def _read_late(self, stream_id: int, count: int) -> None:
        """Bytes of a stream that is over."""
        left = self._unread.pop(stream_id, 0)
        if count < left:
            self._unread[stream_id] = left - count
        self._unconsumed -= min(count, left)

    def backlog(self, stream_id: int) -> int:
        """Bytes written and not handed to the transport."""
        stream = self._streams.get(stream_id)
        return 0 if stream is None else stream.queued

    def go_away(self) -> None:
        """Accept no new streams from now on; the live ones go on."""
        if not self._going_away and not self.dead:
            self._going_away = True
            self._urgent.append(header(FrameType.GO_AWAY, 0, 0, GoAway.NORMAL))

    def close(self, code: int) -> None:
        """The session ends; `data_to_send` returns a last GO_AWAY with the code."""
        if not self.dead:
            self._die()
            self._urgent.append(header(FrameType.GO_AWAY, 0, 0, code))

    def _die(self) -> None:
        self.dead = True
        self._streams.clear()
        self._owed.clear()
        self._resets.clear()
        self._ready.clear()
        self._urgent.clear()
        self._lingering.clear()
        self._freed = False

    # Receiving.

    def receive(self, data: bytes, now: float) -> list[Event]:
        """Bytes of the peer; whatever it is told goes out with `data_to_send`."""
        events: list[Event] = []
        if self.dead:
            return events
        self._heard = now
        if now - self._second >= 1.0:
            self._second = now
            self._unknown_seen = 0
            self._pings.new_second()
        parser = self._parser
        parser.feed(data)
        try:
            while True:
                if parser.pending:
                    self._payload(parser.payload(), events)
                    if parser.pending:
                        break
                    self._frame_done(events)
                found = parser.next_header()
                if found is None:
                    break
                frame_type, flags, stream_id, length = found
                if frame_type == FrameType.DATA:
                    self._data(flags, stream_id, length, events)
                elif frame_type == FrameType.WINDOW_UPDATE:
                    self._window_update(flags, stream_id, length, events)
                elif frame_type == FrameType.PING:
                    self._ping(flags, length, now, events)
                elif self._peer_goes(length, events):
                    break
        except YamuxError as error:
            self.close(error.code)
            events.append(SessionDead(error))
        return events

    def _data(self, flags: int, stream_id: int, length: int, events: list[Event]) -> None:
        stream = self._begin(flags, stream_id, events)
        if stream is not None:
            if stream.fin_received:
                raise YamuxError("data_after_fin", f"stream {stream_id}: {length} bytes after FIN")
            if length > stream.may_receive:
                raise YamuxError(
                    "window_exceeded",
                    f"stream {stream_id}: {length} bytes, {stream.may_receive} allowed",
                )
            stream.may_receive -= length
        self._parser.pending = length
        self._current = stream
        self._current_flags = flags
        if not length:
            self._frame_done(events)

    def _payload(self, data: bytes, events: list[Event]) -> None:
        stream = self._current
        if not data or stream is None or self._streams.get(stream.stream_id) is not stream:
            return  # of a stream that is gone: drained
        stream.unconsumed += len(data)
        self._unconsumed += len(data)
        if stream.discarding:
            self.consume(stream.stream_id, len(data))
        elif self._hogs(stream):
            self.overruns += 1
            self.reset(stream.stream_id)
            events.append(StreamReset(stream.stream_id, 0))
        else:
            events.append(DataReceived(stream.stream_id, data))

    def _hogs(self, stream: StreamState) -> bool:
        """More is held than may be, and more of it by this stream than its share.

        Beyond twice as much, which streams hold that are over, no stream may add to it.
        """
        most, held = self._limits.max_unconsumed, self._unconsumed
        return held > most and (stream.unconsumed * len(self._streams) > most or held > 2 * most)

    def _frame_done(self, events: list[Event]) -> None:
        stream, self._current = self._current, None
        if stream is not None and self._streams.get(stream.stream_id) is stream:
            self._end(stream, self._current_flags, 0, events)

    def _window_update(self, flags: int, stream_id: int, delta: int, events: list[Event]) -> None:
        stream = self._begin(flags, stream_id, events)
        if stream is None:
            return
        if not flags & Flag.RST:  # there it is a code
            if stream.may_send + delta > MAX_NUMBER:
                raise YamuxError("credit_overflow", f"stream {stream_id}: credit beyond 2**32 - 1")
            stream.may_send += delta
            if stream.sendable:
                self._ready[stream_id] = None
        self._end(stream, flags, delta, events)

    def _begin(self, flags: int, stream_id: int, events: list[Event]) -> StreamState | None:
        """SYN, and any answer to ours; None: the frame belongs to no stream."""
        stream = self._streams.get(stream_id)
        if flags & Flag.SYN:
            # Whose ids are odd does not matter: some networks have a client at both ends.
            if stream is not None or not stream_id:
                raise YamuxError("bad_syn", f"SYN for stream {stream_id}")
            return self._opened(stream_id, events)
        if stream is None:
            self.unknown_frames += 1
            self._unknown_seen += 1
            if self._unknown_seen > self._limits.max_unknown:
                raise YamuxError("unknown_streams", f"{self._unknown_seen} frames within a second")
        elif stream.outbound and not stream.acknowledged and not flags & Flag.RST:
            self._acknowledged(stream, events)
        return stream

    def _opened(self, stream_id: int, events: list[Event]) -> StreamState | None:
        limits = self._limits
        if (
            self._going_away
            or stream_id in self._unread  # used again, before its bytes were read
            or self._inbound >= limits.max_inbound
            or self._unaccepted >= limits.max_unaccepted
        ):
            if len(self._resets) >= limits.max_resets:
                raise YamuxError("too_many_streams", f"{len(self._resets)} resets not read")
            self._resets[stream_id] = 0
            return None
        stream = StreamState(stream_id, outbound=False, window=self._window())
        self._streams[stream_id] = stream
        self._inbound += 1
        self._unaccepted += 1
        events.append(StreamOpened(stream_id))
        return stream

    def _acknowledged(self, stream: StreamState, events: list[Event]) -> None:
        stream.acknowledged = True
        self._unacknowledged -= 1
        if self._open_refused:
            self._open_refused = False
            events.append(Openable())

    def _end(self, stream: StreamState, flags: int, code: int, events: list[Event]) -> None:
        """FIN and RST of a frame, behind its payload or credit."""
        stream_id = stream.stream_id
        if flags & Flag.FIN:
            if stream.fin_received:
                raise YamuxError("second_fin", f"stream {stream_id}: FIN twice")
            stream.fin_received = True
            self._lingering.pop(stream_id, None)
            if not stream.discarding:
                events.append(FinReceived(stream_id))
            self._settle(stream)
        if flags & Flag.RST:
            self._forget(stream)
            events.append(StreamReset(stream_id, code))

    def _settle(self, stream: StreamState) -> None:
        """Both directions are over: ask whether the peer has read the last of it."""
        if stream.fin_sent and stream.fin_received and stream.stream_id in self._streams:
            unread = stream.unconsumed
            self._forget(stream)
            if unread:
                self._unread[stream.stream_id] = unread
                self._unconsumed += unread
            self._pings.ask_behind(stream.stream_id)

    def _forget(self, stream: StreamState) -> None:
        stream_id = stream.stream_id
        del self._streams[stream_id]
        self._unconsumed -= stream.unconsumed
        self._owed.pop(stream_id, None)
        self._ready.pop(stream_id, None)
        self._lingering.pop(stream_id, None)
        stream.queue.clear()
        if stream.outbound:
            self._unacknowledged -= not stream.acknowledged
            self._freed = self._freed or (self._open_refused and not stream.acknowledged)
        else:
            self._inbound -= 1
            self._unaccepted -= not stream.acknowledged

    def _ping(self, flags: int, token: int, now: float, events: list[Event]) -> None:
        if flags & Flag.SYN:
            answer = self._pings.answer(token)
            if answer is not None:
                self._urgent.append(answer)
        elif flags & Flag.ACK:
            finished = self._pings.answered(token, now)
            events.extend(StreamFinished(stream_id) for stream_id in finished)

    def _peer_goes(self, code: int, events: list[Event]) -> bool:
        """True when the session is over with it."""
        if code == GoAway.NORMAL:
            if not self.peer_going_away:
                self.peer_going_away = True
                events.append(PeerGoingAway())
            return False
        self._die()
        events.append(SessionDead(None, code))
        return True

    # Sending.

    @property
    def wants_to_send(self) -> bool:
        """True when `data_to_send` would return something."""
        return bool(
            self._urgent
            or self._resets
            or self._owed
            or self._ready
            or self._freed
            or (self._pings.due and not self.dead)
        )

    def data_to_send(self, most: int, now: float) -> tuple[list[Buffer], list[Event]]:
        """Buffers for one gathered write, about `most` bytes, and what became of the streams."""
        buffers: list[Buffer] = []
        events: list[Event] = []
        while self._urgent:
            buffers.append(self._urgent.popleft())
        self._pings.answers_sent()
        if self.dead:
            return buffers, events
        if self._freed:
            self._freed = self._open_refused = False
            events.append(Openable())
        for stream_id, code in self._resets.items():
            buffers.append(header(FrameType.WINDOW_UPDATE, Flag.RST, stream_id, code))
        self._resets.clear()
        for stream_id, flags in self._owed.items():
            stream = self._streams[stream_id]
            delta = 0 if stream.fin_received else stream.ungranted
            stream.ungranted -= delta
            stream.may_receive += delta
            buffers.append(header(FrameType.WINDOW_UPDATE, flags, stream_id, delta))
        self._owed.clear()
        self._payloads(most, buffers, events, now)
        if self._pings.due:
            buffers.append(self._pings.question(now))
        return buffers, events

    def _payloads(self, most: int, buffers: list[Buffer], events: list[Event], now: float) -> None:
        """The streams in turn, until the write is full or nobody may send."""
        ready, quantum = self._ready, self._limits.max_frame
        while ready and most > 0:
            stream_id = next(iter(ready))
            del ready[stream_id]
            stream = self._streams[stream_id]
            size = min(stream.queued, stream.may_send, quantum, most)
            if size:
                pieces, count = stream.take(size)
                stream.may_send -= count
                most -= count
                buffers.append(header(FrameType.DATA, 0, stream_id, count))
                buffers.extend(pieces)
                events.append(DataSent(stream_id, count))
            if stream.fin_wanted and not stream.queued:
                stream.fin_sent = True
                buffers.append(header(FrameType.WINDOW_UPDATE, Flag.FIN, stream_id, 0))
                self._linger(stream, now)
                self._settle(stream)
            elif stream.sendable:
                ready[stream_id] = None

    # Time.

    def next_timer(self) -> float | None:
        """When `handle_timer` wants to be called; None: never."""
        return None if self.dead else min(self._timers(), default=None)

    def _timers(self) -> Iterator[float]:
        limits, pinged = self._limits, self._pings.sent
        if pinged is not None:
            yield max(self._heard, pinged) + limits.ping_timeout
        elif limits.keepalive:
            yield self._heard + limits.keepalive
        for stream_id in self._lingering:
            until = self._streams[stream_id].linger_until
            if until:
                yield until

    def handle_timer(self, now: float) -> list[Event]:
        """Keepalive, dead peers, streams that linger; call it at `next_timer` or later."""
        limits, pinged = self._limits, self._pings.sent
        events: list[Event] = []
        if self.dead:
            return []
        for stream_id in list(self._lingering):
            until = self._streams[stream_id].linger_until
            if until and until <= now:
                self.reset(stream_id)
                events.append(StreamFinished(stream_id))
        if pinged is not None:
            if now >= max(self._heard, pinged) + limits.ping_timeout:
                silent = f"nothing for {limits.ping_timeout:g} s after a PING"
                self._die()
                events.append(SessionDead(YamuxError("silent", silent)))
        elif limits.keepalive and now >= self._heard + limits.keepalive:
            self._urgent.append(self._pings.keepalive(now))
        return events
