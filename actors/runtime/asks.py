"""The envelope of a request, and the handle for answering it later.

An ask's future is only ever completed with a value, never with an exception: an exception in a
future nobody awaits any more is reported as lost by asyncio, and it keeps the asker's frame in a
reference cycle. What is not an answer travels as a `Failure`.

Source: docs/runtime.md section 4.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from .messages import Refusal
from .reasons import ExitKind, ExitReason
from .timers import Deadline

if TYPE_CHECKING:
    from .cell import Cell

R = TypeVar("R")


class Failure:
    """The outcome of an ask that got no answer: why, and from which incarnation."""

    __slots__ = ("incarnation", "reason")

    def __init__(self, incarnation: int, reason: ExitReason) -> None:
        self.incarnation = incarnation
        self.reason = reason


_EXPIRED = Failure(0, ExitReason(ExitKind.EXPIRED))
_CROWDED_OUT = Failure(0, ExitReason(ExitKind.MAILBOX_FULL))


#: No cell has deferred the answer. Wider than None, as it may be another by the time of a look.
NOBODY: Final[Cell | None] = None


class Ask(Deadline):
    """A request in a mailbox, and its own deadline. Its future has exactly one outcome.

    `caller` is the actor whose handler waits for it, None when no handler does; `parent` is the
    ask that handler was serving: the chain that finds cycles.
    `holder` is the cell that deferred its answer.

    `ActorRef.ask` sets every attribute: an `__init__` would be a sixth of what an ask costs
    beside the event loop's own work.
    """

    __slots__ = ("caller", "expires", "future", "holder", "message", "parent")

    message: object
    future: asyncio.Future[object]
    expires: float
    parent: Ask | None
    caller: Cell | None
    holder: Cell | None

    def expire(self) -> None:
        """The deadline passed: the caller gets its timeout now."""
        if not self.future.done():
            self.future.set_result(_EXPIRED)

    def crowd_out(self) -> None:
        """It was queued and made room for a newer message: the caller hears `MailboxFull`."""
        if not self.future.done():
            self.future.set_result(_CROWDED_OUT)

    def answer(self, value: object) -> None:
        """Complete with a handler's return value; late answers are dropped."""
        if not self.future.done():
            self.future.set_result(value)

    def fail(self, incarnation: int, reason: ExitReason) -> None:
        """The target died: the caller hears why, at once."""
        if not self.future.done():
            self.future.set_result(Failure(incarnation, reason))


class Reply(Generic[R]):
    """A handle to answer one ask later. When its actor dies first, the asker hears that."""

    __slots__ = ("_ask",)

    def __init__(self, ask: Ask | None) -> None:
        self._ask = ask

    @property
    def wanted(self) -> bool:
        """False once the asker gave up or died, or when the message was a `tell`."""
        return self._ask is not None and not self._ask.future.done()

    def send(self, value: R | Refusal) -> None:
        """Answer; the second and later calls are ignored."""
        ask, self._ask = self._ask, None
        if ask is not None:
            if ask.holder is not None:
                ask.holder.forget_deferred(ask)
            ask.answer(value)
