"""Dial all relays at once: the first finished handshake wins, the others end.

Source: protocol sheet ORP 3.12.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Protocol

from actors.transport.connection import Connection, DialFailed


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
    attempts = [
        asyncio.create_task(endpoint.connect(relay, server_name=server_name, timeout=timeout))
        for relay in relays
    ]
    winner: Connection | None = None
    why = "no relay to dial"
    try:
        for attempt in asyncio.as_completed(attempts):
            try:
                winner = await attempt
            except (DialFailed, OSError) as error:
                why = str(error)
            else:
                break
    finally:
        for task in attempts:
            task.cancel()
        if attempts:
            await asyncio.wait(attempts)
        for task in attempts:
            if not task.cancelled() and task.exception() is None:
                connection = task.result()
                if connection is not winner:
                    connection.close(0, "")
    return winner, why
