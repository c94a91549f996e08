"""The exit sequence: how one incarnation ends, in the order of docs/runtime.md section 6.

(1) admission closes; (2) the reason is frozen as text; (3) `terminate`, unless killed;
(4) resources are released in reverse order; (5) names and timers go; (6) asks fail, queued
messages become dead letters or are kept; (7) links and monitors hear of it; (8) the supervisor
and the event stream do.

A kill takes steps 1, 2 and 4 to 6 in the loop turn in which it is decided, whatever the actor's
code is doing, and then cancels the task until it ends; steps 7 and 8 follow when it did, or when
it is given up as undead.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, NamedTuple

from .asks import Ask
from .child_spec import UNBOUNDED
from .events import Event
from .lifecycle import State
from .mailbox import NO_QUEUE
from .monitor import break_links, forget_watching, notify_monitors
from .reasons import ExitKind, ExitReason, from_exception
from .resources import NO_RESOURCES
from .signals import ChildExited, Notice, Tick
from .tracebacks import one_line

if TYPE_CHECKING:
    from .cell import Cell

#: Seconds between the cancellations of a killed task that swallows them; after the last one
#: it is undead: 0.01, 0.1, 1 and 5 s after the kill.
KILL_RETRIES: Final = (0.01, 0.09, 0.9, 4.0)
#: Seconds `terminate` may take when the child spec's deadline is none (`KILL`, `UNBOUNDED`).
TERMINATE_SECONDS: Final = 5.0


class Remains(NamedTuple):
    """What an incarnation left behind, for its report."""

    class_name: str
    depth: int  #: messages in the user lane when it ended
    asks_failed: int  #: asks that heard `ActorDown`: handled, deferred and queued ones
    resources: dict[str, int]  #: how many of each kind were released
    resource_errors: list[str]


def close_admission(cell: Cell, reason: ExitReason) -> None:
    """Steps 1 and 2: nothing more comes in; the reason is final."""
    cell.state = State.STOPPING
    cell.exit_reason = reason
    if cell.spec.mailbox == "keep":
        cell.open = True  # for the next incarnation, also when this one was draining
    else:
        shut(cell)


def shut(cell: Cell) -> None:
    """Accept no more messages."""
    cell.open = False


async def farewell(cell: Cell, reason: ExitReason) -> ExitReason:
    """Step 3: `terminate` under the child's shutdown deadline. Returns the final reason."""
    actor = cell.actor
    assert actor is not None
    limit = cell.shutdown_seconds
    if not 0 < limit < UNBOUNDED:
        limit = TERMINATE_SECONDS
    failed = None
    scope: asyncio.Timeout | None = None
    try:
        goodbye = actor.terminate(reason)
        if goodbye is None:
            return reason
        scope = asyncio.timeout(limit)
        async with scope:
            await goodbye
    except asyncio.CancelledError as exc:
        # Killed meanwhile, or the loop is closing: the caller sees which. Otherwise it is the
        # actor's own doing.
        task = cell.task
        if cell.abort_reason is None and not (task is not None and task.cancelling()):
            failed = from_exception(ExitKind.CRASH, exc, "unexpected cancel in terminate")
    except (Exception, SystemExit) as exc:  # noqa: BLE001  # the actor's code: its own exit
        if scope is not None and scope.expired():
            failed = ExitReason(ExitKind.KILLED, f"terminate took more than {limit:g} s")
        else:
            failed = from_exception(ExitKind.CRASH, exc, "in terminate")
    # What went wrong first is what the report is about.
    if failed is None or reason.abnormal:
        return reason
    cell.exit_reason = failed
    return failed


def release(cell: Cell, reason: ExitReason) -> None:
    """Steps 4 to 6: resources, names, timers, asks and the mailbox. Synchronous."""
    if cell.released:
        return
    cell.released = True
    system = cell.system
    depth = len(cell.mailbox.queue)
    if cell.children is not None:
        _release_children(cell)
    kinds, errors = _release_resources(cell)
    if cell.names is not None:
        for name in cell.names:
            system.unregister_name(name, cell)
        cell.names = None
    if cell.timers is not None:
        for tick in cell.timers.values():
            if tick.timer is not None:
                system.timers.cancel(tick.timer)
        cell.timers = None
    failed = 0
    if cell.deferred or cell.current_ask is not None:
        unanswered = dict.fromkeys(cell.deferred or ())
        if cell.current_ask is not None:
            unanswered[cell.current_ask] = None
        failed = sum(not ask.future.done() for ask in unanswered)
        for ask in unanswered:
            ask.fail(cell.incarnation, reason)
    cell.current_ask = cell.deferred = None
    queued_before = cell.failed
    cell.mailbox.system = None
    if cell.spec.mailbox == "keep":
        _keep_messages(cell)
    else:
        discard_mailbox(cell, reason)
    class_name = type(cell.actor).__name__ if cell.actor is not None else ""
    failed += cell.failed - queued_before
    cell.remains = Remains(class_name, depth, failed, kinds, errors)


def _release_resources(cell: Cell) -> tuple[dict[str, int], list[str]]:
    resources, cell.resources = cell.resources, NO_RESOURCES
    if not resources:
        return {}, []
    system = cell.system
    kinds = resources.kinds()
    errors = [one_line(error) for error in resources.release()]
    for error in errors:
        system.resource_errors += 1
        system.events.publish(Event("release_error", cell.path, cell.incarnation, {"error": error}))
    return kinds, errors


def _release_children(cell: Cell) -> None:
    """A supervisor's end takes its children. Their places are gone, too.

    A child that lives is killed, and reports by itself when its task has ended. One that ended
    already is reported here, because nobody will read its `ChildExited` any more.
    """
    children = cell.children or {}
    cell.children = {}
    for message in cell.mailbox.system or ():
        if type(message) is ChildExited and children.get(message.cell.id) is message.cell:
            cell.system.reporter.exited(
                cell, message.cell, message.reason, message.uptime, "supervisor ended"
            )
    for child in reversed(children.values()):
        if child.task is None:
            child.close()
        else:
            child.abort(ExitReason(ExitKind.KILLED, "supervisor ended"))
            shut(child)


def _keep_messages(cell: Cell) -> None:
    """The next incarnation gets what is queued, without the ticks and notices of this one."""
    mailbox = cell.mailbox
    if mailbox.queue is NO_QUEUE:
        return
    kept = [item for item in mailbox.queue if type(item) not in (Tick, Notice)]
    cell.expired += len(mailbox.queue) - len(kept)
    mailbox.reserved = 0
    mailbox.queue.clear()
    mailbox.queue.extend(kept)


def discard_mailbox(cell: Cell, reason: ExitReason) -> None:
    """Fail the queued asks and make dead letters of everything else."""
    mailbox = cell.mailbox
    queue = mailbox.queue
    while queue:
        item = mailbox.unwrap(queue.popleft())
        _discard(cell, item, reason)
    mailbox.queue = NO_QUEUE
    mailbox.reserved = 0


def _discard(cell: Cell, item: object, reason: ExitReason) -> None:
    if type(item) is Ask:
        if item.future.done():
            cell.expired += 1
        else:
            cell.failed += 1
            item.fail(cell.incarnation, reason)
    elif type(item) in (Tick, Notice):
        cell.expired += 1
    else:
        cell.bury(item, "died")


def finish(cell: Cell, reason: ExitReason) -> None:
    """Steps 7 and 8: tell links, monitors, the supervisor and the event stream."""
    system = cell.system
    uptime = system.clock() - cell.started_at
    if cell.doom is not None:
        system.timers.cancel(cell.doom)
        cell.doom = None
    cell.task = None
    cell.actor = None
    cell.suspended = False
    cell.last_exit = reason
    system.awaiting.pop(cell, None)
    system.dying.pop(cell, None)
    if cell.watching is not None:
        forget_watching(cell)
    if cell.links is not None:
        break_links(cell, reason)
    if cell.monitors is not None:
        notify_monitors(cell, reason)
    system.exited(cell, reason, uptime)


# Kill.


def abort(cell: Cell, reason: ExitReason) -> None:
    """Close admission, release everything, then cancel the task until it ends."""
    if cell.abort_reason is not None or not State.NEW < cell.state <= State.STOPPING:
        return
    task = cell.task
    if task is None:
        return
    cell.abort_reason = reason
    close_admission(cell, reason)
    release(cell, reason)
    cell.system.dying[cell] = None
    if cell.begun:  # a task cancelled before its first step would never run its last one
        task.cancel()
    _insist(cell, 0)


def _insist(cell: Cell, step: int) -> None:
    incarnation = cell.incarnation

    def again() -> None:
        task = cell.task
        if task is None or cell.incarnation != incarnation:
            return
        if step + 1 < len(KILL_RETRIES):
            task.cancel()
            _insist(cell, step + 1)
        else:
            give_up(cell)

    timers = cell.system.timers
    if cell.doom is not None:
        timers.cancel(cell.doom)
    cell.doom = timers.after(KILL_RETRIES[step], again)


def give_up(cell: Cell) -> None:
    """The task swallowed every cancellation: go on without the corpse, and say so."""
    system = cell.system
    task = cell.task
    assert task is not None
    system.undead += 1
    system.keep_undead(task)
    system.events.publish(Event("undead", cell.path, cell.incarnation))
    if cell.actor is not None:
        cell.actor._cell = cell.ghost()  # what the corpse still does touches nobody
    assert cell.abort_reason is not None
    finish(cell, cell.abort_reason)
