"""Message traces that end by themselves: by count, by rate and by age.

Source: docs/runtime.md section 9.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from loguru import logger

if TYPE_CHECKING:
    from .cell import Cell


@dataclass(slots=True)
class TraceRecord:
    """One message an actor began to handle. Types only, never payload."""

    at: float
    path: str
    incarnation: int
    message_type: str
    depth: int


class Tracer:
    """Shared by all actors of one trace; detaches itself when it is used up."""

    __slots__ = ("_emit", "_ends", "_left", "_rate", "_second", "_this_second", "skipped")

    def __init__(
        self, emit: Callable[[TraceRecord], None], *, limit: int, rate: int, ends: float
    ) -> None:
        self._emit = emit
        self._left = limit
        self._rate = rate
        self._ends = ends
        self._second = 0
        self._this_second = 0
        self.skipped = 0

    def finished(self, now: float) -> bool:
        """True once count or age are used up."""
        return self._left <= 0 or now >= self._ends

    def stop(self) -> None:
        """Emit nothing more; each actor drops the trace at its next message."""
        self._left = 0

    def record(self, cell: Cell, message: object) -> None:
        """Emit one record, unless over the rate; detach from the cell when finished."""
        now = cell.system.loop.time()
        if self.finished(now):
            cell.tracer = None
            return
        second = int(now)
        if second != self._second:
            self._second, self._this_second = second, 0
        self._this_second += 1
        if self._this_second > self._rate:
            self.skipped += 1
            return
        self._left -= 1
        record = TraceRecord(
            now, cell.path, cell.incarnation, type(message).__name__, len(cell.mailbox.queue)
        )
        try:
            self._emit(record)
        except Exception:  # noqa: BLE001  # a broken observer must not hurt what it observes
            logger.exception("trace receiver failed; the trace ends")
            self._left = 0
