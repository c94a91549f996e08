"""From a history to violations of the invariants.

Numbers are those of docs/chaos.md. Every check is a pure function of the history and of tree
snapshots, so that tests can feed it histories in which an invariant is broken on purpose.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from tools.chaos.groups import Tree, covered
from tools.chaos.history import Action, History

#: Seconds after a fault in which its consequences are attributed to it.
CONSEQUENCE_SECONDS = 15.0
#: Exit kinds an actor may end with on its own.
GRACEFUL = frozenset({"normal", "shutdown"})


@dataclass(frozen=True, slots=True)
class Violation:
    """One broken invariant."""

    invariant: int
    text: str

    def __str__(self) -> str:
        return f"invariant {self.invariant}: {self.text}"


def _field(event: Mapping[str, object], key: str) -> object:
    fields = event.get("fields")
    return fields.get(key, "") if isinstance(fields, dict) else ""


def _time(event: Mapping[str, object]) -> float:
    at = event.get("at", 0.0)
    return float(at) if isinstance(at, (int, float)) else 0.0


def _near(actions: Iterable[Action], at: float) -> list[Action]:
    return [a for a in actions if a.done and a.at - 1.0 <= at <= a.at + CONSEQUENCE_SECONDS]


def exits_are_unique(history: History) -> list[Violation]:
    """1: every incarnation that starts or ends does so exactly once."""
    counts: dict[tuple[str, object, object], int] = defaultdict(int)
    for event in history.events:
        if event.get("kind") in ("started", "exited"):
            counts[str(event["kind"]), event.get("path"), event.get("incarnation")] += 1
    return [
        Violation(1, f"{path} incarnation {incarnation} {kind} {count} times")
        for (kind, path, incarnation), count in counts.items()
        if count > 1
    ]


def exits_are_explained(history: History) -> list[Violation]:
    """7: no actor ends abnormally unless a fault hit it or its restart group.

    An escalation that was reported widens the group by one level.
    """
    widened: list[tuple[float, str]] = [
        (_time(event), str(event.get("path", "")))
        for event in history.events
        if event.get("kind") == "escalated"
    ]
    violations = []
    for event in history.events:
        if event.get("kind") != "exited" or _field(event, "kind") in GRACEFUL:
            continue
        path, at = str(event.get("path", "")), _time(event)
        if path == "/" and _field(event, "kind") == "":
            continue
        near = _near(history.actions, at)
        if any(covered(path, action.group) for action in near):
            continue
        if any(
            covered(path, {top}) and 0 <= at - when + 1.0 <= CONSEQUENCE_SECONDS
            for when, top in widened
        ):
            continue
        reason = _field(event, "reason")
        violations.append(Violation(7, f"{path} ended with {reason} without a fault near it"))
    return violations


def bystanders_live(before: Tree, after: Tree, actions: Iterable[Action]) -> list[Violation]:
    """7: a permanent actor outside every group hit keeps its incarnation."""
    tops: set[str] = set()
    for action in actions:
        tops |= action.group
    return [
        Violation(
            7,
            f"{path} changed from incarnation {before.incarnation(path)} to "
            f"{after.incarnation(path)}, outside every group that was hit",
        )
        for path in before.permanent()
        if path in after.rows
        and after.incarnation(path) != before.incarnation(path)
        and not covered(path, tops)
    ]


def permanent_came_back(before: Tree, after: Tree) -> list[Violation]:
    """7: registry, control actors, listeners, supervisors: what was permanent runs again."""
    violations = []
    for path in before.permanent():
        state = after.text(path, "state")
        if state not in ("running", "busy"):
            violations.append(Violation(7, f"{path} did not come back: {state or 'missing'}"))
    return violations


def windows_hold(history: History, windows: Mapping[str, tuple[int, float]]) -> list[Violation]:
    """6: no static supervisor restarts more often than its window allows.

    `windows` maps a supervisor to (restarts, period in seconds).
    """
    times: dict[str, list[float]] = defaultdict(list)
    for event in history.events:
        decision = str(_field(event, "decision"))
        if event.get("kind") == "exited" and (
            decision == "restart" or decision.startswith("restart in")
        ):
            times[str(_field(event, "supervisor"))].append(_time(event))
    violations = []
    for supervisor, stamps in times.items():
        if supervisor not in windows:
            continue
        limit, period = windows[supervisor]
        stamps.sort()
        for index in range(len(stamps) - limit):
            # A supervisor that was itself restarted has a fresh window: allow a tenth of slack.
            if stamps[index + limit] - stamps[index] < period * 0.9 and not _was_restarted(
                history, supervisor, stamps[index], stamps[index + limit]
            ):
                violations.append(
                    Violation(6, f"{supervisor}: {limit + 1} restarts within {period:g} s")
                )
                break
    return violations


def _was_restarted(history: History, path: str, begin: float, end: float) -> bool:
    return any(
        event.get("kind") == "exited" and event.get("path") == path and begin <= _time(event) <= end
        for event in history.events
    )


def nothing_unowned(before: Mapping[str, object], after: Mapping[str, object]) -> list[Violation]:
    """13: no exception outside every actor, no undead task, no failed release."""
    violations = []
    for key in ("unowned_exceptions", "undead", "resource_errors"):
        then, now = before.get(key, 0), after.get(key, 0)
        if isinstance(then, int) and isinstance(now, int) and now > then:
            violations.append(Violation(13, f"{key} rose from {then} to {now}"))
    return violations


def back_to_baseline(
    before: Mapping[str, object],
    after: Mapping[str, object],
    *,
    memory_slack_bytes: int = 32 << 20,
) -> list[Violation]:
    """2 and 39: tasks and descriptors are back where they were; memory is near it."""
    violations = []
    for key, slack in (("tasks", 2), ("descriptors", 2), ("rss_bytes", memory_slack_bytes)):
        then, now = before.get(key), after.get(key)
        if isinstance(then, int) and isinstance(now, int) and now > then + slack:
            violations.append(Violation(2, f"{key} rose from {then} to {now}"))
    return violations


def registry_matches(connections: Iterable[str], registered: Iterable[str]) -> list[Violation]:
    """15: the registry's agents are the connected agents."""
    live, known = set(connections), set(registered)
    return [
        Violation(15, f"{uri} is connected but not in the registry") for uri in live - known
    ] + [Violation(15, f"{uri} is in the registry but not connected") for uri in known - live]


def transfers_are_honest(history: History, carriers: Iterable[str]) -> list[Violation]:
    """20, 23, 24: a stream is complete and equal, or visibly reset because its carrier died.

    `carriers` are the places whose death may reset streams (stream pairs, agent connections,
    their supervisors): patterns as path prefixes.
    """
    prefixes = tuple(carriers)
    violations = []
    for transfer in history.transfers:
        if transfer.outcome == "complete":
            continue
        if transfer.outcome in ("truncated", "corrupt", "stuck"):
            violations.append(
                Violation(23, f"{transfer.name}: {transfer.outcome} {transfer.detail}")
            )
            continue
        explained = any(
            action.done
            and transfer.began - 1.0 <= action.at <= transfer.ended + 0.5
            and any(
                covered(prefix, {top}) or top.startswith(prefix)
                for top in action.group
                for prefix in prefixes
            )
            for action in history.actions
        )
        if not explained:
            violations.append(
                Violation(
                    20, f"{transfer.name} was reset without a carrier's death: {transfer.detail}"
                )
            )
    return violations


#: A process child needs this long to start, connect and register.
PROCESS_SECONDS = 15.0


def probes_recover(history: History, *, within: float = 1.0) -> list[Violation]:
    """16: a new stream works within `within` seconds of any fault (longer for a process).

    A probe is (time, seconds it took, error text); failures are allowed only in the shadow of a
    fault, and the last probe after the last fault must succeed.
    """
    violations = []
    for at, _seconds, error in history.probes:
        if not error:
            continue
        for action in history.actions:
            shadow = PROCESS_SECONDS if covered(action.path, {"/node"}) else within
            if action.done and action.at - 6.0 <= at <= action.at + shadow:
                break  # it began before the fault (a probe takes 5 s at most), or in its shadow
        else:
            violations.append(Violation(16, f"a new stream failed without a recent fault: {error}"))
    last_fault = max((action.at for action in history.actions), default=0.0)
    after = [probe for probe in history.probes if probe[0] > last_fault + within]
    if after and after[-1][2]:
        violations.append(Violation(16, f"the last probe failed: {after[-1][2]}"))
    return violations
