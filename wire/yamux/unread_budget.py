"""What the applications of several sessions hold unread, together.

yamux bounds a stream and nothing above it: the first 256 KiB of each are the peer's by protocol.
So sessions share a budget. When half of it is used, those that hold more than their share of that
half withhold credit; when all of it is, those that hold more than their share of it take no new
streams either, and reset those that hold much. A session below its share notices nothing.
"""

from __future__ import annotations

from collections.abc import Callable

from wire.yamux.limits import INITIAL_WINDOW


class UnreadBudget:
    """Bound: `limit`, and what sessions below their share add to it; less than twice the limit.

    Args:
        limit: bytes.

    Attributes:
        held: unread bytes now.
        holders: sessions that hold any.
        withheld: how often a session began to withhold credit, its own bound included.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.held = 0
        self.holders = 0
        self.withheld = 0
        #: Sessions that withhold credit; bound: sessions.
        self._waiting: dict[object, Callable[[], object]] = {}

    @property
    def share(self) -> int:
        """Of each session that holds anything."""
        return max(INITIAL_WINDOW, self.limit // max(1, self.holders))

    @property
    def tight(self) -> bool:
        """True when who holds more than half of its share withholds credit."""
        return 2 * self.held > self.limit

    @property
    def full(self) -> bool:
        """True when who holds more than its share may get nothing more."""
        return self.held > self.limit

    def change(self, before: int, after: int) -> None:
        """A session holds so many bytes now."""
        self.held += after - before
        self.holders += (after > 0) - (before > 0)
        # Not at the very edge: whoever waits would be woken for every frame.
        if self._waiting and 3 * self.limit > 8 * self.held and after < before:
            waiting, self._waiting = self._waiting, {}
            for relieve in waiting.values():
                relieve()

    def wait(self, session: object, relieve: Callable[[], object]) -> None:
        """Call `relieve` once when there is room again."""
        self._waiting[session] = relieve

    def leave(self, session: object) -> None:
        """It waits no more."""
        self._waiting.pop(session, None)
