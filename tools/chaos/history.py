"""The record of a chaos run: what was done, and what the daemon reported meanwhile.

Nemesis, workload and checker are separate (as in Jepsen): the nemesis and the workload append to
the history, the checker reads it afterwards.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(slots=True)
class Action:
    """One injected fault.

    Attributes:
        at: wall-clock seconds.
        verb: kill or crash.
        path: the victim.
        incarnation: its incarnation when chosen.
        group: tops of the subtrees that may change with it.
        done: False when the daemon found nobody there any more.
    """

    at: float
    verb: str
    path: str
    incarnation: int
    group: frozenset[str]
    done: bool = False


@dataclass(slots=True)
class Transfer:
    """One byte-verified stream of the workload.

    Attributes:
        name: which stream.
        began, ended: wall-clock seconds.
        outcome: complete, reset (a visible error), truncated (a clean end too early), corrupt.
        detail: what exactly was seen.
        stream_id: hex id, when known.
    """

    name: str
    began: float
    ended: float
    outcome: str
    detail: str = ""
    stream_id: str = ""


@dataclass(slots=True)
class History:
    """Everything that was seen in one run."""

    actions: list[Action] = field(default_factory=list)
    events: list[Mapping[str, object]] = field(default_factory=list)
    transfers: list[Transfer] = field(default_factory=list)
    probes: list[tuple[float, float, str]] = field(default_factory=list)
    events_lost: int = 0
