"""References: the address of a place in the tree.

A reference stays valid across restarts: it names the place, and every message goes to the
incarnation that runs there when it is sent. What is sent to a place where nobody runs becomes
a dead letter, counted with sender and type.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

from . import context
from .asks import Ask
from .errors import ActorDown, AskCycle, AskTimeout, MailboxFull, TooManyAsks
from .lifecycle import State
from .mailbox import Overflow
from .messages import Request
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
        return State.NEW < self._resolve().state < State.STOPPING

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
        if cell.state is State.STOPPED:
            found = cell.system.find(cell.path)
            if found is not None:
                self._cell = cell = found
        return cell

    def tell(self, message: object) -> None:
        """Queue a message; never waits.

        A message to a place where nobody runs becomes a dead letter and raises nothing.

        Raises:
            MailboxFull: the mailbox is at its bound and its policy is reject or wait.
        """
        cell = self._cell
        if not cell.open:
            cell = self._resolve()
            if not cell.open:
                cell.dead_letter(message, cell.closed_because())
                return
        if not cell.mailbox.offer(message):
            raise MailboxFull(cell.path, cell.mailbox.spec.bound)

    def try_tell(self, message: object) -> bool:
        """As `tell`, but answers False instead of raising `MailboxFull`."""
        cell = self._cell
        if not cell.open:
            cell = self._resolve()
            if not cell.open:
                cell.dead_letter(message, cell.closed_because())
                return True
        return cell.mailbox.offer(message)

    async def send(self, message: object, *, timeout: float) -> None:
        """As `tell`, but a mailbox with policy WAIT makes the sender wait for room.

        Raises:
            MailboxFull: no room within `timeout` seconds, another policy, or the target is
                one of the sender's own ancestors (which would dead-lock).
            ActorDown: the target ended meanwhile.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        while True:
            cell = self._resolve()
            if not cell.open:
                raise ActorDown(cell.path, cell.incarnation, cell.down_reason())
            mailbox = cell.mailbox
            if len(mailbox.queue) < mailbox.spec.bound:
                self.tell(message)
                return
            sender = context.current()
            if mailbox.spec.overflow is not Overflow.WAIT or (
                sender is not None and cell.is_ancestor_of(sender)
            ):
                mailbox.rejected += 1
                raise MailboxFull(cell.path, mailbox.spec.bound)
            room = mailbox.room_waiter(loop)
            timer = cell.system.timers.at(deadline, lambda room=room: room.cancel())  # type: ignore[misc]  # mypy cannot type the bound default
            try:
                await room
            except asyncio.CancelledError:
                if timer.pending:
                    raise  # we were cancelled, not the wait
                mailbox.rejected += 1
                raise MailboxFull(cell.path, mailbox.spec.bound) from None
            finally:
                cell.system.timers.cancel(timer)

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
                raise ActorDown(cell.path, cell.incarnation, cell.down_reason())
        system = cell.system
        caller = context.current()
        parent: Ask | None = None
        if caller is not None:
            if caller.asks_out >= MAX_ASKS_OUT:
                raise TooManyAsks(caller.path, MAX_ASKS_OUT)
            # Only what the handler itself awaits can close a cycle; an owned task's ask leaves
            # its actor free to answer.
            if caller.task is asyncio.current_task():
                parent = caller.current_ask
                link, target = parent, cell
                if caller is target:
                    raise AskCycle(cell.path)
                while link is not None:
                    if link.caller is target:
                        raise AskCycle(cell.path)
                    link = link.parent
        loop = system.loop
        deadline = loop.time() + timeout
        future: asyncio.Future[R] = loop.create_future()
        request = Ask(message, future, deadline, parent, caller)
        if not cell.mailbox.offer(request):
            raise MailboxFull(cell.path, cell.mailbox.spec.bound)
        timer = system.timers.at(deadline, request.expire)
        if caller is not None:
            caller.asks_out += 1
        try:
            return await future
        except asyncio.TimeoutError:
            if request.expired:
                raise AskTimeout(self.path, type(message).__name__, timeout) from None
            raise
        finally:
            if caller is not None:
                caller.asks_out -= 1
            system.timers.cancel(timer)

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
            raise ActorDown(cell.path, cell.incarnation, cell.down_reason())
        future = cell.start_waiter()
        async with asyncio.timeout(timeout):
            await future

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
        return self._cell.incarnation != self._pinned

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
            reason = ExitReason(ExitKind.INCARNATION)
            raise ActorDown(self.path, self._pinned, reason)
        return await super().ask(message, timeout=timeout)

    @property
    def alive(self) -> bool:
        """True while that very incarnation lives."""
        return not self._stale() and State.NEW < self._cell.state < State.STOPPING


__all__ = ["MAX_ASKS_OUT", "ActorRef", "PinnedRef"]
