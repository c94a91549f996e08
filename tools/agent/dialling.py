"""Dial all relays at once: the first finished handshake wins, the others end.

Source: protocol sheet ORP 3.12.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from actors.transport.connection import Connection, DialFailed
from actors.transport.dialling import first_to_connect


class Dialler(Protocol):
    """An endpoint of any transport."""

    async def connect(
        self, address: tuple[str, int], *, server_name: str, timeout: float
    ) -> Connection:
        """Raises DialFailed or OSError."""


async def race(
    endpoint: Dialler,
    relays: Sequence[tuple[str, int]],
    *,
    server_name: str,
    timeout: float,
) -> tuple[Connection | None, str]:
    """The winner, or None and why the last one failed.

    Args:
        relays: addresses; none is tried twice.
        timeout: seconds for each.
    """

    async def attempt(relay: tuple[str, int]) -> Connection:
        return await endpoint.connect(relay, server_name=server_name, timeout=timeout)

    try:
        winner = await first_to_connect(relays, attempt, lambda late: late.close(0, ""), stagger=0)
    except (DialFailed, OSError) as error:
        return None, str(error) if relays else "no relay to dial"
    return winner, ""
