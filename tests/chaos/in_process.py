"""The nemesis's view of an actor system in the same process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict

from actors.runtime import ActorSystem, Event, inspection
from tools.chaos.groups import Row
from tools.chaos.history import History


class InProcessControl:
    """`tools.chaos.nemesis.Control` without a socket; records every event."""

    def __init__(self, system: ActorSystem, history: History) -> None:
        self._system = system

        def record(event: Event) -> None:
            history.events.append(asdict(event))

        system.events.subscribe(record)

    async def tree(self, path: str = "/") -> list[Row]:
        """Every row below `path`."""
        cell = self._system.find(path)
        return [] if cell is None else [inspection.row(c) for c in inspection.walk(cell)]

    async def describe(self, path: str) -> Mapping[str, object]:
        """Details of one actor."""
        cell = self._system.find(path)
        return {} if cell is None else inspection.details(cell)

    async def act(self, verb: str, path: str, reason: str) -> bool:
        """kill or crash."""
        ref = self._system.ref(path)
        if ref is None:
            return False
        act = self._system.kill if verb == "kill" else self._system.crash
        return act(ref, reason, initiator="chaos")
