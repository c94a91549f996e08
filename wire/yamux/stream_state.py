"""One stream of a session: credit both ways, what waits to be sent, and which ends were seen."""

from __future__ import annotations

from collections import deque
from typing import Final, TypeAlias

from wire.yamux.frame import MAX_NUMBER
from wire.yamux.limits import INITIAL_WINDOW

Buffer: TypeAlias = bytes | bytearray | memoryview

#: Writes below this size share a piece of at most `_PIECE` bytes: a byte alone costs 200.
_CRUMB: Final = 1024
_PIECE: Final = 16 * 1024


class StreamState:
    """State only; the rules are the session's.

    Attributes:
        stream_id: what the session and its owner call the stream.
        wire_id: what it is called on the wire, where numbers come back.
        outbound: we opened it.
        acknowledged: the peer answered our SYN; or we accepted its.
        awaited: ours, and it takes one of the places for streams the peer did not answer.
        may_receive: bytes the peer may still send.
        ungranted: consumed bytes the peer got no credit for yet.
        unconsumed: received bytes the application holds.
        may_send: bytes we may still send.
        queued: bytes that wait for credit or their turn.
        fin_held: our FIN waits for the peer's first answer.
        fin_wanted, fin_sent, fin_received: the ends of both directions.
        discarding: the application wants nothing more; what comes is dropped.
        window: what may_receive + ungranted + unconsumed add up to.
    """

    __slots__ = (
        "_queue",
        "acknowledged",
        "awaited",
        "discarding",
        "fin_held",
        "fin_received",
        "fin_sent",
        "fin_wanted",
        "may_receive",
        "may_send",
        "outbound",
        "queued",
        "stream_id",
        "unconsumed",
        "ungranted",
        "window",
        "wire_id",
    )

    def __init__(self, stream_id: int, *, outbound: bool, window: int) -> None:
        self.stream_id = stream_id
        self.wire_id = stream_id & MAX_NUMBER
        self.outbound = outbound
        self.acknowledged = False
        self.awaited = outbound
        self.window = window
        self.may_receive = INITIAL_WINDOW
        self.ungranted = window - INITIAL_WINDOW
        self.unconsumed = 0
        self.may_send = INITIAL_WINDOW
        self._queue: deque[Buffer] = deque()
        self.queued = 0
        self.fin_held = outbound
        self.fin_wanted = False
        self.fin_sent = False
        self.fin_received = False
        self.discarding = False

    @property
    def sendable(self) -> bool:
        """True when its turn in the round would send something."""
        if self.queued:
            return self.may_send > 0
        return self.fin_wanted and not self.fin_sent and not self.fin_held

    @property
    def stalled(self) -> bool:
        """True when a peer that ended its direction gives no credit for ours."""
        return self.fin_received and self.queued > 0 and not self.may_send

    def put(self, data: Buffer) -> None:
        """Queue a copy of the bytes."""
        queue, size = self._queue, len(data)
        self.queued += size
        if size >= _CRUMB:
            queue.append(memoryview(bytes(data)))
        elif queue and type(queue[-1]) is bytearray and len(queue[-1]) < _PIECE:
            queue[-1] += data
        else:
            queue.append(bytearray(data))

    def take(self, most: int) -> tuple[list[Buffer], int]:
        """Up to `most` queued bytes, and how many; large pieces are not copied."""
        taken: list[Buffer] = []
        queue, left = self._queue, most
        while left and queue:
            piece = queue[0]
            if len(piece) <= left:
                taken.append(piece)
                left -= len(piece)
                queue.popleft()
            else:
                rest = piece if isinstance(piece, memoryview) else memoryview(bytes(piece))
                taken.append(rest[:left])
                queue[0] = rest[left:]
                left = 0
        count = most - left
        self.queued -= count
        return taken, count

    def drop_queue(self) -> None:
        """Send nothing of what waits."""
        self._queue.clear()
        self.queued = 0
