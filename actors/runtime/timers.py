"""One deadline queue for the timers of every actor, behind a single loop timer.

A loop timer per actor costs a heap entry and a handle each; with a hundred thousand actors
that is the largest structure in the process. Here deadlines are grouped into ticks of
`RESOLUTION` seconds, always rounded up: a timer never fires early, and at most one resolution
plus the loop's own lag late. Adding to and cancelling from a tick that exists is a dictionary
operation; only a new tick touches the sorted index. A tick whose timers were all cancelled stays
until it is due or until the index has doubled, because asks come and go by the thousand.

Bound: one entry per live timer; owners bound their own. Callbacks run in deadline order, in
the order of insertion within a tick, at most `BATCH` per loop iteration.

Source: docs/runtime.md section 8.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from itertools import chain
from typing import Final

from loguru import logger
from sortedcontainers import SortedDict

RESOLUTION: Final = 0.005
BATCH: Final = 512
#: Below this many ticks the empty ones are left to wait for their time.
FEW_TICKS: Final = 512


class Deadline:
    """What the queue holds. `callback` is None once it fired or was cancelled.

    It has no `__init__`: whoever makes thousands a second sets the attributes where they are.
    """

    __slots__ = ("callback", "tick")

    callback: Callable[[], object] | None
    tick: int

    @property
    def pending(self) -> bool:
        """True until it fires or is cancelled."""
        return self.callback is not None


class Timer(Deadline):
    """A deadline that is nothing else."""

    __slots__ = ()

    def __init__(self, callback: Callable[[], object] | None) -> None:
        self.tick = 0
        self.callback = callback


class DeadlineQueue:
    """Deadlines in ticks, one armed loop timer for the earliest."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._ticks: SortedDict[int, dict[Deadline, None]] = SortedDict()
        #: Timers of the tick that is firing, when it has more than one batch.
        self._due: deque[Deadline] = deque()
        self._handle: asyncio.TimerHandle | None = None
        self._armed = 0
        self._count = 0
        self._sweep_at = FEW_TICKS
        self._firing = False
        self._closed = False

    def __len__(self) -> int:
        return self._count

    def at(self, when: float, callback: Callable[[], object]) -> Timer:
        """Call `callback()` once the loop's clock reaches `when` (finite seconds, loop time).

        After `close` nothing is called any more; the timer returned is not pending.
        """
        timer = Timer(callback)
        self.add(timer, when)
        return timer

    def add(self, timer: Deadline, when: float) -> None:
        """As `at`, for a deadline that exists and is in no queue."""
        if self._closed:
            timer.callback = None
            return
        tick = int(when / RESOLUTION)
        if tick * RESOLUTION < when:  # round up; twice when the division had rounded down
            tick += 1
            if tick * RESOLUTION < when:
                tick += 1
        timer.tick = tick
        bucket = self._ticks.get(tick)
        if bucket is None:
            self._ticks[tick] = {timer: None}
            if len(self._ticks) > self._sweep_at and not self._firing:
                self._forget_empty_ticks()
            if (self._handle is None or tick < self._armed) and not self._firing:
                self._arm(tick)
        else:
            bucket[timer] = None
        self._count += 1

    def after(self, delay: float, callback: Callable[[], object]) -> Timer:
        """Call `callback()` after `delay` seconds."""
        return self.at(self._loop.time() + delay, callback)

    def cancel(self, timer: Deadline) -> None:
        """Forget a timer; harmless when it already fired."""
        if timer.callback is None:
            return
        timer.callback = None
        self._count -= 1
        bucket = self._ticks.get(timer.tick)
        if bucket is not None:
            bucket.pop(timer, None)

    def close(self) -> None:
        """Forget everything and disarm, for good."""
        self._closed = True
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
        for timer in chain(self._due, *self._ticks.values()):
            timer.callback = None
        self._due.clear()
        self._ticks.clear()
        self._count = 0

    def _forget_empty_ticks(self) -> None:
        for tick in [tick for tick, bucket in self._ticks.items() if not bucket]:
            del self._ticks[tick]
        self._sweep_at = max(FEW_TICKS, 2 * len(self._ticks))

    def _arm(self, tick: int) -> None:
        if self._handle is not None:
            self._handle.cancel()
        self._armed = tick
        self._handle = self._loop.call_at(tick * RESOLUTION, self._fire)

    def _fire(self) -> None:
        self._handle = None
        now = self._loop.time()
        due = self._due
        left = BATCH
        self._firing = True
        try:
            while left > 0:
                if not due:
                    # A loop may call a hair early (its clock resolution): that tick is armed again.
                    if not self._ticks or self._ticks.peekitem(0)[0] * RESOLUTION > now:
                        break
                    due.extend(self._ticks.popitem(0)[1])
                    continue
                timer = due.popleft()
                callback, timer.callback = timer.callback, None
                if callback is None:
                    continue  # cancelled by a callback of the same tick
                self._count -= 1
                left -= 1
                try:
                    callback()
                except Exception:  # noqa: BLE001  # one broken callback must not stop the others
                    logger.exception("timer callback failed")
        finally:
            self._firing = False
            self._arm_next()

    def _arm_next(self) -> None:
        if self._due:
            self._arm(self._due[0].tick)
            return
        while self._ticks:
            tick, bucket = self._ticks.peekitem(0)
            if bucket:
                self._arm(tick)
                return
            del self._ticks[tick]
