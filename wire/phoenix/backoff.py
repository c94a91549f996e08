"""How long to wait before a portal is asked again (protocol sheet TURN 1.8)."""

from __future__ import annotations

from typing import Final

#: Before the first success: so many delays of one second, then it is given up.
FIRST_DELAYS: Final = 15
BASE: Final = 0.5
FACTOR: Final = 1.5
CAP: Final = 60.0


class Backoff:
    """The delays between two attempts, and when there are no more.

    Args:
        patience: seconds of delays after which a portal that was there once is given up.
    """

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._waited = 0.0
        self._tries = 0
        self._ever = False

    def succeeded(self) -> None:
        """Joined: the next loss begins anew."""
        self._ever = True
        self._waited, self._tries = 0.0, 0

    def delay(self, chance: float, wanted: float | None = None) -> float | None:
        """Seconds to wait; None: it is given up.

        Args:
            chance: in [0, 1): between the base and twice that.
            wanted: what the portal asked for (Retry-After).
        """
        tries, self._tries = self._tries, self._tries + 1
        if not self._ever:
            if tries >= FIRST_DELAYS:
                return None
            return 1.0 if wanted is None else min(max(wanted, 0.0), CAP)
        base = min(CAP, BASE * FACTOR ** min(tries, 20))
        delay = base * (1.0 + chance) if wanted is None else min(max(wanted, 0.0), 10 * CAP)
        self._waited += delay
        return delay if self._waited <= self._patience else None
