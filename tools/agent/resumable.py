"""A stream that outlives the connections it travels on.

To the pump it is one stream. Below it is the present stream of a relay connection, or none: then it
is *parked*, takes no bytes, and waits for the link to bring it back. Positions count application
bytes from the start, per direction. What was sent is kept in a ring until the other agent has said
that it received it; what the other agent lacks after a resume is sent again, and so is a FIN.

A reset by the other agent is never resumed. Lost connections and a relay that lost the pair
(RELAY_FAULT) are. What is said of a path (code NONE: it is left for another one) ends with that
path: the stream waits for the next one; on a relay's path bytes may still come meanwhile, and the
keeper's patience is the limit. After a clean end the stream *lingers* until the other agent has
confirmed all bytes and the FIN with a checkpoint, because a relay that dies now takes what it had
not passed on with it.

Source: protocol sheet ORP 3.6 to 3.8; 6.5 A1, A3, A4.
"""

from __future__ import annotations

import asyncio
from collections import deque

from actors.transport.stream import CloseReason, Stream
from tools.agent.stream_table import StreamTable
from wire.orp.close_codes import ResetCode
from wire.orp.messages import StreamCheckpoint, StreamResume, StreamTerms
from wire.orp.replay import ReplayPositions, ReplayRing

#: Sent bytes kept per stream; the oldest are dropped.
RING_BYTES = 16 << 20


class ResumableStream(Stream):
    """A stream that outlives the connections it travels on.

    Args:
        stream: the first path, paused.
        stream_id: of the whole stream, never 0.
        received: application bytes of it that were delivered already.
    """

    def __init__(
        self, stream: Stream, stream_id: int, table: StreamTable, *, received: int = 0
    ) -> None:
        super().__init__()
        self.stream_id = stream_id
        self.connection = stream.connection
        #: Seconds it may stay parked; None: as long as the settings say.
        self.patience: float | None = None
        #: Monotonic seconds since when it has no path; 0: it has one.
        self.parked_at = 0.0
        self.resumes = 0
        self._table = table
        self._at = ReplayPositions(ReplayRing(RING_BYTES, table.budget), received)
        #: Of the ring, what the present path was not given yet: it takes what it has room for.
        self._behind: deque[bytes | memoryview] = deque()
        self._path: Stream | None = None
        self._path_done = False
        #: The relay's path while another one is tried, and how much it was given.
        self._former: Stream | None = None
        self._former_sent = 0
        #: Of what it brought, consumed meanwhile: it gets the credit if the stream comes back.
        self._former_consumed = 0
        self._direct = False
        self._awaited: tuple[int, asyncio.Future[None]] | None = None
        #: URI of the other agent; empty while it is not known.
        self.peer = ""
        #: What it was opened for, and with whom; None while that is not known.
        self.terms: StreamTerms | None = None
        self._running = False
        self._eof_sent = False
        self._eof_received = False
        #: Delivered by a lost path while the pump was paused. Bound: one stream window.
        self._held: list[bytes] = []
        self._held_eof = False
        self._lingering = False
        self._deaf = False  # the other side wants nothing more
        self._stopped = False  # we want nothing more
        self._over = False
        #: Delivered by an older path and not consumed: no credit for it on this one.
        self._stale = 0
        self._unconsumed = received
        table.streams[stream_id] = self
        self._take(stream)

    # Paths.

    @property
    def parked(self) -> bool:
        """True while it waits for a new path."""
        return self.pathless and self._former is None

    @property
    def pathless(self) -> bool:
        """True while it has no path: parked, or on its way to another one."""
        return self._path is None and not self._over

    @property
    def movable(self) -> bool:
        """True when another path would be of use."""
        return (
            self._path is not None
            and not self._over
            and not self._direct
            and not (self._eof_sent and self._eof_received)
        )

    def suspend(self) -> bool:
        """Leave the path for another one, until `return_` or `rollback`. False: there is none.

        Nothing is lost: what the path still brings is held by it, what is written is kept.
        """
        path = self._path
        if path is None or self._over:
            return False
        self._path, self._former = None, path
        self._former_sent = self.sent - sum(map(len, self._behind))
        self._former_consumed = 0
        self._behind.clear()
        path.pause()
        path.forget_callbacks()
        return True

    def rollback(self) -> None:
        """The other path did not come about: go on where it was."""
        former, self._former = self._former, None
        if former is None or self._over:
            return
        replay = self._at.ring.since(self._former_sent)
        self._take(former)
        if former.connection.closed is not None or replay is None:
            self.park()
            return
        if self._former_consumed:
            former.consume(self._former_consumed)
        self._behind = deque(replay)
        self._catch_up()
        if self._running:
            former.start()
        self.on_drain(0)

    def take_former(self) -> Stream | None:
        """The path it left, for an owner who ends it."""
        former, self._former = self._former, None
        return former

    @property
    def sent(self) -> int:
        """Application bytes ever written."""
        return self._at.sent

    @property
    def received(self) -> int:
        """Application bytes that ever came from the other agent."""
        return self._at.received

    def positions(self) -> StreamResume:
        """What the other side has to know to go on."""
        return self._at.resume(self.stream_id)

    def claim(self) -> StreamResume:
        """The same for a relay, which judges by the terms whether it may be joined again."""
        return self._at.resume(self.stream_id, self.terms)

    def checkpoint(self) -> StreamCheckpoint:
        """What the other agent wants to hear."""
        return StreamCheckpoint(self.stream_id, self.sent, self.received, self._eof_received)

    def acknowledged(self, received: int, *, ended: bool) -> None:
        """The other agent received so many bytes, no longer kept here, and our FIN if `ended`."""
        self._at.confirm(received, ended=ended)
        self._end_if_confirmed()

    @property
    def lingering(self) -> bool:
        """True when the pump is through, and the other agent may not have everything yet."""
        return self._lingering and not self._over

    @property
    def _writable(self) -> bool:
        """True while the path takes bytes: the other agent may have left it unheard."""
        path = self._path
        return path is not None and (self._eof_sent or not path.write_closed)

    def still_on(self, path: Stream) -> bool:
        """True while this is its path."""
        return self._path is path and not self._over

    def _take(self, path: Stream) -> None:
        self._path = path
        self.connection = path.connection
        path.on_data = self._data
        path.on_eof = self._eof
        path.on_reset = self._reset_by_peer
        path.on_stop_sending = self._stop_by_peer
        path.on_drain = self._drained
        path.on_lost = self._lost
        path.on_finished = self._path_finished
        if not self._writable:
            self._left_by_peer()

    def return_(
        self, path: Stream, echo: StreamResume, rest: bytes, *, direct: bool = False
    ) -> bool:
        """Go on over a new path, paused behind the echo. False: the positions do not fit.

        Args:
            direct: it leads to the other agent, and what arrives there is there.
            rest: application bytes that came with the echo, not consumed.
        """
        replay = self._at.ring.since(echo.peer_ack_position)
        if replay is None or not self._at.fits(echo.my_position, echo.peer_ack_position):
            return False
        if direct:
            self._at.ring.trim(echo.peer_ack_position)  # a relay may lose again what it took
        self.parked_at = 0.0
        self.resumes += 1
        self._direct = direct
        self._stale = self._unconsumed
        self._path_done = False
        self._behind = deque(replay)
        self._take(path)
        if self._deaf:
            self._behind.clear()
            path.reset(ResetCode.UNWANTED)
        else:
            self._catch_up()
        if self._stopped:
            path.stop_sending(ResetCode.UNWANTED)
        if rest:
            self._data(rest)
        if self._running and self._path is path and not self._held:
            path.start()
        self.on_drain(0)  # there is room again
        return True

    def _catch_up(self) -> None:
        """Send again what the path has room for; a FIN follows the last of it."""
        path = self._path
        if path is None or path.write_closed:
            return
        while self._behind and path.room > 0:
            path.write(self._behind.popleft())
        if not self._behind and self._eof_sent:
            path.write_eof()

    def fail(self, reason: CloseReason) -> None:
        """It will not come back."""
        if not self._over:
            self._end()
            self.on_lost(reason)

    def park(self) -> None:
        """The path is dead: wait for another one."""
        if self._over or self._path is None:
            return
        path, self._path = self._path, None
        self._behind.clear()
        path.forget_callbacks()
        # The relay believes that we have these: its transport was told so.
        unread, ended = path.unread()
        path.abort(ResetCode.RELAY_FAULT)
        for chunk in unread:
            self._at.received += len(chunk)
            self._unconsumed += len(chunk)
            self._held.append(chunk)
        self._held_eof = self._held_eof or (ended and not self._eof_received)
        self.parked_at = -1.0  # the link sets the clock
        if self._table.on_parked is not None:
            self._table.on_parked(self)

    def _end(self) -> None:
        self._over = True
        self._behind.clear()
        former, self._former = self._former, None
        if former is not None:
            former.abort(ResetCode.SOURCE_FAILED)
        if self._eof_received and self._eof_sent:
            # What is in `moved` stays there: the other agent waits for the last checkpoint.
            self._table.remember(self.stream_id, self.sent, self.received)
        else:
            self._table.moved.pop(self, None)
        self._at.ring.clear()
        self._table.streams.pop(self.stream_id, None)

    @property
    def awaited(self) -> bool:
        """True while somebody waits in `reached`."""
        return self._awaited is not None

    async def reached(self, position: int) -> None:
        """Wait until so much was received; one waiter at a time."""
        if self.received < position:
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._awaited = (position, future)
            try:
                await future
            finally:
                self._awaited = None

    # From the path.

    def _data(self, chunk: bytes) -> None:
        self._at.received += len(chunk)
        awaited = self._awaited
        if awaited is not None and self.received >= awaited[0] and not awaited[1].done():
            awaited[1].set_result(None)
        self._unconsumed += len(chunk)
        self._table.moved[self] = None
        if self._held or not self._running:
            self._held.append(chunk)
            return
        self.bytes_in += len(chunk)
        self.on_data(chunk)

    def _eof(self) -> None:
        if not self._eof_received:
            self._eof_received = True
            self._table.moved[self] = None
            if self._table.on_ended is not None:
                self._table.on_ended()  # the other agent waits for this checkpoint
            self.on_eof()

    def _path_finished(self) -> None:
        self._path_done = True
        self._end_if_confirmed()

    def _end_if_confirmed(self) -> None:
        confirmed = self._direct or self._at.has_everything(fin=True)
        if self._lingering and self._path_done and confirmed:
            self._end()

    def _reset_by_peer(self, code: int) -> None:
        if code in (ResetCode.RELAY_FAULT, ResetCode.NONE):
            self.park()
        else:
            self._end()
            self.on_reset(code)

    def _stop_by_peer(self, code: int) -> None:
        if code == ResetCode.RELAY_FAULT or (code == ResetCode.NONE and self._direct):
            self.park()
        elif code == ResetCode.NONE:
            # What it sent by the relay still comes, and decides when the other path may be taken.
            self._behind.clear()
            self._left_by_peer()
        else:
            self._deaf = True
            self._behind.clear()
            self.on_stop_sending(code)

    def _left_by_peer(self) -> None:
        if self._path is not None and self._table.on_left is not None:
            self._table.on_left(self, self._path)

    def _drained(self, count: int) -> None:
        if self._behind:
            self._catch_up()
        self.on_drain(count)

    def _lost(self, reason: CloseReason) -> None:
        self.park()

    # The stream.

    def forget_callbacks(self) -> None:
        """The pump is through. After a clean end the other agent may still have to be served."""
        super().forget_callbacks()
        clean = self._eof_sent and self._eof_received and not self._over
        if not clean:
            self._end()
            if self._path is not None:
                self._path.forget_callbacks()
        elif not self._lingering:
            self._lingering = True
            self._end_if_confirmed()
            if not self._over and self._table.on_lingering is not None:
                self._table.on_lingering(self)

    def linger_over(self) -> None:
        """The other agent said nothing in time: it got everything, or it will not come."""
        if self._lingering:
            self._end()

    def path_lost(self) -> None:
        """The connection of its path is gone, after the path itself was through."""
        if self._lingering and self._path_done:
            self.park()

    def start(self) -> None:
        self._running = True
        while self._running and self._held:
            self.bytes_in += len(self._held[0])
            self.on_data(self._held.pop(0))
        if self._running and self._held_eof:
            self._held_eof = False
            self._eof()
        if self._running and self._path is not None:
            self._path.start()

    def pause(self) -> None:
        self._running = False
        if self._path is not None:
            self._path.pause()

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """See `Stream.write`; what is written while parked is sent after the resume."""
        chunk = bytes(data)
        self._at.ring.append(chunk)
        self.bytes_out += len(chunk)
        self._table.moved[self] = None
        if self._path is None or not self._writable:
            return 0
        if self._behind:
            self._behind.append(chunk)  # bound: the ring's, and the writer hears of no room
            return 0
        return self._path.write(chunk)

    def write_eof(self) -> None:
        self._eof_sent = True
        if self._path is not None and not self._behind:
            self._path.write_eof()  # harmless on a path that takes nothing any more

    def reset(self, code: int) -> None:
        self._eof_sent = True
        self._behind.clear()
        if self._path is not None:
            self._path.reset(code)

    def stop_sending(self, code: int) -> None:
        self._stopped = True
        if self._path is not None:
            self._path.stop_sending(code)

    def consume(self, count: int) -> None:
        self._unconsumed -= count
        stale = min(self._stale, count)
        self._stale -= stale
        if self._path is not None and count > stale:
            self._path.consume(count - stale)
        elif self._former is not None:
            self._former_consumed += count - stale

    def abort(self, code: int = ResetCode.SOURCE_FAILED) -> None:
        path = self._path
        super().forget_callbacks()
        self._end()
        if path is not None:
            path.abort(code)

    @property
    def backlog(self) -> int:
        """See `Stream.backlog`; while parked nothing is certain to have arrived."""
        if self._path is None or self._behind or not self._writable:
            return 1
        return self._path.backlog

    @property
    def unconsumed(self) -> int:
        return self._unconsumed

    @property
    def room(self) -> int:
        """See `Stream.room`; none while parked."""
        if self._path is None or self._behind or not self._writable:
            return 0
        return self._path.room

    @property
    def read_closed(self) -> bool:
        return self._eof_received or self._stopped or self._over

    @property
    def write_closed(self) -> bool:
        return self._eof_sent or self._deaf or self._over
