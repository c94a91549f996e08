"""How large datagrams may be on a path: the search for it, and seeing that it shrank. Pure.

Packets begin at a size that every path carries. Larger ones are tried with packets of padding that
congestion control does not count, and used once such a packet was acknowledged (RFC 8899, RFC 9000
section 14.3). The socket forbids fragmentation, so what arrives fits the route.
"""

from __future__ import annotations

from typing import Final

#: Sizes that are tried, bytes of UDP payload: tunnels, Ethernet with IPv6, Ethernet with IPv4.
LADDER: Final = (1350, 1420, 1452, 1472)
#: Probes of one size that are lost until it counts as too large.
MAX_PROBES: Final = 3
#: Pause before the next probe, seconds, and before a size that failed is tried again.
PROBE_PAUSE: Final = 0.1
RAISE_PAUSE: Final = 600.0

#: A black hole: within a spell of so many seconds, looked at not before its half, so many large
#: datagrams were lost, and they are most that were sent. Losses are noticed late: when something
#: small gets through, and that may be a PING every few seconds.
NO_VIABLE_PATH: Final = 0x10  #: what a connection is closed with then (RFC 9000 section 20.1)
WATCH_SECONDS: Final = 8.0
WATCH_LOST: Final = 8
WATCH_WINDOW: Final = 16  #: datagrams of the base size
_LOST_SHARE = 0.75


class DatagramSearch:
    """The search of one connection.

    Args:
        base: where it begins, and returns to.
        ceiling: never beyond this.
    """

    __slots__ = ("_base", "_ceiling", "_failures", "_next_at", "_trying", "size")

    def __init__(self, base: int, ceiling: int) -> None:
        self.size = self._base = base
        self._ceiling = ceiling
        self._trying = 0
        self._failures = 0
        self._next_at = 0.0

    def limit(self, largest: int) -> None:
        """The peer takes no datagrams beyond `largest` (max_udp_payload_size)."""
        self._ceiling = min(self._ceiling, largest)
        self.size = min(self.size, largest)
        self._base = min(self._base, largest)

    def probe(self, now: float) -> int:
        """The size of a probe to be sent now; 0: none."""
        if self._trying or now < self._next_at:
            return 0
        for size in LADDER:
            if self.size < size <= self._ceiling:
                self._trying = size
                return size
        return 0

    def acknowledged(self, size: int, now: float) -> None:
        """A probe arrived."""
        self._trying, self._failures = 0, 0
        self._next_at = now + PROBE_PAUSE
        self.size = max(self.size, size)

    def lost(self, now: float) -> None:
        """A probe did not."""
        self._trying = 0
        self._failures += 1
        self._next_at = now + PROBE_PAUSE
        if self._failures >= MAX_PROBES:
            self._failures = 0
            self._next_at = now + RAISE_PAUSE

    def shrink(self, now: float) -> bool:
        """Nothing arrives any more: back to the base. False: it is there already."""
        if self.size == self._base:
            return False
        self.size, self._trying, self._failures = self._base, 0, 0
        self._next_at = now + RAISE_PAUSE
        return True


class BlackHole:
    """Watches the fate of datagrams larger than the base, from counts alone."""

    __slots__ = ("_base", "_began", "_large", "_lost")

    def __init__(self, base: int) -> None:
        self._base = base
        self._began = 0.0
        self._large = self._lost = 0

    def seen(self, sizes: list[int], lost: int, window: int, now: float) -> bool:
        """True when large datagrams vanish.

        Args:
            sizes: of datagrams that are sent now.
            lost: packets declared lost since the connection began.
            window: the congestion window; where nothing arrives it is small.
        """
        elapsed = now - self._began
        if elapsed >= WATCH_SECONDS:
            self._large, self._lost, self._began = 0, lost, now
        self._large += sum(size > self._base for size in sizes)
        missing = lost - self._lost
        return (
            WATCH_SECONDS / 2 <= elapsed < WATCH_SECONDS
            and window <= WATCH_WINDOW * self._base
            and WATCH_LOST <= missing <= self._large
            and missing >= _LOST_SHARE * self._large
        )
