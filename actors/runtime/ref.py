"""References: the address of a place in the tree.

A reference stays valid across restarts: it names the place, and every message goes to the
incarnation that runs there when it is sent. What is sent to a place where nobody runs becomes
a dead letter, counted with sender and type.

Source: docs/runtime.md sections 1, 2 and 4.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

from . import context
from .asks import NOBODY, Ask, Failure
from .errors import (
    ActorDown,
    AskCycle,
    AskTimeout,
    MailboxFull,
    ReplyError,
    RuntimeFault,
    TooManyAsks,
)
from .lifecycle import State
from .messages import Refusal, Request
from .reasons import ExitKind, ExitReason

if TYPE_CHECKING:
    from .cell import Cell

R = TypeVar("R")

#: Unanswered asks one actor may have. One more is refused, as it would be a leak.
MAX_ASKS_OUT = 256


class ActorRef:
    """The address of an actor."""

    __slots__ = ("_cell",)

    def __init__(self, cell: Cell) -> None:
        self._cell = cell

    @property
    def path(self) -> str:
        """The place in the tree, such as `/edge/agents/acme:0002`."""
        return self._cell.path

    @property
    def id(self) -> str:
        """The last segment of the path."""
        return self._cell.id

    @property
    def incarnation(self) -> int:
        """The incarnation that runs here now, or the last one that did."""
        return self._resolve().incarnation

    @property
    def alive(self) -> bool:
        """True while an incarnation is starting, running or draining."""
        return self._resolve().living

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ActorRef) and (
            self._cell is other._cell or self.path == other.path
        )

    def __hash__(self) -> int:
        return hash(self.path)

    def __repr__(self) -> str:
        return f"<ActorRef {self.path}>"

    def _resolve(self) -> Cell:
        """The cell at this place now: a restarted supervisor made a new one."""
        cell = self._cell
        if cell.state >= State.STOPPING:
            found = cell.system.find(cell.path)
            if found is not None:
                self._cell = cell = found
        return cell

    def tell(self, message: object) -> None:
        """Queue a message; never waits.

        A message to a place where nobody runs becomes a dead letter and raises nothing.

        Raises:
            MailboxFull: the mailbox is at its bound and its policy is reject.
        """
        cell = self._cell
        if not cell.open:
            cell = self._resolve()
            if not cell.open:
                cell.dead_letter(message, cell.closed_because())
                return
        if not cell.mailbox.offer(message):
            raise MailboxFull(cell.path, cell.mailbox.bound)

    def try_tell(self, message: object) -> bool:
        """As `tell`, but answers False instead of raising `MailboxFull`."""
        cell = self._cell
        if not cell.open:
            cell = self._resolve()
            if not cell.open:
                cell.dead_letter(message, cell.closed_because())
                return True
        return cell.mailbox.offer(message)

    async def ask(self, message: Request[R], *, timeout: float) -> R:
        """Send a request and wait for its answer, at most `timeout` seconds.

        When the target dies, the caller hears it at once, not at the deadline.

        Raises:
            ReplyError: the target refused with a value; it lives on.
            ActorDown: the target is dead, died, or is between two incarnations.
            AskTimeout: no answer in time.
            MailboxFull: the target's mailbox is full.
            AskCycle: the target waits for this very ask's caller.
            TooManyAsks: the caller has `MAX_ASKS_OUT` unanswered asks.
        """
        cell = self._cell
        if not cell.open:
            cell = self._resolve()
            if not cell.open:
                raise cell.down()
        caller = context.current()
        parent: Ask | None = None
        waiting: Cell | None = None
        if caller is not None:
            if caller.asks_out >= MAX_ASKS_OUT:
                raise TooManyAsks(caller.path, MAX_ASKS_OUT)
            # Only what the handler itself awaits can close a cycle; an owned task's ask leaves
            # its actor free to answer.
            if caller.task is asyncio.current_task():
                waiting, parent = caller, caller.current_ask
                check_cycle(caller, parent, cell)
        system = cell.system
        future: asyncio.Future[object] = system.loop.create_future()
        request = Ask()
        request.message = message
        request.future = future
        request.parent = parent
        request.caller = waiting
        request.holder = NOBODY
        request.callback = request.expire
        expires = request.expires = system.clock() + timeout
        system.timers.add(request, expires)
        if not cell.mailbox.offer(request):
            system.timers.cancel(request)
            raise MailboxFull(cell.path, cell.mailbox.bound)
        if caller is not None:
            caller.asks_out += 1
        try:
            outcome = await future
        finally:
            if caller is not None:
                caller.asks_out -= 1
            if request.holder is not None:
                request.holder.forget_deferred(request)
            system.timers.cancel(request)
        kind = type(outcome)
        if kind is Refusal:
            raise ReplyError(outcome.value)  # type: ignore[attr-defined]  # kind is Refusal
        if kind is Failure:
            raise failed(outcome, cell, message, timeout)  # type: ignore[arg-type]  # kind is Failure
        return outcome  # type: ignore[return-value]  # what the handler of a Request[R] returned

    async def ask_again(self, message: Request[R], *, timeout: float, pause: float = 0.02) -> R:
        """As `ask`, but a target that restarts meanwhile is asked again until the deadline.

        For idempotent requests to permanent actors (registry, policy). The total wait stays
        below `timeout` seconds.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        while True:
            left = deadline - loop.time()
            try:
                return await self.ask(message, timeout=max(left, 0.001))
            except ActorDown:
                if loop.time() + pause >= deadline:
                    raise
            await asyncio.sleep(pause)

    async def started(self, *, timeout: float) -> None:
        """Wait until an incarnation runs here (its `init` returned).

        Raises:
            ActorDown: it ended for good instead.
            TimeoutError: neither happened in time.
        """
        cell = self._resolve()
        if State.RUNNING <= cell.state <= State.DRAINING:
            return
        if cell.state is State.STOPPED:
            raise cell.down()
        future = cell.start_waiter()
        async with asyncio.timeout(timeout):
            if not await future:
                raise cell.down()

    def pinned(self) -> PinnedRef:
        """A reference to the incarnation that runs now, and to no later one."""
        return PinnedRef(self._resolve())


class PinnedRef(ActorRef):
    """A reference to one incarnation: after a restart it answers `ActorDown(incarnation)`."""

    __slots__ = ("_pinned",)

    def __init__(self, cell: Cell) -> None:
        super().__init__(cell)
        self._pinned = cell.incarnation

    def _resolve(self) -> Cell:
        return self._cell

    def _stale(self) -> bool:
        cell = self._cell
        return cell.incarnation != self._pinned or cell.state >= State.STOPPING

    def _down(self) -> ActorDown:
        return ActorDown(self.path, self._pinned, ExitReason(ExitKind.INCARNATION))

    def tell(self, message: object) -> None:
        """As `ActorRef.tell`; a dead letter once the incarnation ended."""
        if self._stale():
            self._cell.dead_letter(message, ExitKind.INCARNATION.value)
            return
        super().tell(message)

    def try_tell(self, message: object) -> bool:
        """As `ActorRef.try_tell`; a dead letter once the incarnation ended."""
        if self._stale():
            self._cell.dead_letter(message, ExitKind.INCARNATION.value)
            return True
        return super().try_tell(message)

    async def ask(self, message: Request[R], *, timeout: float) -> R:
        """As `ActorRef.ask`; `ActorDown(incarnation)` once the incarnation ended."""
        if self._stale():
            raise self._down()
        return await super().ask(message, timeout=timeout)

    async def started(self, *, timeout: float) -> None:
        """As `ActorRef.started`; `ActorDown(incarnation)` once the incarnation ended."""
        if self._stale():
            raise self._down()
        await super().started(timeout=timeout)

    @property
    def incarnation(self) -> int:
        """The incarnation it is pinned to."""
        return self._pinned

    @property
    def alive(self) -> bool:
        """True while that very incarnation lives."""
        return not self._stale() and self._cell.living


def failed(failure: Failure, cell: Cell, message: object, timeout: float) -> RuntimeFault:
    """The exception for an ask that got no answer."""
    reason = failure.reason
    if reason.kind is ExitKind.EXPIRED:
        return AskTimeout(cell.path, type(message).__name__, timeout)
    if reason.kind is ExitKind.MAILBOX_FULL:
        return MailboxFull(cell.path, cell.mailbox.bound)
    return ActorDown(cell.path, failure.incarnation, reason)


def check_cycle(caller: Cell, parent: Ask | None, target: Cell) -> None:
    """Raise `AskCycle` when `target` waits, directly or not, for what `caller` is handling.

    An ask that has its outcome already holds nobody up: the chain ends there.
    """
    if caller is target:
        raise AskCycle(target.path)
    link = parent
    while link is not None and not link.future.done():
        if link.caller is target:
            raise AskCycle(target.path)
        link = link.parent


__all__ = ["MAX_ASKS_OUT", "ActorRef", "PinnedRef"]
