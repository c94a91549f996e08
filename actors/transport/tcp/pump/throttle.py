"""How many bytes a second may pass: paid afterwards, so that nothing is cut into pieces.

Source: protocol sheet rendezvous 5.6 row 11.
"""

from __future__ import annotations

from collections.abc import Iterable


class Throttle:
    """A token bucket of one second. Whoever passed bytes is told how long to pause.

    Args:
        rate: bytes per second; 0: no limit.
    """

    __slots__ = ("_due", "rate")

    def __init__(self, rate: float) -> None:
        self.rate = rate
        #: When everything that passed is paid for.
        self._due = 0.0

    def spend(self, count: int, now: float) -> float:
        """So many bytes passed. Seconds to wait before the next ones; 0: none."""
        if not self.rate:
            return 0.0
        self._due = max(self._due, now - 1.0) + count / self.rate
        return max(0.0, self._due - now)


def pause_of(throttles: Iterable[Throttle], count: int, now: float) -> float:
    """The longest pause of several limits for the same bytes."""
    pause = 0.0
    for throttle in throttles:
        pause = max(pause, throttle.spend(count, now))
    return pause
