"""Whether what a connection sends has an effect. Pure, but for looking at the packet core.

Two ways to have none end it: large datagrams that vanish, because the path shrank and the core
never goes back to smaller ones; and answers that a peer makes us send and never acknowledges,
because the core sends PATH_RESPONSE beyond the congestion window and remembers each packet.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from actors.transport.quic.datagram_size import NO_VIABLE_PATH, BlackHole

PROTOCOL_VIOLATION = 0x0A
#: Bytes beyond the congestion window, and packets, that only answers to a peer can make: what a
#: window held before it shrank are fewer and larger packets.
UNASKED_BYTES = 128 * 1024
UNASKED_PACKETS = 4096
#: Probe timeouts in a row after which a small packet goes beside what the core repeats.
SMALL_PTOS = 2
#: A congestion window is small up to so many of the smallest datagrams.
SMALL_WINDOW = 16


class Effect:
    """Watches one connection.

    Args:
        base: size of datagrams that every path carries.

    Attributes:
        repeats_large: the core repeats large datagrams, and hears nothing.
    """

    __slots__ = ("_base", "_hole", "repeats_large")

    def __init__(self, base: int) -> None:
        self._base = base
        self._hole = BlackHole(base)
        self.repeats_large = False

    def missing(self, core: Any, sizes: Sequence[int], now: float) -> tuple[int, str] | None:
        """Datagrams of these sizes leave. The error to end the connection with, if any."""
        if self._large_vanish(core, sizes, now):
            return NO_VIABLE_PATH, "large datagrams do not arrive any more"
        if self._answers_only(core):
            return PROTOCOL_VIOLATION, "nothing is acknowledged"
        return None

    def _large_vanish(self, core: Any, sizes: Sequence[int], now: float) -> bool:
        hole, base = self._hole, self._base
        lost: int = core.loss_total
        large = hole.sent(sizes, lost, now)
        self.repeats_large = large and core.pto_count >= SMALL_PTOS
        if core.congestion_window > SMALL_WINDOW * base:
            hole.arrives()  # it does not stay that large without acknowledgements
            return False
        # What was sent and is neither under way nor lost was acknowledged. Small packets that are
        # lost make it look less, but never more.
        flying = sum(size > base for _, size, _ in core.outstanding_application_packets)
        return hole.vanish(hole.large - lost - flying, lost, now)

    @staticmethod
    def _answers_only(core: Any) -> bool:
        window: int = core.congestion_window
        if core.bytes_in_flight < window + UNASKED_BYTES:
            return False
        return len(core.outstanding_application_packets) > UNASKED_PACKETS + window // 32
