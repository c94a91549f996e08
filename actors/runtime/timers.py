"""One deadline queue for the timers of every actor, behind a single loop timer.

A loop timer per actor costs a heap entry and a handle each; with a hundred thousand actors
that is the largest structure in the process. Here deadlines are grouped into ticks of
`RESOLUTION` seconds, always rounded up: a timer never fires early, and at most one resolution
plus the loop's own lag late. Adding to and cancelling from a tick that exists is a dictionary
operation; only a new tick touches the sorted index.

Bound: one entry per live timer; owners bound their own. Callbacks run in deadline order, in
the order of insertion within a tick, at most `BATCH` per loop iteration.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from loguru import logger
from sortedcontainers import SortedDict

RESOLUTION = 0.005
BATCH = 512


class Timer:
    """One pending deadline. `callback` is None once it fired or was cancelled."""

    __slots__ = ("callback", "tick")

    def __init__(self, tick: int, callback: Callable[[], None]) -> None:
        self.tick = tick
        self.callback: Callable[[], None] | None = callback

    @property
    def pending(self) -> bool:
        """True until it fires or is cancelled."""
        return self.callback is not None


class DeadlineQueue:
    """Deadlines in ticks, one armed loop timer for the earliest."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._ticks: SortedDict[int, dict[Timer, None]] = SortedDict()
        self._handle: asyncio.TimerHandle | None = None
        self._armed = 0
        self._count = 0
        self._firing = False

    def __len__(self) -> int:
        return self._count

    def at(self, when: float, callback: Callable[[], None]) -> Timer:
        """Call `callback()` once the loop's clock reaches `when` (seconds, loop time)."""
        tick = -int(-when // RESOLUTION)
        timer = Timer(tick, callback)
        bucket = self._ticks.get(tick)
        if bucket is None:
            self._ticks[tick] = {timer: None}
            if (self._handle is None or tick < self._armed) and not self._firing:
                self._arm(tick)
        else:
            bucket[timer] = None
        self._count += 1
        return timer

    def after(self, delay: float, callback: Callable[[], None]) -> Timer:
        """Call `callback()` after `delay` seconds."""
        return self.at(self._loop.time() + delay, callback)

    def cancel(self, timer: Timer) -> None:
        """Forget a timer; harmless when it already fired."""
        if timer.callback is None:
            return
        timer.callback = None
        self._count -= 1
        bucket = self._ticks.get(timer.tick)
        if bucket is not None:
            bucket.pop(timer, None)
            if not bucket:
                del self._ticks[timer.tick]

    def close(self) -> None:
        """Forget everything and disarm."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
        self._ticks.clear()
        self._count = 0

    def _arm(self, tick: int) -> None:
        if self._handle is not None:
            self._handle.cancel()
        self._armed = tick
        self._handle = self._loop.call_at(tick * RESOLUTION, self._fire)

    def _fire(self) -> None:
        self._handle = None
        now = self._loop.time()
        fired = 0
        self._firing = True
        try:
            while self._ticks:
                tick, bucket = self._ticks.peekitem(0)
                # The loop may call a hair early (its own clock resolution): round to nearest.
                if tick * RESOLUTION > now + RESOLUTION / 2:
                    break
                while bucket and fired < BATCH:
                    timer = next(iter(bucket))
                    del bucket[timer]
                    callback, timer.callback = timer.callback, None
                    if callback is None:
                        continue
                    self._count -= 1
                    fired += 1
                    try:
                        callback()
                    except Exception:  # one broken callback must not stop everybody's timers
                        logger.exception("timer callback failed")
                if bucket:
                    break
                if self._ticks.get(tick) is bucket:
                    del self._ticks[tick]
                if fired >= BATCH:
                    break
        finally:
            self._firing = False
            if self._ticks:
                self._arm(self._ticks.peekitem(0)[0])
