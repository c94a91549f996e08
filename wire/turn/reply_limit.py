"""How many strangers of one source are answered: an answer to a forged source hits somebody.

A table of fixed size, by hash: no flood makes it grow, and two sources in one bucket share it.
"""

from __future__ import annotations

from typing import Final

BUCKETS: Final = 4096


class ReplyLimit:
    """At most `rate` answers per second and source; 0: as many as asked."""

    __slots__ = ("_at", "_left", "_rate")

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._left = [rate] * BUCKETS
        self._at = [0.0] * BUCKETS

    def take(self, host: str, now: float) -> bool:
        """True when one more may be answered."""
        rate = self._rate
        if not rate:
            return True
        # IPv6 clients own a /64 at least.
        n = hash(host if ":" not in host else ":".join(host.split(":")[:4])) % BUCKETS
        left = min(rate, self._left[n] + (now - self._at[n]) * rate)
        self._at[n] = now
        taken = left >= 1.0
        self._left[n] = left - 1.0 if taken else left
        return taken
