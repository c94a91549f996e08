"""One queue for the deadlines of all allocations: permissions, channels, lifetimes, reservations.

What is refreshed stays where it is in the heap and is put back when its old deadline comes: a
refresh costs nothing here, and each thing has one entry.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heapify, heappop, heappush
from itertools import count
from typing import Final

#: Entries that are kept without asking whether they were cancelled.
SWEEP_AT: Final = 1024


class Deadline:
    """Something that ends.

    Attributes:
        expires: monotonic seconds; may be moved later at any time. To have it come earlier, cancel
            it and add another one.
    """

    __slots__ = ("expire", "expires")

    def __init__(self, expires: float, expire: Callable[[], object]) -> None:
        self.expires = expires
        self.expire: Callable[[], object] | None = expire

    def cancel(self) -> None:
        """It does not come; idempotent."""
        self.expire = None


class Deadlines:
    """One queue for the deadlines of all allocations: permissions, channels, lifetimes,
    reservations.

    Bound: one entry per thing; of those that were cancelled as many again, then they are taken out.
    """

    __slots__ = ("_heap", "_serial", "_sweep_at")

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Deadline]] = []
        self._serial = count()
        self._sweep_at = SWEEP_AT

    def __len__(self) -> int:
        return len(self._heap)

    def add(self, deadline: Deadline) -> Deadline:
        """Have it come."""
        if len(self._heap) >= self._sweep_at:
            self._heap = [one for one in self._heap if one[2].expire is not None]
            heapify(self._heap)
            self._sweep_at = max(SWEEP_AT, 2 * len(self._heap))
        heappush(self._heap, (deadline.expires, next(self._serial), deadline))
        return deadline

    def next(self) -> float | None:
        """When to call `run`, or earlier than anything will happen; None: never."""
        heap = self._heap
        while heap and heap[0][2].expire is None:
            heappop(heap)
        return heap[0][0] if heap else None

    def run(self, now: float, most: int = 256) -> None:
        """Expire what is due, at most so many."""
        while self._heap and self._heap[0][0] <= now and most > 0:
            _, _, deadline = heappop(self._heap)
            expire = deadline.expire
            if expire is None:
                continue
            if deadline.expires > now:
                self.add(deadline)
                continue
            most -= 1
            deadline.expire = None
            expire()
