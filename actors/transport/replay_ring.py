"""The last bytes sent towards an agent, kept in case its connection is lost.

An agent that comes back says how much its application received; what it lacks is replayed from
here. The transport's acknowledgement is not enough to drop a byte: it may still lie unread in the
agent, at most one stream window of it. So the ring keeps that much, or less when the agent says
with a checkpoint how far it read.

All rings of a door share one budget. When it is used up rings forget their oldest bytes earlier,
and a stream whose lost bytes are forgotten is resumed from the agents' own rings, or fails.

Source: protocol sheet ORP 3.6, 3.8; 6.1 R4.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass


@dataclass(slots=True)
class RingBudget:
    """Bytes in all rings of a door.

    Attributes:
        limit: most bytes in all rings; a ring that would exceed it forgets old bytes first.
        used: bytes in all rings now.
    """

    limit: int
    used: int = 0


class ReplayRing:
    """See the module docstring. Holds references to chunks, and copies nothing.

    Args:
        limit: most bytes of this ring; the oldest chunk beyond it is forgotten.
        budget: shared.
        start: position of the first byte in the stream.
    """

    __slots__ = ("_budget", "_chunks", "_limit", "_size", "end")

    def __init__(self, limit: int, budget: RingBudget, start: int = 0) -> None:
        self._limit = limit
        self._budget = budget
        self._chunks: deque[bytes | memoryview] = deque()
        self._size = 0
        self.end = start  #: position behind the newest byte

    @property
    def start(self) -> int:
        """Position of the oldest byte that can be replayed."""
        return self.end - self._size

    def append(self, chunk: bytes) -> None:
        """These bytes were sent."""
        size = len(chunk)
        self.end += size
        self._size += size
        budget = self._budget
        budget.used += size
        self._chunks.append(chunk)
        if self._size > self._limit or budget.used > budget.limit:
            self._forget()

    def _forget(self) -> None:
        budget, chunks = self._budget, self._chunks
        while chunks and (self._size > self._limit or budget.used > budget.limit):
            size = len(chunks.popleft())
            self._size -= size
            budget.used -= size

    def trim(self, position: int) -> None:
        """The agent's application received everything before `position`."""
        chunks = self._chunks
        while chunks and self.start + len(chunks[0]) <= position:
            size = len(chunks.popleft())
            self._size -= size
            self._budget.used -= size

    def since(self, position: int) -> list[bytes | memoryview] | None:
        """The bytes from `position` on; None: not all of them are here."""
        if not self.start <= position <= self.end:
            return None
        skip = position - self.start
        result: list[bytes | memoryview] = []
        for chunk in self._chunks:
            if skip >= len(chunk):
                skip -= len(chunk)
            else:
                result.append(memoryview(chunk)[skip:] if skip else chunk)
                skip = 0
        return result

    def clear(self) -> None:
        """Nothing will be replayed any more."""
        self._budget.used -= self._size
        self._size = 0
        self._chunks.clear()
