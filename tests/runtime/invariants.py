"""The invariants of the runtime, as checks of a run's ledger, event log and cells.

Numbers are those of docs/chaos.md (1 to 14). Each check returns what it found broken;
`test_invariants.py` breaks the runtime on purpose and sees each of them fail.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from actors.runtime import ActorSystem, Event, Intensity, Strategy, inspection
from actors.runtime.cell import Cell
from actors.runtime.signals import Notice, Tick
from actors.runtime.simulation import EventLog

from .world import Ledger

#: Virtual seconds an ask may end after its deadline.
ASK_SLACK = 0.2
OUTCOMES = frozenset(
    ("answer", "cancelled", "ReplyError", "ActorDown", "AskTimeout", "MailboxFull", "AskCycle")
)
Supervisors = Mapping[str, tuple[Strategy, Intensity, tuple[str, ...]]]


@dataclass(frozen=True, slots=True)
class Violation:
    """One broken invariant."""

    number: int
    text: str


def check_cells(system: ActorSystem) -> Iterator[Violation]:
    """Looks at the whole tree; may be called at any moment between two callbacks."""
    for cell in inspection.walk(system.root):
        yield from mailbox_is_conserved(cell)
        yield from the_dead_own_nothing(cell)


def mailbox_is_conserved(cell: Cell) -> Iterator[Violation]:
    """5: no message is lost or counted twice, and the bound holds."""
    mailbox = cell.mailbox
    queued = len(mailbox.queue)
    reserved = sum(type(item) in (Tick, Notice) for item in mailbox.queue)
    accounted = cell.handled + cell.expired + cell.failed + mailbox.dropped
    accounted += cell.dead - cell.late + queued
    if accounted != mailbox.received:
        yield Violation(5, f"{cell.path} received {mailbox.received}, accounted for {accounted}")
    if mailbox.reserved != reserved:
        yield Violation(5, f"{cell.path} has {reserved} reserved slots, not {mailbox.reserved}")
    if queued - reserved > mailbox.bound and cell.incarnation:
        yield Violation(5, f"{cell.path} holds {queued - reserved} of {mailbox.bound}")


def the_dead_own_nothing(cell: Cell) -> Iterator[Violation]:
    """2: where nobody runs there are no resources, timers, names, links, monitors held."""
    if not cell.released and cell.task is not None:
        return
    held = {
        "resources": len(cell.resources),
        "timers": len(cell.timers or ()),
        "names": len(cell.names or ()),
        "deferred asks": len(cell.deferred or ()),
        "current ask": cell.current_ask is not None,
        "system lane": len(cell.mailbox.system or ()) if cell.task is None else 0,
    }
    if cell.task is None:
        held["links"] = len(cell.links or ())
        held["watching"] = len(cell.watching or ())
        held["doom"] = cell.doom is not None
    if any(held.values()):
        yield Violation(2, f"{cell.path} ({cell.state.name}) still holds {held}")
    if cell.task is None and cell.living:
        yield Violation(1, f"{cell.path} is {cell.state.name} without a task")


def releases_before_reports(event: Event, ledger: Ledger) -> Iterator[Violation]:
    """2: when an exit is reported, everything the incarnation owned was released."""
    if event.kind != "exited":
        return
    for thing in ledger.things:
        if thing.owner == (event.path, event.incarnation) and thing.released != 1:
            text = f"{event.path} #{event.incarnation}: a resource released {thing.released} times"
            yield Violation(2, text)


def check_run(
    log: EventLog, ledger: Ledger, system: ActorSystem, supervisors: Supervisors
) -> Iterator[Violation]:
    """After the end of a run."""
    yield from one_end_each(log, ledger, system)
    yield from everything_released(ledger, system)
    yield from asks_have_outcomes(ledger)
    yield from actors_saw_no_fault(ledger)
    yield from windows_hold(log, supervisors)
    yield from backoff_is_bounded(log, supervisors)
    yield from starts_in_order(log, supervisors)
    yield from stops_in_reverse(log, supervisors)
    yield from escalations_are_paid_for(log)
    if system.unowned_exceptions:
        yield Violation(13, f"{system.unowned_exceptions} exceptions outside every actor")


def one_end_each(log: EventLog, ledger: Ledger, system: ActorSystem) -> Iterator[Violation]:
    """1: every incarnation ends exactly once, with one report, after its start."""
    started: set[tuple[str, int]] = set()
    ended: set[tuple[str, int]] = set()
    for event in log.events:
        who = event.path, event.incarnation
        if event.kind == "started":
            if who in started or who in ended:
                yield Violation(1, f"{who} started twice, or after its end")
            started.add(who)
        elif event.kind == "exited":
            if who in ended:
                yield Violation(1, f"{who} ended twice")
            ended.add(who)
    for who in (started | set(ledger.begun)) - ended:
        yield Violation(1, f"{who} never ended")
    if len(ended) != system.actors_started:
        yield Violation(1, f"{system.actors_started} incarnations, {len(ended)} ends")
    if system.living or system.owned_tasks or system.dying:
        yield Violation(1, f"{system.living} actors and {system.owned_tasks} tasks left")


def everything_released(ledger: Ledger, system: ActorSystem) -> Iterator[Violation]:
    """2: nothing is left of anybody."""
    for thing in ledger.things:
        if thing.released != 1:
            yield Violation(2, f"a resource of {thing.owner} was released {thing.released} times")
    if system._names or len(system.timers) or system.awaiting:
        left = f"{list(system._names)}, {len(system.timers)} timers, {len(system.awaiting)} waiting"
        yield Violation(2, f"left in the system: names {left}")


def asks_have_outcomes(ledger: Ledger) -> Iterator[Violation]:
    """3: every ask ends once, and in time."""
    for asked in ledger.asked:
        if asked.ended is None or asked.outcome not in OUTCOMES:
            yield Violation(3, f"{asked} has no outcome")
        elif asked.ended > asked.began + asked.timeout + ASK_SLACK:
            yield Violation(3, f"{asked} ended too late")


def actors_saw_no_fault(ledger: Ledger) -> Iterator[Violation]:
    """4 and what else only an actor can see: order of messages, one Down per monitor."""
    for fault in ledger.faults:
        yield Violation(4, fault)
    for (watcher, token), downs in ledger.downs.items():
        if len(downs) > 1:
            yield Violation(4, f"{watcher} got {len(downs)} Downs for monitor {token}")


def counted_by(event: Event) -> str:
    """The supervisor in whose window this restart counts; empty when it is none."""
    decision = str(event.fields.get("decision", ""))
    if decision == "restart" or decision.startswith("restart in"):
        return str(event.fields["supervisor"])
    return ""


def windows_hold(log: EventLog, supervisors: Supervisors) -> Iterator[Violation]:
    """6: never more restarts than the intensity within any period of one supervisor's life."""
    for path, (_, intensity, _) in supervisors.items():
        times: list[float] = []
        for event in log.events:
            if event.kind == "started" and event.path == path:
                times = []
            elif counted_by(event) == path:
                times.append(event.at)
                recent = [at for at in times if event.at - at < intensity.period - 1e-9]
                if len(recent) > intensity.restarts:
                    yield Violation(6, f"{path}: over {intensity} at {event.at}")


def backoff_is_bounded(log: EventLog, supervisors: Supervisors) -> Iterator[Violation]:
    """6: a delay is at least half of, and at most, what the attempt's number says."""
    for event in log.events:
        supervisor = counted_by(event)
        if supervisor not in supervisors:
            continue
        attempt = event.fields["attempt"]
        assert isinstance(attempt, int)
        match = re.fullmatch(r"restart in ([0-9.]+) s", str(event.fields["decision"]))
        delay = float(match[1]) if match else 0.0
        limit = 0.0 if attempt == 1 else min(2.0, 0.1 * 2 ** (attempt - 2))
        if event.path in supervisors or event.fields.get("class") == "DynamicSupervisor":
            limit = 0.0 if attempt == 1 else min(30.0, 0.1 * 2 ** (attempt - 2))
        if not limit / 2 - 0.001 <= delay <= limit + 0.001:
            yield Violation(6, f"{supervisor}: attempt {attempt} of {event.path} waits {delay} s")


def _child_of(event: Event, path: str, order: tuple[str, ...]) -> int | None:
    """The index of the child of `path` that an event is about."""
    prefix = path if path.endswith("/") else f"{path}/"
    name = event.path[len(prefix) :]
    return order.index(name) if event.path.startswith(prefix) and name in order else None


def starts_in_order(log: EventLog, supervisors: Supervisors) -> Iterator[Violation]:
    """8: in every life of a supervisor its children start for the first time in spec order."""
    for path, (_, _, order) in supervisors.items():
        first: list[int] = []
        for event in log.events:
            if event.kind != "started":
                continue
            if event.path == path:
                first = []
            index = _child_of(event, path, order)
            if index is None or index in first:
                continue
            if first and index < first[-1]:
                yield Violation(8, f"{path}: {order[index]} started after {order[first[-1]]}")
            first.append(index)


def stops_in_reverse(log: EventLog, supervisors: Supervisors) -> Iterator[Violation]:
    """8: what a supervisor stops, all of it or a group, stops last child first."""
    for path, (_, _, order) in supervisors.items():
        stopped: list[int] = []
        for event in log.events:
            index = _child_of(event, path, order)
            if index is None and event.path != path:
                continue
            by_order = event.fields.get("decision") in ("stopped", "restart with group")
            if index is None or event.kind == "started":
                stopped = []
            elif event.kind == "exited" and by_order and _was_asked_to_stop(event):
                if stopped and index > stopped[-1]:
                    yield Violation(8, f"{path}: {order[index]} stopped after {order[stopped[-1]]}")
                stopped.append(index)


def _was_asked_to_stop(event: Event) -> bool:
    """It ended because of its supervisor's request, not by itself at the same time."""
    return event.fields.get("reason") in ("shutdown", "shutdown(restart with group)")


def escalations_are_paid_for(log: EventLog) -> Iterator[Violation]:
    """9: a supervisor escalates when its budget is spent, and only then."""
    spent: set[str] = set()
    for event in log.events:
        if event.kind == "exited" and event.fields.get("decision") == "escalate":
            window = event.fields["window"]
            assert isinstance(window, dict)
            if window["used"] != window["restarts"] + 1:
                yield Violation(9, f"{event.fields['supervisor']} escalated with {window}")
            spent.add(str(event.fields["supervisor"]))
        elif event.kind == "escalated":
            if event.path not in spent:
                yield Violation(9, f"{event.path} escalated without a reason")
            spent.discard(event.path)
