"""A bounded queue between something observed and the task that tells an operator about it."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")


class Feed(Generic[T]):
    """Items wait here for one reader; at the bound the newest is dropped and counted.

    Args:
        bound: items kept.
    """

    __slots__ = ("_bound", "_items", "_lost", "_waiter", "lost_total")

    def __init__(self, bound: int) -> None:
        self._bound = bound
        self._items: deque[T] = deque()
        self._lost = 0
        self._waiter: asyncio.Future[None] | None = None
        #: All that were dropped so far.
        self.lost_total = 0

    def offer(self, item: T) -> None:
        """Queue one item, or count it as lost."""
        if len(self._items) >= self._bound:
            self._lost += 1
            self.lost_total += 1
            return
        self._items.append(item)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def take(self, most: int) -> tuple[list[T], int]:
        """Wait for items: at most `most` of them, and how many were lost after them."""
        while not self._items and not self._lost:
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        items = [self._items.popleft() for _ in range(min(most, len(self._items)))]
        if self._items:
            return items, 0
        lost, self._lost = self._lost, 0
        return items, lost
