"""What a closing connection answers: the same close again.

Source: RFC 9000 section 10.2.1.
"""

from __future__ import annotations

from collections.abc import Sequence

from actors.transport.quic.engine import Address


class ClosingState:
    """Datagrams with a CONNECTION_CLOSE, repeated while the peer goes on sending.

    Args:
        datagrams: those, and where they go. The same bytes again reveal nothing.
        sent: they have left once.
    """

    def __init__(self, datagrams: Sequence[tuple[bytes, Address]], *, sent: bool) -> None:
        self._datagrams = list(datagrams)
        self._heard = 0
        self._due = not sent

    def heard(self) -> None:
        """The peer sent something: the first, the second, the fourth … is answered."""
        self._heard += 1
        self._due |= self._heard & (self._heard - 1) == 0

    def take(self) -> list[tuple[bytes, Address]]:
        """What to send now."""
        due, self._due = self._due, False
        return list(self._datagrams) if due else []
