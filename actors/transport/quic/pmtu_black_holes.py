"""Hosts to which large datagrams do not get, for a while."""

from __future__ import annotations

from typing import Final

#: How long, and how many, hosts are remembered; beyond that the oldest is forgotten.
NARROW_SECONDS: Final = 600.0
MAX_NARROW: Final = 1024


class PmtuBlackHoles:
    """Where a black hole was found (see `datagram_size`): nothing larger is tried there."""

    __slots__ = ("_until",)

    def __init__(self) -> None:
        self._until: dict[str, float] = {}

    def add(self, host: str, now: float) -> None:
        """Large datagrams to this host vanish."""
        self._until.pop(host, None)
        while len(self._until) >= MAX_NARROW:
            del self._until[next(iter(self._until))]
        self._until[host] = now + NARROW_SECONDS

    def has(self, host: str, now: float) -> bool:
        """True while nothing large is tried with this host."""
        until = self._until.get(host)
        if until is not None and now >= until:
            del self._until[host]
            return False
        return until is not None
