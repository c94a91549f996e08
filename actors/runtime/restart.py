"""Restart intensity and backoff: pure arithmetic on an injected clock and random source."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Backoff:
    """Delays between restarts of one child.

    The first restart is immediate (most crashes are one bad message); the n-th waits
    `min(cap, base * 2**(n-2))` seconds times a uniform factor in [0.5, 1), so that a common
    cause does not bring everybody back in one herd. `n` starts over after `stable_after`
    seconds of life.
    """

    base: float = 0.1
    cap: float = 30.0
    stable_after: float = 60.0

    def delay(self, attempt: int, uniform: Callable[[float, float], float]) -> float:
        """Seconds to wait before restart number `attempt` (counted from 1)."""
        if attempt <= 1:
            return 0.0
        # The exponent is clamped: 2**1000 is not a float.
        ceiling = min(self.cap, self.base * 2.0 ** min(attempt - 2, 60))
        return ceiling * uniform(0.5, 1.0)


@dataclass(frozen=True, slots=True)
class Intensity:
    """At most `restarts` within any `period` seconds; one more and the supervisor gives up."""

    restarts: int = 5
    period: float = 30.0


class RestartWindow:
    """Restart attempts within the last `period` seconds. Holds at most `restarts + 1` times."""

    __slots__ = ("_times", "intensity")

    def __init__(self, intensity: Intensity) -> None:
        self.intensity = intensity
        self._times: deque[float] = deque(maxlen=intensity.restarts + 1)

    def attempt(self, now: float) -> bool:
        """Record an attempt. False when it is one too many."""
        self._expire(now)
        self._times.append(now)
        return len(self._times) <= self.intensity.restarts

    def used(self, now: float) -> int:
        """Attempts that still count at `now`."""
        self._expire(now)
        return len(self._times)

    def _expire(self, now: float) -> None:
        oldest = now - self.intensity.period
        times = self._times
        while times and times[0] < oldest:
            times.popleft()
