"""How large a share of Initials the kernel may deliver, from how many arrive. Pure.

Rules: the rate is looked at every `INTERVAL` seconds. A flood is more than `FLOOD` a second, twice
in a row: a thousand agents that come back at once are none. Then the share shrinks so that about
`WANTED` a second pass, and doubles as long as few do, until all pass. Clients that begin a
connection during a flood lose as many of their Initials as everybody else and send them again;
connections that are there do not notice.
"""

from __future__ import annotations

from typing import Final

#: Seconds between two looks.
INTERVAL: Final = 0.1
#: Initials a second that begin a flood, and that are let through during one.
FLOOD: Final = 10_000.0
WANTED: Final = 300.0
#: The share is never smaller.
LEAST_SHARE: Final = 1e-6


class FloodGuard:
    """The share, for one socket.

    Attributes:
        share: of Initials that may pass; 1: all.
    """

    __slots__ = ("_began", "_high", "_seen", "share")

    def __init__(self) -> None:
        self.share = 1.0
        self._began = 0.0
        self._seen = self._high = 0

    def seen(self) -> None:
        """An Initial arrived."""
        self._seen += 1

    def look(self, now: float) -> bool:
        """True when the share changed; call at least every `INTERVAL` while it is below 1."""
        elapsed = now - self._began
        if elapsed < INTERVAL:
            return False
        rate = self._seen / elapsed
        self._seen, self._began = 0, now
        before = self.share
        self._high = self._high + 1 if rate > FLOOD else 0
        if self._high > 1 or (self.share < 1 and rate > 2 * WANTED):
            self.share = max(LEAST_SHARE, self.share * WANTED / rate)
        elif rate < WANTED / 2 and self.share < 1:
            self.share = min(1.0, 2 * self.share)
        return self.share != before
