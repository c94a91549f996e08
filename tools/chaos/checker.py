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
#: What resident memory may grow by in one run: allocators keep what a burst of streams needed.
MEMORY_SLACK_BYTES = 32 << 20
#: Figures that must be back, and by how much each may differ (a connection of the tool itself).
COUNTED = {"tasks": 2, "descriptors": 2, "actors": 1, "timers": 2}
#: Exit kinds an actor may end with on its own.
GRACEFUL = frozenset({"normal", "shutdown"})


@dataclass(frozen=True, slots=True)
class Violation:
    """One broken invariant.

    Attributes:
        doubtful: it is about time, and the machine alone was so slow meanwhile that it says nothing
            about the relay.
    """

    invariant: int
    text: str
    doubtful: bool = False

    def __str__(self) -> str:
        judged = "not judged (the machine was too slow): " if self.doubtful else ""
        return f"{judged}invariant {self.invariant}: {self.text}"


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
    memory_slack_bytes: int = MEMORY_SLACK_BYTES,
) -> list[Violation]:
    """2 and 39: actors, tasks, timers, descriptors and what actors own are as many as before.

    Memory may be `memory_slack_bytes` above. `resources` counts what actors own by kind.
    """
    violations = []
    for key, slack in (*COUNTED.items(), ("rss_bytes", memory_slack_bytes)):
        then, now = before.get(key), after.get(key)
        if isinstance(then, int) and isinstance(now, int) and now > then + slack:
            violations.append(Violation(2, f"{key} rose from {then} to {now}"))
    owned_then, owned_now = before.get("resources"), after.get("resources")
    if isinstance(owned_then, Mapping) and isinstance(owned_now, Mapping):
        violations += [
            Violation(2, f"actors own {count} x {kind!r}, before {owned_then.get(kind, 0)}")
            for kind, count in sorted(owned_now.items())
            if count > owned_then.get(kind, 0)
        ]
    return violations


def mailboxes_are_bounded(history: History) -> list[Violation]:
    """5: no mailbox was ever seen above its bound."""
    return [
        Violation(5, f"{seen.path} held {seen.depth} messages, its bound is {seen.bound}")
        for seen in history.overfull
    ]


def escalations_are_paid_for(
    history: History, windows: Mapping[str, tuple[int, float]]
) -> list[Violation]:
    """9: a supervisor gives up only when its budget of restarts is spent.

    Restarts before the recording began are unknown: `windows` names the supervisors whose window
    was seen, and what was used of it then does not count as unpaid.
    """
    violations = []
    for event in history.events:
        supervisor, at = str(event.get("path", "")), _time(event)
        if event.get("kind") != "escalated" or supervisor not in windows:
            continue
        limit, period = windows[supervisor]
        restarts = sum(
            1
            for other in history.events
            if other.get("kind") == "exited"
            and str(_field(other, "supervisor")) == supervisor
            and at - period <= _time(other) <= at
        )
        if restarts <= limit:
            text = f"{supervisor} gave up after {restarts} deaths, its budget is {limit}"
            violations.append(Violation(9, text))
    return violations


def order_holds(history: History, before: Tree) -> list[Violation]:
    """8: with rest_for_one and one_for_all, children start in the order of their specs.

    When one starts, everybody before it runs and nobody after it does.
    """
    violations = []
    for supervisor, names in before.children.items():
        if before.text(supervisor, "strategy") not in ("rest_for_one", "one_for_all"):
            continue
        up = {name: before.text(name, "state") in ("running", "busy") for name in names}
        for event in history.events:
            path = str(event.get("path", ""))
            if path not in up:
                continue
            if event.get("kind") == "exited":
                up[path] = False
            elif event.get("kind") == "started":
                index = names.index(path)
                early = [name for name in names[:index] if not up[name]]
                late = [name for name in names[index + 1 :] if up[name]]
                violations += [
                    Violation(8, f"{path} started before {name}, which it depends on")
                    for name in early
                ]
                violations += [
                    Violation(8, f"{path} started while {name}, which depends on it, still ran")
                    for name in late
                ]
                up[path] = True
    return violations
