"""Which pairs wait for which agents; told when one came back without any of its streams.

An agent that lost its connection asks for its streams as soon as it has the next one. One that has
had a connection for a while and asked for none is a new process of the same name: what it had is
gone, and whoever waits across need not wait out the whole hold.

Source: protocol sheet ORP 3.7, 3.8.
"""

from __future__ import annotations

from typing import Final

from actors.edge.messages import CameWithout
from actors.runtime import ActorRef

#: Seconds from an agent's HELLO, or its last REGISTER, until it must have asked for a stream, and
#: round trips of its connection on top. Enough for a host that is busy with a thousand others.
ASK_SECONDS: Final = 3.0
ASK_ROUND_TRIPS: Final = 4


class Absences:
    """The pairs that wait, by agent. Bound: one entry for each side of a pair."""

    def __init__(self) -> None:
        self._waiting: dict[str, dict[Absence, None]] = {}

    def wait(self, uri: str, pair: ActorRef) -> Absence:
        """A pair waits for this agent; it owns the result, and aborts it when that is over."""
        absence = Absence(self, uri, pair)
        self._waiting.setdefault(uri, {})[absence] = None
        return absence

    def came_without(self, uri: str) -> None:
        """The agent is back, and asked for nothing."""
        for absence in self._waiting.get(uri, {}):
            absence.pair.try_tell(CameWithout(uri))

    def forget(self, absence: Absence) -> None:
        """It does not wait any more."""
        waiting = self._waiting.get(absence.uri)
        if waiting is not None:
            waiting.pop(absence, None)
            if not waiting:
                del self._waiting[absence.uri]


class Absence:
    """One pair that waits for one agent, as a resource."""

    __slots__ = ("_absences", "pair", "uri")

    def __init__(self, absences: Absences, uri: str, pair: ActorRef) -> None:
        self._absences = absences
        self.uri = uri
        self.pair = pair

    def abort(self) -> None:
        """It does not wait any more; idempotent."""
        self._absences.forget(self)
