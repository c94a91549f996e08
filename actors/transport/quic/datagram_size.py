"""How large datagrams may be on a path: the search for it, and seeing that it shrank. Pure.

Packets begin at a size that every path carries. Larger ones are tried with packets of padding that
congestion control does not count, and used once such a packet was acknowledged (RFC 8899, RFC 9000
section 14.3). The socket forbids fragmentation, so what arrives fits the route.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

#: Sizes that are tried, bytes of UDP payload: tunnels, Ethernet with IPv6, Ethernet with IPv4.
LADDER: Final = (1350, 1420, 1452, 1472)
#: Probes of one size that are lost until it counts as too large.
MAX_PROBES: Final = 3
#: Pause before the next probe, seconds, and before a size that failed is tried again.
PROBE_PAUSE: Final = 0.1
RAISE_PAUSE: Final = 600.0

#: A black hole: for so many seconds large datagrams were sent, at least so many, and none of them
#: was acknowledged, while at least as many packets were declared lost. That takes acknowledgements
#: of later packets: in an outage there are none. And some large ones were acknowledged before:
#: where only probes of the size were ever sent, nothing is lost with them.
NO_VIABLE_PATH: Final = 0x10  #: what a connection is closed with then (RFC 9000 section 20.1)
WATCH_SECONDS: Final = 2.0
WATCH_LOST: Final = 8


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
    """Watches the fate of datagrams larger than the base."""

    __slots__ = ("_acknowledged", "_base", "_carried", "_large", "_lost", "_since", "large")

    def __init__(self, base: int) -> None:
        self._base = base
        #: Large datagrams sent in all.
        self.large = 0
        self._acknowledged = 0
        #: Some arrived, once.
        self._carried = False
        #: When the first large one was sent of which nothing is known; 0: none was.
        self._since = 0.0
        #: Large datagrams sent before, and packets lost before.
        self._large = self._lost = 0

    def sent(self, sizes: Iterable[int], lost: int, now: float) -> bool:
        """Datagrams of these sizes leave, and `lost` packets were lost so far.

        True when one of them is large.
        """
        count = sum(map(self._base.__lt__, sizes))
        if not count:
            return False
        if not self._since:
            self._since = now
            self._large, self._lost = self.large, lost
        self.large += count
        return True

    def arrives(self) -> None:
        """Large datagrams do arrive, as other signs say."""
        self._since = 0.0

    def vanish(self, acknowledged: int, lost: int, now: float) -> bool:
        """True when large datagrams vanish.

        Args:
            acknowledged: large ones, since the connection began; only that it grows matters.
            lost: packets declared lost, likewise.
            now: the time.
        """
        if acknowledged > self._acknowledged:
            self._carried = True
            self.arrives()
        self._acknowledged = acknowledged
        return (
            self._carried
            and self._since > 0.0
            and now - self._since >= WATCH_SECONDS
            and self.large - self._large >= WATCH_LOST
            and lost - self._lost >= WATCH_LOST
        )
