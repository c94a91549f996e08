"""Restart intensity, backoff and the storm breaker: pure arithmetic on an injected clock.

Source: docs/runtime.md section 7.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final


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

    def describe(self, now: float) -> dict[str, object]:
        """For reports and the inspector."""
        return {
            "used": self.used(now),
            "restarts": self.intensity.restarts,
            "period": self.intensity.period,
        }

    def _expire(self, now: float) -> None:
        oldest = now - self.intensity.period
        times = self._times
        while times and times[0] < oldest:
            times.popleft()


#: A storm: more than this many restarts within STORM_PERIOD seconds ...
STORM_RESTARTS: Final = 50
STORM_PERIOD: Final = 10.0
#: ... or more than this share of the children, when it is at least STORM_LEAST restarts.
STORM_SHARE: Final = 0.2
STORM_LEAST: Final = 10
#: Seconds of the first pause; each further storm doubles it, up to the cap, until there was
#: none for STORM_PERIOD seconds after the last pause.
STORM_PAUSE: Final = 1.0
STORM_PAUSE_CAP: Final = 30.0


class StormBreaker:
    """Pauses all restarts of a dynamic supervisor while too many of its children fail at once.

    Holds at most STORM_RESTARTS + 1 times.
    """

    __slots__ = ("_pause", "_recent", "until")

    def __init__(self) -> None:
        self._recent: deque[float] = deque(maxlen=STORM_RESTARTS + 1)
        self._pause = STORM_PAUSE
        #: End of the present or last pause; 0 before the first.
        self.until = 0.0

    def restart(self, now: float, children: int) -> float:
        """Record a restart. Returns the length of the pause it starts in seconds, mostly 0."""
        if self.until and now - self.until > STORM_PERIOD:
            self._pause, self.until = STORM_PAUSE, 0.0
        recent = self._recent
        recent.append(now)
        if now < self.until:
            return 0.0
        while recent[0] < now - STORM_PERIOD:
            recent.popleft()
        if len(recent) <= min(STORM_RESTARTS, max(STORM_LEAST, STORM_SHARE * children)):
            return 0.0
        pause = self._pause
        self._pause = min(STORM_PAUSE_CAP, pause * 2)
        self.until = now + pause
        recent.clear()
        return pause

    def remaining(self, now: float) -> float:
        """Seconds until restarts go on."""
        return max(0.0, self.until - now)
