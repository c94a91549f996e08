"""The body of an actor's task, and the exit sequence.

The loop's priorities, in this order: 1 system lane, 2 user lane up to `BUDGET` messages (then the
event loop gets a turn), 3 sleep on one future.

The exit sequence of every death: (1) admission closes; (2) the reason is frozen as text;
(3) `terminate`, unless killed; (4) resources are released in reverse order; (5) names and timers
go; (6) asks fail, queued messages become dead letters or are kept; (7) links and monitors hear
of it; (8) the supervisor and the event stream do.

Source: docs/runtime.md sections 3 and 6.
"""

from __future__ import annotations

import asyncio
from time import perf_counter
from types import CoroutineType
from typing import TYPE_CHECKING

from .asks import Ask
from .events import Event
from .lifecycle import State
from .mailbox import SAMPLE_MASK, Coalesced, Stamped
from .messages import Deferred, Down
from .reasons import NORMAL, ExitKind, ExitReason, from_exception
from .signals import ChildExited, Crash, Stop, Tick

if TYPE_CHECKING:
    from .actor import Actor
    from .cell import Cell

#: Messages served before the event loop gets a turn.
BUDGET = 128


async def live(cell: Cell, failure: Exception | None) -> None:
    """One incarnation, from `init` to the exit sequence."""
    reason = NORMAL
    phase = ExitKind.INIT_FAILED
    incarnation = cell.incarnation
    cancelled: asyncio.CancelledError | None = None
    try:
        if failure is not None:
            raise failure
        actor = cell.actor
        assert actor is not None
        started = actor.init()
        if started is not None:
            async with asyncio.timeout(cell.spec.start_timeout):
                await started
        phase = ExitKind.CRASH
        cell.state = State.RUNNING
        cell.system.events.publish(
            Event("started", cell.path, incarnation, {"class": type(actor).__name__})
        )
        if cell.children is None:
            cell.announce_started()
        continued = actor.continue_()
        if continued is not None:
            cell.system.awaiting[cell] = cell.system.loop.time()
            await continued
            cell.system.awaiting.pop(cell, None)
        reason = await serve(cell, actor)
    except asyncio.CancelledError as exc:
        if cell.abort_reason is None:
            # Nobody asked for this: either a bug in the handler, or the loop is closing.
            reason = from_exception(phase, exc, "unexpected cancel")
            cancelled = exc
    except GeneratorExit:
        raise
    except KeyboardInterrupt as exc:
        reason = from_exception(phase, exc)
        cell.system.interrupted = True
    except BaseException as exc:  # SystemExit in a handler must not end the process
        reason = from_exception(phase, exc)
    if cell.incarnation != incarnation:
        return  # declared undead meanwhile: its place already goes on without it
    if cell.abort_reason is None:
        close_admission(cell, reason)
        if phase is ExitKind.CRASH and cell.actor is not None:
            reason = await farewell(cell, reason)
    if cell.incarnation != incarnation:
        return
    if cell.abort_reason is None:
        release(cell, reason)
    else:
        reason = cell.abort_reason
    finish(cell, reason)
    if cancelled is not None:
        raise cancelled


async def serve(cell: Cell, actor: Actor) -> ExitReason:
    """Serve both lanes until something ends this incarnation. Returns why."""
    mailbox = cell.mailbox
    queue = mailbox.queue
    handlers = actor._handlers
    system = cell.system
    budget = BUDGET
    while True:
        system.running = cell
        while True:
            if mailbox.system:
                verdict = await serve_system(cell, actor, mailbox.system.popleft())
                if verdict is not None:
                    return verdict
                if cell.exit_reason is not None:
                    return cell.exit_reason
                continue
            if not queue or cell.suspended:
                break
            item = queue.popleft()
            kind = type(item)
            handler = handlers.get(kind)
            if handler is None or kind is Down:
                item = mailbox.unwrap(item) if kind in (Stamped, Coalesced) else item
                kind = type(item)
                if kind is Ask:
                    await serve_ask(cell, actor, item)  # type: ignore[arg-type]  # kind is Ask
                else:
                    await serve_special(cell, actor, item)
            else:
                cell.handled += 1
                cell.last_type = kind
                if cell.tracer is not None:
                    cell.tracer.record(cell, item)
                if cell.handled & SAMPLE_MASK:
                    result = handler(actor, item)
                else:
                    began = perf_counter()
                    result = handler(actor, item)
                    cell.busy += (perf_counter() - began) * (SAMPLE_MASK + 1)
                if type(result) is CoroutineType:
                    await patient(cell, result)
            if cell.exit_reason is not None:
                return cell.exit_reason
            if mailbox.has_senders:
                mailbox.made_room()
            budget -= 1
            if budget <= 0:
                budget = BUDGET
                await asyncio.sleep(0)
                system.running = cell
        if cell.exit_reason is not None:  # `stop()` from a task, a guard or `continue_`
            return cell.exit_reason
        if cell.state is State.DRAINING and not queue:
            return NORMAL
        budget = BUDGET
        waiter = mailbox.waiter = system.loop.create_future()
        await waiter


async def patient(cell: Cell, result: CoroutineType[object, object, object]) -> object:
    """Await an async handler, visible to the sweep that finds stuck actors."""
    awaiting = cell.system.awaiting
    awaiting[cell] = cell.system.loop.time()
    try:
        return await result
    finally:
        awaiting.pop(cell, None)
        cell.system.running = cell


async def serve_special(cell: Cell, actor: Actor, item: object) -> None:
    """Everything that is not a plain message with a handler: ticks, Downs, unknown types."""
    if type(item) is Tick:
        if not cell.take_tick(item):
            return
        item = item.message
    elif type(item) is Down:
        if cell.watching is None or cell.watching.pop(item.token, None) is None:
            return  # demonitored after it was queued
    handler = actor._handlers.get(type(item))
    cell.handled += 1
    cell.last_type = type(item)
    if cell.tracer is not None:
        cell.tracer.record(cell, item)
    if handler is None:
        actor.unhandled(item)
        return
    result = handler(actor, item)
    if type(result) is CoroutineType:
        await patient(cell, result)


async def serve_ask(cell: Cell, actor: Actor, ask: Ask) -> None:
    """Handle a request and answer it, unless it expired or its handler defers."""
    if ask.future.done() or cell.system.loop.time() > ask.deadline:
        cell.expired += 1
        return
    message = ask.message
    handler = actor._handlers.get(type(message))
    cell.handled += 1
    cell.last_type = type(message)
    if cell.tracer is not None:
        cell.tracer.record(cell, message)
    if handler is None:
        actor.unhandled(message)
        ask.fail(cell.path, cell.incarnation, ExitReason(ExitKind.NOPROC, "unhandled message"))
        return
    cell.current_ask = ask
    result = handler(actor, message)
    if type(result) is CoroutineType:
        result = await patient(cell, result)
    cell.current_ask = None
    if type(result) is not Deferred:
        ask.answer(result)


async def serve_system(cell: Cell, actor: Actor, item: object) -> ExitReason | None:
    """One system message; returns a reason when it ends this incarnation."""
    if type(item) is Stop:
        if item.drain:
            cell.open = False
            cell.state = State.DRAINING
            if cell.exit_reason is None and not cell.mailbox.queue:
                return NORMAL
            return None
        return item.reason if actor.on_stop(item.reason) else None
    if type(item) is Crash:
        raise item.error
    handler = actor._handlers.get(type(item))
    if handler is not None:
        result = handler(actor, item)
        if type(result) is CoroutineType:
            await patient(cell, result)
    return None


# The exit sequence.


def close_admission(cell: Cell, reason: ExitReason) -> None:
    """Steps 1 and 2: nothing more comes in; the reason is final."""
    cell.state = State.STOPPING
    cell.exit_reason = reason
    cell.open = cell.spec.mailbox == "keep"


async def farewell(cell: Cell, reason: ExitReason) -> ExitReason:
    """Step 3: `terminate` under the child's shutdown deadline. Returns the final reason."""
    actor = cell.actor
    assert actor is not None
    deadline = cell.spec.shutdown
    try:
        goodbye = actor.terminate(reason)
        if goodbye is not None:
            async with asyncio.timeout(5.0 if deadline is None else deadline):
                await goodbye
    except asyncio.CancelledError:
        if cell.abort_reason is None:
            raise
    except Exception as exc:  # the farewell failed: that is the reason now, unless already crashed
        if not reason.abnormal:
            reason = from_exception(ExitKind.CRASH, exc, "in terminate")
            cell.exit_reason = reason
    return reason


def release(cell: Cell, reason: ExitReason) -> None:
    """Steps 4 to 6: resources, names, timers, asks and the mailbox. Synchronous."""
    system = cell.system
    system.awaiting.pop(cell, None)
    if cell.children:
        for item in cell.mailbox.system or ():  # exits nobody will decide about any more
            if type(item) is ChildExited:
                system.reporter.exited(
                    cell, item.cell, item.reason, item.uptime, "supervisor ended"
                )
        for child in reversed(list(cell.children.values())):
            if child.task is None:  # between two lives, or before the first: nobody starts it now
                child.close()
            else:
                child.abort(ExitReason(ExitKind.KILLED, "supervisor ended"))
    errors = cell.resources.release()
    for error in errors:
        system.resource_errors += 1
        system.events.publish(
            Event(
                "release_error",
                cell.path,
                cell.incarnation,
                {"error": f"{type(error).__name__}: {error}"[:200]},
            )
        )
    if cell.names is not None:
        for name in cell.names:
            system.unregister_name(name, cell)
        cell.names = None
    if cell.timers is not None:
        for tick in cell.timers.values():
            if tick.timer is not None:
                system.timers.cancel(tick.timer)
        cell.timers = None
    if cell.current_ask is not None:
        ask, cell.current_ask = cell.current_ask, None
        ask.fail(cell.path, cell.incarnation, reason)
    if cell.deferred is not None:
        for ask in cell.deferred:
            ask.fail(cell.path, cell.incarnation, reason)
        cell.deferred = None
    mailbox = cell.mailbox
    mailbox.system = None
    if cell.spec.mailbox != "keep":
        discard_mailbox(cell, reason)
    else:
        kept = [item for item in mailbox.queue if type(item) not in (Tick, Down)]
        mailbox.queue.clear()
        mailbox.queue.extend(kept)


def discard_mailbox(cell: Cell, reason: ExitReason) -> None:
    """Fail the queued asks and make dead letters of everything else."""
    mailbox = cell.mailbox
    queue = mailbox.queue
    while queue:
        item = mailbox.unwrap(queue.popleft())
        if type(item) is Ask:
            item.fail(cell.path, cell.incarnation, reason)
        elif type(item) not in (Tick, Down):
            cell.dead_letter(item, "died")
    mailbox.release_senders()


def finish(cell: Cell, reason: ExitReason) -> None:
    """Steps 7 and 8: tell links, monitors, the supervisor and the event stream."""
    system = cell.system
    incarnation = cell.incarnation
    uptime = system.loop.time() - cell.started_at
    cell.task = None
    cell.actor = None
    cell.suspended = False
    cell.tracer = None
    cell.last_exit = reason
    if cell.watching is not None:
        for token, target in cell.watching.items():
            if target.monitors is not None:
                target.monitors.pop(token, None)
        cell.watching = None
    if cell.links is not None:
        peers, cell.links = list(cell.links), None
        for peer in peers:
            if peer.links is not None:
                peer.links.pop(cell, None)
            peer.exit_of_link(cell.path, incarnation, reason)
    notify_monitors(cell, reason)
    system.exited(cell, reason, uptime)


def notify_monitors(cell: Cell, reason: ExitReason) -> None:
    """Every monitor gets its one `Down`."""
    monitors, cell.monitors = cell.monitors, None
    if monitors is None:
        return
    for token, watcher in monitors.items():
        down = Down(token, cell.path, cell.incarnation, reason)
        if not isinstance(watcher, tuple):
            watcher(down)
        elif watcher[0].incarnation == watcher[1] and watcher[0].state < State.STOPPING:
            watcher[0].mailbox.offer_reserved(down)
