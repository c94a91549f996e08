"""The watches of the served controller: who is told what, through bounded queues.

A watch is subscribed before its snapshot is taken, and both happen in one step of the loop, so no
change falls between (R29). Its queue holds `WATCH_QUEUE` changes; one more ends the watch with
`ABORTED`, and its caller begins anew with a snapshot: it is never told half of what happened.

Source: protocol sheet ORP 4.1 (Watch); 6.2 R29.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

E = TypeVar("E")


class WatchEnded(Exception):
    """Nothing more comes. `dropped`: because its reader was too slow."""

    def __init__(self, why: str, *, dropped: bool = False) -> None:
        super().__init__(why)
        self.dropped = dropped


class Watch(Generic[E]):
    """One subscription: what its reader has not read. Made by `Watches.open`."""

    def __init__(self, wanted: Callable[[E], bool], limit: int) -> None:
        self.wanted = wanted
        self._limit = limit
        #: Bound: `limit`; one more drops the watch.
        self._queue: deque[E] = deque()
        self._wake = asyncio.Event()
        self._ended: WatchEnded | None = None

    def put(self, event: E) -> bool:
        """Queue a change. False: the queue was full, the watch is over."""
        if self._ended is not None:
            return True
        if len(self._queue) >= self._limit:
            self._queue.clear()
            self.end(WatchEnded("watcher dropped (slow consumer)", dropped=True))
            return False
        self._queue.append(event)
        self._wake.set()
        return True

    def end(self, why: WatchEnded) -> None:
        """Nothing more comes; what is queued is still read."""
        if self._ended is None:
            self._ended = why
            self._wake.set()

    async def get(self) -> E:
        """The next change. Raises `WatchEnded`.

        Waits without a deadline: a reader that is gone is found by the connection's keepalive,
        which cancels this.
        """
        while not self._queue:
            if self._ended is not None:
                raise self._ended
            self._wake.clear()
            await self._wake.wait()
        return self._queue.popleft()


class Watches(Generic[E]):
    """All subscriptions to one kind of change.

    Args:
        limit: changes waiting for one reader.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._open: set[Watch[E]] = set()
        self.dropped = 0

    def __len__(self) -> int:
        return len(self._open)

    def open(self, wanted: Callable[[E], bool]) -> Watch[E]:
        """Subscribe; the bound on their number is the caller's."""
        watch = Watch(wanted, self._limit)
        self._open.add(watch)
        return watch

    def close(self, watch: Watch[E]) -> None:
        """Unsubscribe; idempotent."""
        self._open.discard(watch)

    def publish(self, events: Iterable[E]) -> None:
        """Tell everybody who wants it."""
        for event in events:
            for watch in list(self._open):
                if watch.wanted(event) and not watch.put(event):
                    self._open.discard(watch)
                    self.dropped += 1

    def end_all(self, why: str) -> None:
        """The controller stops."""
        for watch in self._open:
            watch.end(WatchEnded(why))
        self._open.clear()
