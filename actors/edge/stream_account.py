"""What is said about a stream when it ended: metrics, and a line of the access log.

A resource of the pair's actor, so that it is said however the actor ends.
"""

from __future__ import annotations

import time

from actors.edge.context import EdgeContext
from actors.edge.pair_table import PairRow
from actors.edge.splice import Splice
from actors.observe.records import StreamRecord

#: How a stream can have ended.
OUTCOMES = ("finished", "failed", "rejected", "killed", "migrated")


class StreamAccount:
    """See the module docstring.

    Args:
        began: monotonic seconds, of the OPEN_STREAM or the resume.
        row: who and what, as far as it is known; the provider may follow.

    Attributes:
        outcome: one of `OUTCOMES`; killed until somebody says otherwise.
        detail: why.
        mode: splice or forward.
        splice: whose bytes are counted; None until it is ready.
        returns: how often an agent came back.
    """

    def __init__(self, door: EdgeContext, began: float, row: PairRow) -> None:
        self._door = door
        self._began = began
        self.row = row
        self.outcome = "killed"
        self.detail = ""
        self.mode = "splice"
        self.splice: Splice | None = None
        self.returns = 0
        self._told = False
        door.meters.counters["stream_opens_total"] += 1

    def ready(self, now: float, splice: Splice | None = None) -> None:
        """The stream carries bytes from now on."""
        self.splice = splice
        self._door.meters.histogram("stream_ready_duration").observe(now - self._began)

    def abort(self) -> None:
        """The pair's actor ended; idempotent."""
        if self._told:
            return
        self._told = True
        door, row = self._door, self.row
        seconds = door.clock() - self._began
        if self.mode == "forward":
            door.pairs.over(row, door.clock())
        door.meters.histogram("stream_open_duration").observe(seconds)
        door.meters.family("streams_ended_total", "outcome")[self.outcome] += 1
        up = down = 0
        for side in () if self.splice is None else self.splice.sides:
            if side.uri == row.consumer:
                up = side.received
            else:
                down = side.received
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
