"""One timer of the event loop for all connections of an endpoint."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from sortedcontainers import SortedList

if TYPE_CHECKING:
    from actors.transport.quic.quic_connection import QuicConnectionHandle

#: Deadlines this close are served together, seconds: loops round up to a millisecond anyway.
SLACK = 0.0005


class ConnectionTimers:
    """A sorted list of deadlines. An entry may fire early: the owner looks and sets it again.

    Args:
        on_due: called with a connection whose time came, and monotonic seconds.
        after: called once after all due connections of a wake-up.
    """

    def __init__(
        self,
        on_due: Callable[[QuicConnectionHandle, float], None],
        after: Callable[[], None],
    ) -> None:
        self._on_due = on_due
        self._after = after
        self._entries: SortedList[tuple[float, int, QuicConnectionHandle]] = SortedList(
            key=lambda entry: entry[:2]
        )
        self._handle: asyncio.TimerHandle | None = None
        self._armed_at = 0.0

    def set(self, connection: QuicConnectionHandle, when: float, now: float) -> None:
        """Look at the connection at `when` at the latest; an earlier look is kept."""
        current = connection.timer_at
        if current:
            if current <= when:
                return
            self._entries.discard((current, id(connection), connection))
        connection.timer_at = when
        self._entries.add((when, id(connection), connection))
        self._arm(now)

    def forget(self, connection: QuicConnectionHandle) -> None:
        """Never look at it again."""
        if connection.timer_at:
            self._entries.discard((connection.timer_at, id(connection), connection))
            connection.timer_at = 0.0

    def abort(self) -> None:
        """Forget everything."""
        self._entries.clear()
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _arm(self, now: float) -> None:
        if not self._entries:
            return
        first = self._entries[0][0]
        if self._handle is not None:
            if self._armed_at <= first:
                return
            self._handle.cancel()
        self._armed_at = first
        loop = asyncio.get_running_loop()
        self._handle = loop.call_later(max(0.0, first - now), self._fire)

    def _fire(self) -> None:
        self._handle = None
        now = time.monotonic()
        entries = self._entries
        while entries and entries[0][0] <= now + SLACK:
            connection = entries.pop(0)[2]
            connection.timer_at = 0.0
            self._on_due(connection, now)
        self._after()
        self._arm(time.monotonic())
