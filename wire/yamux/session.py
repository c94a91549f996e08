"""One yamux session: what its owner does with it, and its clock.

No I/O: `receive` turns bytes into events (`receiver`), `data_to_send` returns buffers for one
gathered write (`outbox`), `next_timer` and `handle_timer` are its clock. Reading never waits for
writing.

The peer may say anything in any order, and one segment may hold a stream from its SYN to its RST,
or to the end of the session. So what the owner says about a stream that the peer or the end of the
session took away does nothing; only what it ended itself is misuse. Streams are called by numbers
that never mean another one (`stream_table`).

Two extensions that peers without them do not notice: the length of a frame with RST carries a code,
and a PING behind the last FIN of a stream asks whether the peer has read everything. An
acknowledgement is implied by any frame of the stream, because some peers never send one.

Source: protocol sheet rendezvous 2.1 to 2.6, 2.8.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from wire.yamux.errors import SessionMisuse, YamuxError
from wire.yamux.events import DataSent, Event, Openable, SessionDead
from wire.yamux.frame import Flag
from wire.yamux.limits import INITIAL_WINDOW, MAX_STREAM_ID, Limits
from wire.yamux.receiver import Receiver
from wire.yamux.stream_lives import StreamLives
from wire.yamux.stream_state import Buffer
from wire.yamux.unread_budget import UnreadBudget


class Session:
    """One yamux session: what its owner does with it, and its clock.

    Args:
        client: opens odd stream ids, else even ones. The peer may open any.
        now: seconds of any clock that does not go back.
        next_id: first id we open, for tests of the end of the id space.
        budget: shared with other sessions; without one it is this session's own.
        on_relief: called when there is credit to send because others hold less.

    Attributes:
        limits: as given.
        dead: nothing is accepted or sent any more, but for a last GO_AWAY.
    """

    def __init__(
        self,
        *,
        client: bool,
        now: float,
        limits: Limits = Limits(),  # noqa: B008  # frozen value
        next_id: int = 0,
        budget: UnreadBudget | None = None,
        on_relief: Callable[[], object] = int,
    ) -> None:
        if limits.window < INITIAL_WINDOW:
            raise SessionMisuse(f"window {limits.window}, at least {INITIAL_WINDOW}")
        self.limits = limits
        self._next_id = next_id or (1 if client else 2)
        self._on_relief = on_relief
        budget = budget or UnreadBudget(2 * limits.max_unconsumed)
        self._lives = StreamLives(limits, now, budget, self._relieved)
        self._streams = self._lives.streams
        self._outbox = self._lives.outbox
        self._pings = self._lives.pings
        self._receiver = Receiver(limits, self._lives, now)
        self._open_refused = False
        self._heard = now
        self.dead = False

    @property
    def peer_going_away(self) -> bool:
        """True when the peer accepts no new streams."""
        return self._receiver.peer_going_away

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
        return self._streams.inbound

    @property
    def unconsumed(self) -> int:
        """Bytes the application holds, of all streams, those that are over included."""
        return self._streams.unconsumed

    @property
    def overruns(self) -> int:
        """Streams that were reset because they held more than their share."""
        return self._lives.overruns

    @property
    def unknown_frames(self) -> int:
        """Frames for streams that are not there; late ones are normal."""
        return self._receiver.unknown_frames

    @property
    def late_bytes(self) -> int:
        """Payload that came behind the FIN of its stream, and was dropped."""
        return self._receiver.late_bytes

    # What the owner does.

    def open(self) -> int | None:
        """A new stream; None: not now (`Openable` follows), or never again."""
        if self.dead or self.peer_going_away:
            return None
        while self._streams.on_wire(self._next_id) is not None:
            self._next_id += 2  # the peer counts as we do, and was first
        if self._next_id > MAX_STREAM_ID:
            return None
        if not self._room_to_open:
            self._open_refused = True
            return None
        stream = self._streams.add(self._next_id, outbound=True)
        self._next_id += 2
        self._outbox.owe(stream, Flag.SYN)
        return stream.stream_id

    @property
    def _room_to_open(self) -> bool:
        awaited, most = self._streams.awaited, self.limits.max_unacknowledged
        return awaited < most and not self._pings.full

    def accept(self, stream_id: int) -> None:
        """The application took a stream the peer opened."""
        stream = self._streams.find(stream_id)
        if stream is None or stream.outbound or stream.acknowledged:
            return
        stream.acknowledged = True
        self._streams.unaccepted -= 1
        self._outbox.owe(stream, Flag.ACK)

    def write(self, stream_id: int, data: Buffer) -> None:
        """Queue bytes; the caller bounds them by `backlog`.

        Raises:
            SessionMisuse: our direction of the stream was finished.
        """
        stream = self._streams.find(stream_id)
        if stream is None:
            return
        if stream.fin_wanted:
            raise SessionMisuse(f"stream {stream_id} is finished for writing")
        if data:
            stream.put(data)
            self._outbox.offer(stream)

    def finish(self, stream_id: int) -> None:
        """FIN behind what was written; once."""
        stream = self._streams.find(stream_id)
        if stream is not None:
            stream.fin_wanted = True
            self._outbox.offer(stream)

    def cancel(self, stream_id: int) -> None:
        """Send nothing of what waits, and no FIN: a reset follows."""
        stream = self._streams.find(stream_id)
        if stream is not None:
            stream.drop_queue()
            stream.fin_wanted = stream.fin_sent
            self._outbox.withdraw(stream)

    def reset(self, stream_id: int, code: int = 0) -> None:
        """Drop the stream and what waits on it, both ways."""
        stream = self._streams.find(stream_id)
        if stream is not None:
            self._lives.reset(stream, code)

    def discard(self, stream_id: int, now: float) -> None:
        """Drop what the peer still sends; yamux has no word to stop it."""
        stream = self._streams.find(stream_id)
        if stream is None:
            self._streams.consume_late(stream_id)
            self._lives.relieve()
        elif not stream.discarding:
            self.consume(stream_id, stream.unconsumed)
            stream.discarding = True
            self._lives.linger(stream, now)

    def consume(self, stream_id: int, count: int) -> None:
        """The application is done with so many bytes: the peer may send as many.

        Raises:
            SessionMisuse: more than the application holds of the stream.
        """
        stream = self._streams.find(stream_id)
        if stream is None:
            self._streams.consume_late(stream_id, count)
            self._lives.relieve()
        elif not stream.discarding:
            if count > stream.unconsumed:
                raise SessionMisuse(f"{count} bytes consumed of {stream.unconsumed}")
            stream.unconsumed -= count
            self._streams.hold(-count)
            self._lives.grant(stream, count)

    def backlog(self, stream_id: int) -> int:
        """Bytes written and not handed to the transport."""
        stream = self._streams.find(stream_id)
        return 0 if stream is None else stream.queued

    def _relieved(self) -> None:
        self._lives.relieve()
        self._on_relief()

    def go_away(self) -> None:
        """Accept no new streams from now on; the live ones go on."""
        if not self._receiver.refusing and not self.dead:
            self._receiver.refusing = True
            self._outbox.go_away()

    def close(self, code: int) -> None:
        """The session ends; `data_to_send` returns a last GO_AWAY with the code."""
        if not self.dead:
            self._die()
            self._outbox.go_away(code)

    def abandon(self) -> None:
        """The connection is gone, and nobody can be told; idempotent. No owner is called back."""
        self._die()
        self._outbox.clear()

    def _die(self) -> None:
        self.dead = True
        self._on_relief = int
        self._open_refused = False
        self._lives.clear()

    # Bytes.

    def receive(self, data: bytes, now: float) -> list[Event]:
        """Bytes of the peer; whatever it is told goes out with `data_to_send`."""
        events: list[Event] = []
        if self.dead:
            return events
        self._heard = now
        self._pings.clock(now)
        try:
            if self._receiver.receive(data, now, events):
                self._die()
        except YamuxError as error:
            self.close(error.code)
            events.append(SessionDead(error))
        self._tell_openable(events)
        return events

    @property
    def more(self) -> bool:
        """True when `receive` left bytes for its next call, which may bring no new ones."""
        return self._receiver.more and not self.dead

    @property
    def wants_to_send(self) -> bool:
        """True when `data_to_send` would return something."""
        if self.dead:
            return bool(self._outbox)
        news = self._open_refused and self._room_to_open
        return bool(self._outbox) or self._pings.due or news

    def data_to_send(self, most: int, now: float) -> tuple[list[Buffer], list[Event]]:
        """Buffers for one gathered write, and what became of the streams.

        Args:
            most: bytes of payload; a frame may be begun while fewer are there. With 0 there is no
                payload, and the rest goes out all the same.
        """
        buffers: list[Buffer] = []
        events: list[Event] = []
        self._pings.clock(now)
        for stream in self._outbox.control(buffers):
            self._lives.opening(stream, now)
        self._pings.answers_sent()
        if self.dead:
            return buffers, events
        for stream, count, fin in self._outbox.payload(most, buffers):
            if count:
                events.append(DataSent(stream.stream_id, count))
                self._lives.watch(stream, now)
            if fin:
                self._lives.fin_went(stream, now)
        if self._pings.due:
            buffers.append(self._pings.question())
        self._tell_openable(events)
        return buffers, events

    def _tell_openable(self, events: list[Event]) -> None:
        if self._open_refused and self._room_to_open:
            self._open_refused = False
            events.append(Openable())

    # Time.

    def next_timer(self) -> float | None:
        """When `handle_timer` wants to be called; None: never."""
        return None if self.dead else min(self._timers(), default=None)

    def _timers(self) -> Iterator[float]:
        limits, pinged = self.limits, self._pings.sent
        if pinged is not None:
            yield max(self._heard, pinged) + limits.ping_timeout
        elif limits.keepalive:
            yield self._heard + limits.keepalive
        question = self._pings.next_timer()
        if question is not None:
            yield question
        yield from self._lives.timers()

    def handle_timer(self, now: float) -> list[Event]:
        """Keepalive, dead peers, streams whose time is over; call it at `next_timer` or later."""
        limits, pinged = self.limits, self._pings.sent
        events: list[Event] = []
        if self.dead:
            return events
        self._pings.clock(now)
        self._lives.expire(now, events)
        if pinged is not None:
            if now >= max(self._heard, pinged) + limits.ping_timeout:
                silent = f"nothing for {limits.ping_timeout:g} s after a PING"
                self._die()
                events.append(SessionDead(YamuxError("silent", silent)))
        elif limits.keepalive and now >= self._heard + limits.keepalive:
            self._outbox.urgent(self._pings.keepalive())
        self._tell_openable(events)
        return events
