"""Receive windows of one native connection: who may send how much more. Pure.

Streams. The peer may send up to a limit that is a window beyond what was *consumed*. Limits are
announced in steps of a quarter window, in frames that `packets` carries. The packet core
does not know these frames, so their loss is noticed here: a sender that did not hear of a new
limit stops exactly at an older one. A stream that stands there is announced again, with doubling
pauses.

Connection. The core grants connection credit as data is taken out of it; nothing is taken out while
`held` is true. That begins a little beyond the connection window, and ends when no more than the
window is delivered and not consumed: what a hold lets through comes in batches (decision 87).

Source: RFC 9000 sections 4.1, 4.2, 13.3, 19.10.
"""

from __future__ import annotations

#: A limit is announced when it moved by this part of the window.
ANNOUNCE_FRACTION = 4
#: A hold begins when so much of the connection window, beyond it, is delivered and not consumed.
HOLD_FRACTION = 16
#: First pause before a limit is announced again, seconds; doubled up to the second value.
REPEAT_SECONDS = 0.05
LONGEST_PAUSE = 2.0
#: Repetitions without any progress; by then the idle timeout has decided.
MAX_REPEATS = 12
_MAX_STREAM_DATA = 0x11
#: Type, stream id and limit at their longest.
_FRAME_BYTES = 17


class _Stream:
    """One receive half.

    `floor` is the smallest limit that the peer may be stopped at: every smaller one was passed.
    """

    __slots__ = ("announced", "closing", "consumed", "floor", "limit", "received")

    def __init__(self, window: int) -> None:
        self.received = self.consumed = 0
        self.limit = self.floor = window
        self.announced: list[int] = []  # beyond `floor`; bound: window / step + 1
        self.closing = False  # nobody reads it any more: no further limits

    @property
    def stopped(self) -> bool:
        """True when the peer may not know of the newest limit."""
        return bool(self.announced) and self.received == self.floor and not self.closing


class ReceiveFlow:
    """Receive windows of one native connection: who may send how much more.

    Args:
        stream_window, connection_window: bytes.
    """

    __slots__ = (
        "_announced_at",
        "_ceiling",
        "_connection_window",
        "_due",
        "_held",
        "_repeat_at",
        "_repeats",
        "_round_trip",
        "_step",
        "_stopped",
        "_streams",
        "_unconsumed",
        "_window",
    )

    def __init__(self, stream_window: int, connection_window: int) -> None:
        self._window = stream_window
        self._step = max(1, stream_window // ANNOUNCE_FRACTION)
        self._connection_window = connection_window
        self._ceiling = connection_window + connection_window // HOLD_FRACTION
        self._held = False
        self._streams: dict[int, _Stream] = {}
        self._unconsumed = 0
        #: Streams whose limit is to be announced, in order.
        self._due: dict[int, None] = {}
        #: Streams that stand at an older limit.
        self._stopped: set[int] = set()
        self._repeat_at: float | None = None
        self._repeats = 0
        #: Time and smoothed RTT of the latest announcement.
        self._announced_at = self._round_trip = 0.0

    @property
    def held(self) -> bool:
        """True while the connection window is used up: take no data out of the core."""
        return self._held

    @property
    def room(self) -> int:
        """Bytes that may be delivered before `held`; negative while it is."""
        return -1 if self._held else self._ceiling - self._unconsumed

    @property
    def unconsumed(self) -> int:
        """Delivered and unconsumed bytes of all streams."""
        return self._unconsumed

    @property
    def due(self) -> bool:
        """True when `frames` has something to say."""
        return bool(self._due)

    def received(self, stream_id: int, count: int) -> bool:
        """In-order bytes were delivered. False: they are beyond the stream's limit."""
        stream = self._streams.get(stream_id)
        if stream is None:
            stream = self._streams[stream_id] = _Stream(self._window)
        stream.received += count
        self._unconsumed += count
        if self._unconsumed > self._ceiling:
            self._held = True
        if stream.received > stream.limit:
            return False
        while stream.received > stream.floor:
            stream.floor = stream.announced.pop(0)
        if stream.stopped:
            # It came to its limit after the newer one was announced, and may not have heard of it.
            self._stopped.add(stream_id)
            self._set_repeat()
        elif stream_id in self._stopped:
            self._progress(stream_id)
        return True

    def consumed(self, stream_id: int, count: int) -> None:
        """The reader is through with `count` bytes; more than there are counts as all."""
        stream = self._streams.get(stream_id)
        if stream is None:
            return
        count = min(count, stream.received - stream.consumed)
        stream.consumed += count
        self._release(count)
        if not stream.closing and stream.consumed + self._window - stream.limit >= self._step:
            stream.limit = stream.consumed + self._window
            self._due[stream_id] = None

    def _release(self, count: int) -> None:
        self._unconsumed -= count
        if self._held and self._unconsumed <= self._connection_window:
            self._held = False

    def release_credit(self, stream_id: int) -> None:
        """Nobody reads what is left, or what may still come."""
        stream = self._streams.get(stream_id)
        if stream is None:
            return
        stream.closing = True
        self._release(stream.received - stream.consumed)
        stream.consumed = stream.received
        self._due.pop(stream_id, None)
        self._progress(stream_id)

    def ended(self, stream_id: int) -> None:
        """FIN or RESET came: no limit matters any more; what was delivered is still read."""
        stream = self._streams.get(stream_id)
        if stream is not None:
            stream.closing = True
            self._due.pop(stream_id, None)
            self._progress(stream_id)

    def forget(self, stream_id: int) -> None:
        """Both halves are finished."""
        self.release_credit(stream_id)
        self._streams.pop(stream_id, None)

    def asked(self, stream_id: int) -> None:
        """The peer says that it is stopped there (STREAM_DATA_BLOCKED)."""
        stream = self._streams.get(stream_id)
        if stream is not None and stream.announced and not stream.closing:
            self._due[stream_id] = None

    def frames(self, now: float, round_trip: float, room: int) -> bytes:
        """MAX_STREAM_DATA frames of at most `room` bytes; call again while `due`."""
        result = bytearray()
        while self._due and len(result) + _FRAME_BYTES <= room:
            stream_id = next(iter(self._due))
            del self._due[stream_id]
            stream = self._streams[stream_id]
            if not stream.announced or stream.announced[-1] != stream.limit:
                stream.announced.append(stream.limit)
            result.append(_MAX_STREAM_DATA)
            result += _varint(stream_id) + _varint(stream.limit)
            if stream.stopped:
                self._stopped.add(stream_id)
        self._announced_at, self._round_trip = now, round_trip
        if self._stopped:
            self._set_repeat()
        return bytes(result)

    def _set_repeat(self) -> None:
        if self._repeat_at is None:
            pause = max(REPEAT_SECONDS, 3 * self._round_trip) * 2.0**self._repeats
            self._repeat_at = self._announced_at + min(LONGEST_PAUSE, pause)

    def next_timer(self) -> float | None:
        """When to call `handle_timer`."""
        return self._repeat_at

    def handle_timer(self, now: float) -> None:
        """Announce again what stopped peers may not have heard."""
        if self._repeat_at is None or now < self._repeat_at:
            return
        self._repeat_at = None
        if self._stopped and self._repeats < MAX_REPEATS:
            self._repeats += 1
            self._due.update(dict.fromkeys(sorted(self._stopped)))

    def _progress(self, stream_id: int) -> None:
        self._stopped.discard(stream_id)
        self._repeats = 0
        if not self._stopped:
            self._repeat_at = None


def _varint(value: int) -> bytes:
    """RFC 9000 section 16."""
    if value < 1 << 6:
        return value.to_bytes(1, "big")
    if value < 1 << 14:
        return (value | 1 << 14).to_bytes(2, "big")
    if value < 1 << 30:
        return (value | 2 << 30).to_bytes(4, "big")
    return (value | 3 << 62).to_bytes(8, "big")
