"""Dial all relays at once: the first finished handshake wins, the others end.

Source: protocol sheet ORP 3.12.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from actors.transport.addresses import address_text
from actors.transport.connection import Connection, DialFailed
from actors.transport.dialling import first_to_connect
from tools.agent.complaints import explain


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
    transport: str,
    server_name: str,
    timeout: float,
) -> tuple[Connection | None, str]:
    """The winner, or None and why each of them failed, in words.

    Args:
        relays: addresses; none is tried twice.
        transport: QUIC or TCP, for the words.
        timeout: seconds for each.
    """
    failures: list[str] = []

    async def attempt(relay: tuple[str, int]) -> Connection:
        try:
            return await endpoint.connect(relay, server_name=server_name, timeout=timeout)
        except (DialFailed, OSError) as error:
            failures.append(f"{address_text(*relay)} ({transport}): {explain(error, transport)}")
            raise

    try:
        winner = await first_to_connect(relays, attempt, lambda late: late.close(0, ""), stagger=0)
    except (DialFailed, OSError):
        return None, "; ".join(failures)
    return winner, ""
