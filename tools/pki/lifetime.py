"""Certificate lifetimes as people write them: `30d`, `12h`, `1h30m`, `90s`."""

from __future__ import annotations

import re
from datetime import timedelta

_PART = re.compile(r"(\d{1,9})([dhms])")
_UNITS = {"d": "days", "h": "hours", "m": "minutes", "s": "seconds"}


def parse_lifetime(text: str) -> timedelta:
    """Read one or more `<number><unit>` with units d, h, m, s.

    Raises:
        ValueError: anything else, or a total of zero.
    """
    total = timedelta(0)
    position = 0
    for part in _PART.finditer(text):
        if part.start() != position:
            break
        total += timedelta(**{_UNITS[part[2]]: int(part[1])})
        position = part.end()
    if position != len(text) or not total:
        raise ValueError("expected a duration such as 30d, 12h or 1h30m")
    return total


def format_span(span: timedelta) -> str:
    """The two largest units of a span, for people: `29d 23h`, `4m 10s`; the sign is dropped."""
    seconds = abs(int(span.total_seconds()))
    amounts = [
        (seconds // 86400, "d"),
        (seconds // 3600 % 24, "h"),
        (seconds // 60 % 60, "m"),
        (seconds % 60, "s"),
    ]
    first = next((i for i, (amount, _) in enumerate(amounts) if amount), len(amounts) - 1)
    return " ".join(f"{amount}{unit}" for amount, unit in amounts[first : first + 2])
