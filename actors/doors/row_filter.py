"""Whether a row is among those an operator asked for."""

from __future__ import annotations

from collections.abc import Iterable

from wire.admin.messages import Row


def has_text(row: Row, needle: str) -> bool:
    """True when a text of the row, or of a list in it, has the needle in it; case does not count.

    An empty needle is in every row.
    """
    needle = needle.lower()
    return not needle or any(needle in text.lower() for text in _texts(row))


def _texts(row: Row) -> Iterable[str]:
    for value in row.values():
        if isinstance(value, str):
            yield value
        elif isinstance(value, list):
            yield from (one for one in value if isinstance(one, str))
