"""What the datagrams of one connection may cost this process, measured.

An engine may know frames whose cost grows with how many there were before: connection ids that are
issued and retired in one go, for instance, hold the native core for seconds, and no event tells.
So each connection has a budget of CPU time that its datagrams fill, far above what those in good
faith need on either engine, and that their handling drains. Who overdraws it is closed.
"""

from __future__ import annotations

from typing import Final

#: CPU seconds for each datagram and each byte. Datagrams full of small streams cost the aioquic
#: engine 0.4 ms; full ones 35 us, and the native engine 3 us.
PER_DATAGRAM: Final = 1e-3
PER_BYTE: Final = 100e-9
#: CPU seconds that may be saved up, and that a connection begins with.
SAVED: Final = 0.25


class ReceiveCost:
    """The budget of one connection.

    Attributes:
        overdrawn: it was, once.
    """

    __slots__ = ("_left", "overdrawn")

    def __init__(self) -> None:
        self._left = SAVED
        self.overdrawn = False

    def spend(self, seconds: float, datagrams: int, size: int) -> bool:
        """So many datagrams of together `size` bytes took so much CPU. False: it is overdrawn."""
        earned = datagrams * PER_DATAGRAM + size * PER_BYTE
        self._left = min(SAVED, self._left + earned - seconds)
        self.overdrawn = self.overdrawn or self._left < 0
        return not self.overdrawn
