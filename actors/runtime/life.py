"""The body of an actor's task: start, serve, end.

The loop's priorities, in this order: 1 system lane, 2 user lane up to `BUDGET` messages or
`TURN_SECONDS` (then the event loop gets a turn), 3 sleep on one future.

Anything an incarnation's own code raises ends this incarnation and nothing else; `live` is the
only frame in which that is decided. Whether a cancellation is a kill is decided by the cell's
`abort_reason`, never by counting cancellations.

Source: docs/runtime.md sections 3, 4 and 6.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from time import perf_counter
from types import CoroutineType
from typing import TYPE_CHECKING, Final

from .asks import Ask
from .ending import close_admission, farewell, finish, release
from .errors import RuntimeFault, StartRefused
from .events import Event
from .lifecycle import State
from .mailbox import NO_QUEUE, SAMPLE_MASK, Coalesced, Stamped
from .messages import Deferred, ExitSignal
from .monitor import take_notice
from .reasons import NORMAL, ExitKind, ExitReason, from_exception
from .signals import Crash, Notice, Stop, Tick
from .tracebacks import drop_frames

if TYPE_CHECKING:
    from .actor import Actor
    from .cell import Cell

#: Messages served before the event loop gets a turn ...
BUDGET: Final = 128
#: ... or seconds, looked at every `CHECK_MASK + 1` messages.
TURN_SECONDS: Final = 0.001
CHECK_MASK: Final = 31


async def live(cell: Cell, failure: ExitReason | None) -> None:
    """One incarnation, from `init` to the exit sequence.

    Args:
        cell: its place.
        failure: set when there is no actor object to run.
    """
    task = cell.task
    cell.begun = True
    phase = ExitKind.INIT_FAILED
    from_outside = False
    try:
        if cell.abort_reason is not None:  # killed before its first step
            reason = cell.abort_reason
        elif failure is None:
            await begin(cell)
            phase = ExitKind.CRASH
            reason = await serve(cell)
        else:
            reason = failure
    except asyncio.CancelledError as exc:
        # `abort_reason` set: a kill. Otherwise somebody cancelled the task from outside (the
        # event loop is closing), or the actor's code let a foreign cancellation escape.
        from_outside = task is not None and task.cancelling() > 0
        if from_outside:
            reason = ExitReason(ExitKind.KILLED, "its task was cancelled")
        else:
            reason = from_exception(phase, exc, "unexpected cancel")
    except GeneratorExit:
        raise
    except StartRefused as exc:
        if phase is ExitKind.INIT_FAILED:
            reason = ExitReason(ExitKind.REFUSED, str(exc))
            drop_frames(exc)
        else:
            reason = from_exception(phase, exc)
    except KeyboardInterrupt as exc:
        reason = from_exception(phase, exc)
        cell.system.interrupt()
    except BaseException as exc:  # noqa: BLE001  # SystemExit in a handler must not end the process
        reason = from_exception(phase, exc)
    if cell.task is not task:
        return  # declared undead meanwhile: its place already goes on without it
    if cell.abort_reason is None:
        close_admission(cell, reason)
        if phase is ExitKind.CRASH and not from_outside:
            reason = await farewell(cell, reason)
            if cell.task is not task:
                return
    if cell.abort_reason is None:
        release(cell, reason)
    finish(cell, cell.abort_reason or reason)
    if from_outside and cell.abort_reason is None:
        raise asyncio.CancelledError  # whoever cancelled it may look


async def begin(cell: Cell) -> None:
    """`init`, under its deadline, then the news that it runs."""
    actor = cell.actor
    assert actor is not None
    started = actor.init()
    if started is not None:
        async with asyncio.timeout(cell.spec.start_timeout):
            await started
    if cell.abort_reason is not None:
        raise asyncio.CancelledError  # init swallowed its kill, or killed itself
    cell.state = State.RUNNING
    fields: dict[str, object] = {"class": type(actor).__name__}
    cell.system.events.publish(Event("started", cell.path, cell.incarnation, fields))
    if cell.children is None:
        cell.announce_started()


async def serve(cell: Cell) -> ExitReason:
    """`continue_`, then both lanes until something ends this incarnation. Returns why."""
    actor = cell.actor
    assert actor is not None
    if cell.exit_reason is None:
        continued = actor.continue_()
        if continued is not None:
            await patient(cell, actor, continued)
    mailbox = cell.mailbox
    handlers = actor._handlers
    loop = cell.system.loop
    clock = cell.system.clock
    budget = BUDGET
    while True:
        turn_began = clock()
        while cell.exit_reason is None:
            budget -= 1
            if not budget & CHECK_MASK and (not budget or clock() - turn_began > TURN_SECONDS):
                await asyncio.sleep(0)
                budget = BUDGET
                turn_began = clock()
                continue
            if mailbox.system:
                reason = await serve_system(cell, actor, mailbox.system.popleft())
                if reason is not None:
                    return reason
                continue
            queue = mailbox.queue
            if not queue or cell.suspended:
                break
            item = queue.popleft()
            kind = type(item)
            handler = handlers.get(kind)
            if handler is None:
                if type(item) is Ask:
                    work = serve_ask(cell, actor, item)
                else:
                    work = serve_special(cell, actor, item)
                if work is not None:
                    await work
                continue
            cell.handled += 1
            cell.last_type = kind
            if cell.tracer is not None:
                cell.tracer.record(cell, item)
            result = handler(actor, item)
            if type(result) is CoroutineType:
                await patient(cell, actor, result)
        if cell.exit_reason is not None:
            return cell.exit_reason
        if not mailbox.queue:
            if cell.state is State.DRAINING:
                return NORMAL
            mailbox.queue = NO_QUEUE
        budget = BUDGET
        item = result = None  # an idle actor keeps no message and no answer alive
        waiter = mailbox.waiter = loop.create_future()
        await waiter


async def patient(cell: Cell, actor: Actor, result: Awaitable[object]) -> object:
    """Await an async handler, visible to the sweep that finds stuck actors.

    Raises `CancelledError` when the incarnation was ended meanwhile and the handler swallowed
    its cancellation: it must not touch the mailbox again, which may be its successor's by now.
    """
    cell.system.note_waiting(cell)
    try:
        return await result
    finally:
        if cell.actor is actor:
            cell.system.awaiting.pop(cell, None)
        if cell.actor is not actor or cell.abort_reason is not None:
            raise asyncio.CancelledError


def serve_special(cell: Cell, actor: Actor, item: object) -> Awaitable[object] | None:
    """What is neither a plain message with a handler nor an ask: ticks, `Down`s, samples.

    Returns what is left to await, None when it is done.
    """
    kind = type(item)
    weight = 0
    if kind is Stamped or kind is Coalesced:
        # The sampled one in 64 (and what may coalesce) is timed while it is handled.
        weight = SAMPLE_MASK + 1 if kind is Stamped else 1
        item = cell.mailbox.unwrap(item)
        if type(item) is Ask:
            return serve_ask(cell, actor, item, weight)
    elif type(item) is Tick:
        cell.mailbox.reserved -= 1
        if not cell.take_tick(item):
            cell.expired += 1
            return None
        item = item.message
    elif type(item) is Notice:
        cell.mailbox.reserved -= 1
        if not take_notice(cell, item):
            cell.expired += 1
            return None
        item = item.down
    result = dispatch(cell, actor, item, weight)
    return patient(cell, actor, result) if type(result) is CoroutineType else None


def dispatch(cell: Cell, actor: Actor, message: object, weight: int) -> object:
    """Call the handler of a message. Returns what it returned: a coroutine when it is async.

    `weight`: how many messages this one stands for in the busy time; 0 takes no time.
    """
    cell.handled += 1
    cell.last_type = type(message)
    if cell.tracer is not None:
        cell.tracer.record(cell, message)
    handler = actor._handlers.get(type(message))
    if handler is None:
        actor.unhandled(message)
        return None
    if not weight:
        return handler(actor, message)
    began = perf_counter()
    result = handler(actor, message)
    cell.busy += (perf_counter() - began) * weight
    return result


def serve_ask(cell: Cell, actor: Actor, ask: Ask, weight: int = 0) -> Awaitable[object] | None:
    """Handle a request and answer it, unless it expired or its handler defers.

    Returns what is left to await when the handler is async. A plain function that repeats what
    `dispatch` does: a coroutine or another call would each be a twentieth of what an ask costs.
    """
    future = ask.future
    if future.done() or cell.system.clock() > ask.expires:
        cell.expired += 1
        return None
    message = ask.message
    kind = type(message)
    handler = actor._handlers.get(kind)
    cell.current_ask = ask
    if weight or handler is None or cell.tracer is not None:
        if handler is None:
            ask.fail(cell.incarnation, ExitReason(ExitKind.NOPROC, "unhandled message"))
        result = dispatch(cell, actor, message, weight)
    else:
        cell.handled += 1
        cell.last_type = kind
        result = handler(actor, message)
    kind = type(result)
    if kind is CoroutineType:
        return answer_later(cell, actor, ask, result)  # type: ignore[arg-type]  # a coroutine
    if ask.holder is not None or kind is Deferred:
        complete(cell, ask, result)
    elif not future.done():
        future.set_result(result)
    cell.current_ask = None
    return None


async def answer_later(cell: Cell, actor: Actor, ask: Ask, result: Awaitable[object]) -> None:
    """Answer with what an async handler returns."""
    complete(cell, ask, await patient(cell, actor, result))
    cell.current_ask = None


def complete(cell: Cell, ask: Ask, result: object) -> None:
    """The handler returned: that is the answer, unless it deferred."""
    if type(result) is not Deferred:
        if ask.holder is not None:
            cell.forget_deferred(ask)
        ask.answer(result)
    elif ask.holder is None and not ask.future.done():
        raise RuntimeFault(f"the handler of {type(ask.message).__name__} deferred without defer()")


async def serve_system(cell: Cell, actor: Actor, item: object) -> ExitReason | None:
    """One system message; returns a reason when it ends this incarnation."""
    if type(item) is Stop:
        if item.drain:
            cell.drain()
            return None
        return item.reason if actor.on_stop(item.reason) else None
    if type(item) is Crash:
        raise item.error
    handler = actor._handlers.get(type(item))
    if handler is not None:
        result = handler(actor, item)
        if type(result) is CoroutineType:
            await patient(cell, actor, result)
    elif type(item) is ExitSignal:
        cell.dead_letter(item, "unhandled")
    return None


#: The outermost frame of every actor; the watchdog recognizes it and reads `cell`.
LIFE_FRAME: Final = live.__code__
