"""One stream of a session: credit both ways, what waits to be sent, and which ends were seen."""

from __future__ import annotations

from collections import deque

from wire.yamux.limits import INITIAL_WINDOW


class StreamState:
    """State only; the rules are the session's.

    Attributes:
        outbound: we opened it.
        acknowledged: the peer answered our SYN; or we accepted its.
        may_receive: bytes the peer may still send.
        ungranted: consumed bytes the peer got no credit for yet.
        unconsumed: received bytes the application holds.
        may_send: bytes we may still send.
        queue, queued: what waits for credit or its turn.
        fin_wanted, fin_sent, fin_received: the ends of both directions.
        discarding: the application wants nothing more; what comes is dropped.
        window: what may_receive + ungranted + unconsumed add up to; `grown` is announced later.
        linger_until: when a peer that goes on sending is reset; 0: not yet.
    """

    __slots__ = (
        "acknowledged",
        "discarding",
        "fin_received",
        "fin_sent",
        "fin_wanted",
        "linger_until",
        "may_receive",
        "may_send",
        "outbound",
        "queue",
        "queued",
        "stream_id",
        "unconsumed",
        "ungranted",
        "window",
    )

    def __init__(self, stream_id: int, *, outbound: bool, window: int) -> None:
        self.stream_id = stream_id
        self.outbound = outbound
        self.acknowledged = False
        self.window = window
        self.may_receive = INITIAL_WINDOW
        self.ungranted = window - INITIAL_WINDOW
        self.unconsumed = 0
        self.may_send = INITIAL_WINDOW
        self.queue: deque[memoryview] = deque()
        self.queued = 0
        self.fin_wanted = False
        self.fin_sent = False
        self.fin_received = False
        self.discarding = False
        self.linger_until = 0.0

    @property
    def sendable(self) -> bool:
        """True when its turn in the round would send something."""
        if self.fin_sent:
            return False
        return (self.queued > 0 and self.may_send > 0) or (self.fin_wanted and not self.queued)

    def take(self, most: int) -> tuple[list[memoryview], int]:
        """Up to `most` queued bytes, without copying, and how many."""
        taken: list[memoryview] = []
        left = most
        while left and self.queue:
            chunk = self.queue[0]
            if len(chunk) <= left:
                taken.append(chunk)
                left -= len(chunk)
                self.queue.popleft()
            else:
                taken.append(chunk[:left])
                self.queue[0] = chunk[left:]
                left = 0
        count = most - left
        self.queued -= count
        return taken, count
