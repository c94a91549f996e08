"""Lines about callers, few of them: who may call often must not write the log.

Within a minute every caller is complained about once for each reason, and at most `MAX_LINES` lines
are written; what is left out is counted and said with the next minute's first line.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

MINUTE_SECONDS: Final = 60.0
MAX_LINES: Final = 20


class Complaints:
    """Lines about callers, few of them: who may call often must not write the log.

    Args:
        warn: writes a line.
        clock: monotonic seconds.
    """

    def __init__(
        self, warn: Callable[[str], object], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._warn = warn
        self._clock = clock
        self._until = 0.0
        #: Bound: MAX_LINES.
        self._said: set[str] = set()
        self._left_out = 0

    def say(self, text: str) -> None:
        """Write it, unless the same was written already, or too much else."""
        now = self._clock()
        if now >= self._until:
            self._until = now + MINUTE_SECONDS
            self._said.clear()
            left_out, self._left_out = self._left_out, 0
            if left_out:
                self._warn(f"{left_out} more complaints about callers were left out")
        if text in self._said or len(self._said) >= MAX_LINES:
            self._left_out += 1
            return
        self._said.add(text)
        self._warn(text)
