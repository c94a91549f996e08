"""When a coupled pair that carries nothing is given up.

A side that ended its direction and then vanished is not noticed by reading: nothing is read there
any more. So a half-closed pair that is quiet ends after a while, a whole one only if that is
wanted.

Source: protocol sheet rendezvous 3.2 (half-closed pairs), 5.2 R13.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class QuietLimits:
    """Seconds without a byte in either direction; 0: no limit.

    Attributes:
        half_closed: once one side has ended.
        idle: at any time.
    """

    half_closed: float = 300.0
    idle: float = 0.0


class QuietWatch:
    """One timer for a pair; looks whether bytes passed since it looked before.

    Args:
        passed: bytes of both directions so far.
        over: called once when it was quiet for too long.
    """

    __slots__ = ("_limit", "_over", "_passed", "_seen", "_timer")

    def __init__(self, passed: Callable[[], int], over: Callable[[], object]) -> None:
        self._passed = passed
        self._over = over
        self._limit = 0.0
        self._seen = 0
        self._timer: asyncio.TimerHandle | None = None

    def within(self, seconds: float) -> None:
        """From now on this limit; 0 or what is longer than the limit there is changes nothing."""
        if seconds and (not self._limit or seconds < self._limit):
            self.stop()
            self._limit = seconds
            self._set()

    def stop(self) -> None:
        """Watch no more; idempotent."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _set(self) -> None:
        self._seen = self._passed()
        self._timer = asyncio.get_running_loop().call_later(self._limit, self._look)

    def _look(self) -> None:
        self._timer = None
        if self._passed() == self._seen:
            self._over()
        else:
            self._set()
