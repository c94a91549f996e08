"""How many of the streams that come at once are begun in one turn of the event loop. Sans-IO.

A peer may open thousands at once; each costs an actor, decisions and look-ups, and all of those
would run in the same turn. So few are begun in a turn, and who has more in store shares them:
tenants alike, whatever number of connections they have, and the connections of one tenant alike.
Whoever has no more than a turn takes waits for nobody.

Source: docs/decisions/0163.
"""

from __future__ import annotations

from typing import Final

#: Streams that are begun in one turn, of those that wait.
STREAMS_PER_TURN: Final = 16


class OpeningTurns:
    """How many of the streams that come at once are begun in one turn of the event loop."""

    def __init__(self) -> None:
        #: Connections with streams in store, by tenant.
        self._busy: dict[str, int] = {}

    def share(self, tenant: str) -> int:
        """Streams that a connection of this tenant may begin in a turn; at least one."""
        tenants = len(self._busy) or 1
        return max(1, STREAMS_PER_TURN // tenants // self._busy.get(tenant, 1))

    def join(self, tenant: str) -> Busy:
        """A connection of this tenant has streams in store, until what is returned is aborted."""
        self._busy[tenant] = self._busy.get(tenant, 0) + 1
        return Busy(self, tenant)

    def leave(self, tenant: str) -> None:
        """Called by `Busy`."""
        self._busy[tenant] -= 1
        if not self._busy[tenant]:
            del self._busy[tenant]


class Busy:
    """One connection that has streams in store. A resource."""

    __slots__ = ("_tenant", "_turns")

    def __init__(self, turns: OpeningTurns, tenant: str) -> None:
        self._turns: OpeningTurns | None = turns
        self._tenant = tenant

    def abort(self) -> None:
        """All were begun, or the connection ended; idempotent."""
        turns, self._turns = self._turns, None
        if turns is not None:
            turns.leave(self._tenant)
