"""RelayFleet: keeps the door's list of other relays as fresh as the controller's.

Without an answer the last list stays: relays go on meeting while the controller is away. A list
that stays the same is asked for less and less often; a relay that is new is also learnt of from the
providers it brings.

Source: protocol sheet ORP 3.11, 4.1; 6.2 R19, R21.
"""

from __future__ import annotations

from actors.control.messages import FindFleet
from actors.edge.context import EdgeContext
from actors.runtime import Actor, AskFailed, handles

#: How much longer the pause gets while nothing changes: half a minute in place of five seconds.
LONGEST = 6.0
#: Seconds the registry has to answer.
ASK_SECONDS = 5.0


class _Refresh:
    """Ask again."""

    __slots__ = ()


class RelayFleet(Actor):
    def __init__(self, door: EdgeContext) -> None:
        self._door = door
        self._relays: dict[str, str] = {}
        self._failures = 0
        self._slower = 1.0

    def init(self) -> None:
        """Ask at once."""
        self.ref.tell(_Refresh())

    def describe(self) -> dict[str, object]:
        """The relays, as last heard."""
        return {"relays": dict(self._relays), "failures": self._failures}

    @handles(_Refresh)
    async def _refresh(self, _: _Refresh) -> None:
        try:
            rows = await self._door.control().registry.ask(FindFleet(), timeout=ASK_SECONDS)
        except AskFailed:
            self._failures += 1
        else:
            before, self._relays = (
                self._relays,
                {
                    row.relay_id: row.endpoint
                    for row in rows
                    if self._door.relays.learn(row.relay_id, row.endpoint)
                },
            )
            self._slower = min(LONGEST, 2 * self._slower) if self._relays == before else 1.0
        refresh = self._door.relays.settings.refresh * self._slower
        pause = refresh * self.system.rng.uniform(0.5, 1.5)
        self.start_timer(pause, _Refresh(), "refresh")
