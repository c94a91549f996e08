"""What is told of a pair's stream when it ended: metrics, and a line of the access log."""

from __future__ import annotations

import time

from actors.doors.stream_account import StreamAccount
from actors.edge.context import EdgeContext
from actors.edge.pair_table import PairRow
from actors.edge.splice import Splice
from actors.observe.records import StreamRecord

#: How a stream can have ended.
OUTCOMES = ("finished", "failed", "rejected", "killed", "migrated")


class PairAccount(StreamAccount):
    """The account of one stream between two agents.

    Args:
        began: monotonic seconds, of the OPEN_STREAM or the resume.
        row: who and what, as far as it is known; the provider may follow.
        path: place of its actor.

    Attributes:
        outcome: one of `OUTCOMES`.
        mode: splice or forward.
        opened: it carries bytes.
        splice: whose bytes are counted; None until it is ready.
        returns: how often an agent came back.
    """

    def __init__(self, door: EdgeContext, began: float, row: PairRow, path: str) -> None:
        super().__init__(door.clock, began)
        self._door = door
        self.row = row
        self.path = path
        self.opened = False
        self.mode = "splice"
        self.splice: Splice | None = None
        self.returns = 0
        door.meters.counters["stream_opens_total"] += 1
        door.accounts.add(self)

    def ready(self, now: float, splice: Splice | None = None) -> None:
        """The stream carries bytes from now on."""
        self.splice = splice
        self.opened = True
        self._door.meters.histogram("stream_ready_duration").observe(now - self._began)

    @property
    def seconds(self) -> float:
        """Since it began."""
        return self._clock() - self._began

    def volume(self) -> tuple[int, int]:
        """Bytes from the consumer, and from the provider; 0 for those that no splice carries."""
        up = down = 0
        for side in () if self.splice is None else self.splice.sides:
            if side.uri == self.row.consumer:
                up = side.received
            else:
                down = side.received
        return up, down

    def tell(self, seconds: float) -> None:
        door, row = self._door, self.row
        door.accounts.discard(self)
        if self.mode == "forward":
            door.pairs.over(row, door.clock())
        door.meters.histogram("stream_open_duration").observe(seconds)
        door.meters.family("streams_ended_total", "outcome")[self.outcome] += 1
        up, down = self.volume()
        door.access(
            StreamRecord(
                time.time(),
                f"{row.stream_id:016x}",
                door.relays.settings.relay_id,
                row.tenant,
                row.consumer,
                row.provider,
                row.service,
                row.method,
                self.outcome,
                self.detail,
                self.mode,
                round(seconds, 6),
                up,
                down,
                self.returns,
            )
        )
