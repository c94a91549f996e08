"""Durations as the reference's command line takes them: `0`, `300ms`, `1h30m`, `24h`.

Source: https://pkg.go.dev/time#ParseDuration; protocol sheet ORP 4.5.
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Final

_PART: Final = re.compile(r"([0-9]{1,18}(?:\.[0-9]{0,18})?|\.[0-9]{1,18})(ns|us|µs|μs|ms|s|m|h)")
_MILLISECONDS: Final = {
    "ns": Fraction(1, 1_000_000),
    "us": Fraction(1, 1000),
    "µs": Fraction(1, 1000),
    "μs": Fraction(1, 1000),
    "ms": Fraction(1),
    "s": Fraction(1000),
    "m": Fraction(60_000),
    "h": Fraction(3_600_000),
}


def parse_duration_ms(text: str) -> int:
    """Milliseconds, rounded down; negative durations are refused.

    Raises:
        ValueError: not a duration.
    """
    if text == "0":
        return 0
    total = Fraction(0)
    place = 0
    while place < len(text):
        part = _PART.match(text, place)
        if part is None:
            raise ValueError(f"{text!r} is not a duration such as 90s, 1h30m or 0")
        total += Fraction(part[1]) * _MILLISECONDS[part[2]]
        place = part.end()
    if not text:
        raise ValueError("a duration must not be empty")
    return int(total)
