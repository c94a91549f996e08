"""A token bucket without a clock."""

from __future__ import annotations


class RateLimit:
    """At most `rate` per second, and one second's worth at once.

    Args:
        rate: per second, above 0.
    """

    __slots__ = ("_at", "_left", "_rate")

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._left = rate
        self._at = 0.0

    def take(self, now: float) -> bool:
        """True when one more is within the rate; `now` is monotonic seconds."""
        if self._left < 1.0:
            self._left = min(self._rate, self._left + (now - self._at) * self._rate)
            self._at = now
            if self._left < 1.0:
                return False
        elif now - self._at >= 1.0:
            self._left = self._rate
            self._at = now
        self._left -= 1.0
        return True
