"""The envelope of a request, and the handle for answering it later."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from .errors import ActorDown, ReplyError
from .messages import Refusal
from .reasons import ExitReason

if TYPE_CHECKING:
    from .cell import Cell

R = TypeVar("R")


class Ask:
    """A request in a mailbox. Its future has exactly one outcome, whatever dies.

    `parent` is the ask the caller was handling when it asked: the chain that finds cycles.
    """

    __slots__ = ("caller", "deadline", "expired", "future", "message", "parent")

    def __init__(
        self,
        message: object,
        future: asyncio.Future[Any],
        deadline: float,
        parent: Ask | None,
        caller: Cell | None,
    ) -> None:
        self.message = message
        self.future = future
        self.deadline = deadline
        self.parent = parent
        self.caller = caller
        self.expired = False

    def expire(self) -> None:
        """The deadline passed: the caller gets its timeout now."""
        if not self.future.done():
            self.expired = True
            self.future.set_exception(TimeoutError())

    def answer(self, value: object) -> None:
        """Complete with a handler's return value; late answers are dropped."""
        if self.future.done():
            return
        if isinstance(value, Refusal):
            self.future.set_exception(ReplyError(value.value))
        else:
            self.future.set_result(value)

    def fail(self, path: str, incarnation: int, reason: ExitReason) -> None:
        """The target died: the caller hears why, at once."""
        if not self.future.done():
            self.future.set_exception(ActorDown(path, incarnation, reason))


class Reply(Generic[R]):
    """A handle to answer one ask later. When its actor dies first, the asker hears that."""

    __slots__ = ("_ask", "_cell")

    def __init__(self, cell: Cell, ask: Ask | None) -> None:
        self._cell = cell
        self._ask = ask

    @property
    def wanted(self) -> bool:
        """False once the asker gave up, or when the message was a `tell`."""
        return self._ask is not None and not self._ask.future.done()

    def send(self, value: R | Refusal) -> None:
        """Answer; the second and later calls are ignored."""
        ask, self._ask = self._ask, None
        if ask is not None:
            self._cell.forget_deferred(ask)
            ask.answer(value)
