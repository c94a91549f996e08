"""The record of a chaos run: what was done, and what users and the daemon reported meanwhile.

Nemesis, workload and checker are separate (as in Jepsen): the nemesis and the workload append to
the history, the checker reads it afterwards. All times are wall-clock seconds of one machine.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(slots=True)
class Action:
    """One injected fault.

    Attributes:
        at: when it was ordered.
        verb: kill or crash.
        path: the victim.
        incarnation: its incarnation when chosen.
        group: tops of the subtrees that may change with it.
        done: False when the daemon found nobody there any more.
        acked: when the daemon said that it was done; 0 while it did not.
    """

    at: float
    verb: str
    path: str
    incarnation: int
    group: frozenset[str]
    done: bool = False
    acked: float = 0.0


@dataclass(slots=True)
class Transfer:
    """One byte-verified stream of the workload.

    Attributes:
        name: which stream.
        began, ended: times.
        outcome: complete, refused (a visible error before the service saw the connection), reset
            (a visible error later), truncated (a clean end too early), corrupt, stuck.
        detail: what exactly was seen.
    """

    name: str
    began: float
    ended: float
    outcome: str
    detail: str = ""


@dataclass(slots=True)
class Probe:
    """One attempt of a new user: a fresh stream, or a fetched page.

    Attributes:
        at: when it began.
        seconds: until it was decided.
        error: empty when it worked.
        source: `stream` (through the run's own agents), `url`, or `direct`: the same exchange
            without relay and agents, which measures the machine.
        name: of the stream, as in `Transfer`.
    """

    at: float
    seconds: float
    error: str = ""
    source: str = "url"
    name: str = ""

    @property
    def ended(self) -> float:
        """When it was decided."""
        return self.at + self.seconds


@dataclass(frozen=True, slots=True)
class Overfull:
    """A mailbox seen above its bound."""

    at: float
    path: str
    depth: int
    bound: int


@dataclass(slots=True)
class History:
    """Everything that was seen in one run.

    Attributes:
        connections: places whose deaths, and those of what is below, may reset any stream.
        pairs: places of which the death of one child may reset one stream.
    """

    actions: list[Action] = field(default_factory=list)
    events: list[Mapping[str, object]] = field(default_factory=list)
    transfers: list[Transfer] = field(default_factory=list)
    probes: list[Probe] = field(default_factory=list)
    overfull: list[Overfull] = field(default_factory=list)
    agent_events: list[Mapping[str, object]] = field(default_factory=list)
    events_lost: int = 0
    connections: tuple[str, ...] = ("/edge/agents",)
    pairs: tuple[str, ...] = ("/edge/streams",)
