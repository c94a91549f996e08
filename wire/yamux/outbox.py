"""What a session has to send, and in which order.

What we owe the peer (credit, acknowledgements, resets, pongs) is kept as state, not as a growing
queue, and goes out before any payload. Payload takes turns, `max_frame` bytes each, bounded by the
peer's credit; no frame is cut short because a write has little room left.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from wire.yamux.frame import Flag, FrameType, GoAway, header
from wire.yamux.limits import Limits
from wire.yamux.stream_state import Buffer, StreamState


class Outbox:
    """What a session has to send, and in which order.

    Args:
        creditable: how much of a stream's ungranted bytes may be granted.
    """

    def __init__(self, limits: Limits, creditable: Callable[[StreamState], int]) -> None:
        self._limits = limits
        self._creditable = creditable
        #: Before anything else; bound: max_pongs pongs, a GO_AWAY, a PING.
        self._urgent: deque[bytes] = deque()
        #: Codes by number on the wire; bound: see `crowded`.
        self._resets: dict[int, int] = {}
        self._refused = 0  # of those, streams the peer may not open
        #: Flags, and credit with them; bound: the live streams.
        self._owed: dict[StreamState, int] = {}
        #: Streams with something to send, in turn.
        self._ready: dict[StreamState, None] = {}

    def __bool__(self) -> bool:
        return bool(self._urgent or self._resets or self._owed or self._ready)

    def urgent(self, frame: bytes) -> None:
        """Send it before anything else."""
        self._urgent.append(frame)

    def go_away(self, code: int = GoAway.NORMAL) -> None:
        """Say so before anything else."""
        self._urgent.append(header(FrameType.GO_AWAY, 0, 0, code))

    def owe(self, stream: StreamState, flags: int = 0) -> None:
        """Send these flags, and what credit there is to grant."""
        self._owed[stream] = self._owed.get(stream, 0) | flags

    def unsent_syn(self, stream: StreamState) -> bool:
        """True when the peer never heard of the stream."""
        return bool(self._owed.get(stream, 0) & Flag.SYN)

    def reset(self, wire_id: int, code: int) -> None:
        """Say that a stream is over."""
        self._resets[wire_id] = code

    def resetting(self, wire_id: int) -> bool:
        """True when the reset of an earlier stream of this number was not sent yet."""
        return wire_id in self._resets

    def refuse(self, wire_id: int) -> None:
        """Say that the peer may not open this one."""
        self._refused += 1
        self._resets.setdefault(wire_id, 0)

    @property
    def crowded(self) -> bool:
        """True when the peer opens streams and does not read what became of them."""
        limits = self._limits
        return (
            self._refused >= limits.max_resets
            or len(self._resets) >= limits.max_resets + limits.max_inbound
        )

    def offer(self, stream: StreamState) -> None:
        """The stream takes its turn, if it has something that may be sent."""
        if stream.sendable:
            self._ready[stream] = None

    def withdraw(self, stream: StreamState) -> None:
        """Send nothing of what waits."""
        self._ready.pop(stream, None)

    def forget(self, stream: StreamState) -> None:
        """The stream is gone."""
        self._owed.pop(stream, None)
        self._ready.pop(stream, None)

    def control(self, buffers: list[Buffer]) -> list[StreamState]:
        """Everything but payload; returns the streams whose SYN is among it."""
        opened: list[StreamState] = []
        buffers.extend(self._urgent)
        self._urgent.clear()
        for wire_id, code in self._resets.items():
            buffers.append(header(FrameType.WINDOW_UPDATE, Flag.RST, wire_id, code))
        self._resets.clear()
        self._refused = 0
        for stream, flags in self._owed.items():
            delta = 0 if stream.fin_received else self._creditable(stream)
            stream.ungranted -= delta
            stream.may_receive += delta
            buffers.append(header(FrameType.WINDOW_UPDATE, flags, stream.wire_id, delta))
            if flags & Flag.SYN:
                opened.append(stream)
        self._owed.clear()
        return opened

    def payload(self, most: int, buffers: list[Buffer]) -> list[tuple[StreamState, int, bool]]:
        """The streams in turn, until about `most` bytes are there or nobody may send.

        Returns the streams that had a turn, how many bytes it was, and whether it was the last.
        """
        turns: list[tuple[StreamState, int, bool]] = []
        ready, quantum = self._ready, self._limits.max_frame
        while ready and most > 0:
            stream = next(iter(ready))
            del ready[stream]
            count = 0
            size = min(stream.queued, stream.may_send, quantum)
            if size:
                pieces, count = stream.take(size)
                stream.may_send -= count
                most -= count
                buffers.append(header(FrameType.DATA, 0, stream.wire_id, count))
                buffers.extend(pieces)
            fin = stream.sendable and not stream.queued
            if fin:
                stream.fin_sent = True
                buffers.append(header(FrameType.WINDOW_UPDATE, Flag.FIN, stream.wire_id, 0))
            turns.append((stream, count, fin))
            self.offer(stream)
        return turns

    def clear(self) -> None:
        """The session is over: nothing that waits is sent."""
        self._urgent.clear()
        self._resets.clear()
        self._owed.clear()
        self._ready.clear()
        self._refused = 0
