"""A task that belongs to an actor: linked in both directions.

Source: docs/runtime.md section 6.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, Final

from . import context
from .events import Event

if TYPE_CHECKING:
    from .cell import Cell

#: Seconds between the cancellations of a task that swallows them; then it is given up.
RETRIES: Final = (0.01, 0.09, 0.9, 4.0)


class TaskFailure(RuntimeError):
    """An owned task raised something that must not reach the event loop (`SystemExit`)."""


class OwnedTask:
    """A linked task. A failure is reported to the owner; the owner's end cancels it."""

    __slots__ = ("_cell", "_coroutine", "_incarnation", "_retries", "name", "task")

    def __init__(self, cell: Cell, coroutine: Coroutine[Any, Any, object], name: str) -> None:
        self._cell = cell
        self._incarnation = cell.incarnation
        self._coroutine: Coroutine[Any, Any, object] | None = coroutine
        self._retries = 0
        self.name = name
        # A fresh context: whoever calls may run in somebody else's, and it would stay alive.
        self.task: asyncio.Task[object] = cell.system.loop.create_task(
            _run(cell, coroutine, name), name=name, context=context.context_for(cell)
        )
        cell.system.owned_tasks += 1
        self.task.add_done_callback(self._done)
        cell.own(self, "task")

    @property
    def done(self) -> bool:
        """True once it ended."""
        return self.task.done()

    def abort(self) -> None:
        """Cancel; idempotent. A task that swallows it is cancelled again, then reported."""
        if self.task.done():
            return
        self.task.cancel()
        if self._retries == 0:
            self._cell.system.dying[self] = None
            self._insist()

    def _insist(self) -> None:
        delay = RETRIES[self._retries]
        self._retries += 1
        self._cell.system.timers.after(delay, self._again)

    def _again(self) -> None:
        if self.task.done():
            return
        if self._retries < len(RETRIES):
            self.task.cancel()
            self._insist()
        else:
            self.give_up()

    def give_up(self) -> None:
        """Go on without a task that does not end."""
        system = self._cell.system
        fields: dict[str, object] = {"task": self.name}
        system.events.publish(Event("undead", self._cell.path, self._incarnation, fields))
        system.dying.pop(self, None)
        system.keep_undead(self.task)
        system.owned_tasks -= 1
        self.task.remove_done_callback(self._done)
        self._coroutine = None
        system.note_end()

    def _done(self, task: asyncio.Task[object]) -> None:
        cell = self._cell
        cell.system.owned_tasks -= 1
        cell.system.dying.pop(self, None)
        if self._coroutine is not None:
            self._coroutine.close()  # cancelled before its first step, it never began
            self._coroutine = None
        if cell.incarnation == self._incarnation:
            cell.resources.discard(self)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            if not isinstance(error, Exception):
                error = TaskFailure(f"task {self.name} raised {type(error).__name__}")
            cell.resource_failed(f"task {self.name}", error, self._incarnation)
        cell.system.note_end()


async def _run(cell: Cell, coroutine: Coroutine[Any, Any, object], name: str) -> object:
    """The task's outermost frame; the watchdog recognizes it and reads `cell`."""
    try:
        return await coroutine
    except SystemExit as exc:
        raise TaskFailure(f"task {name} raised SystemExit({exc.code})") from None
    except KeyboardInterrupt:
        cell.system.interrupt()
        raise TaskFailure(f"task {name} was interrupted") from None


#: The outermost frame of every owned task; the watchdog recognizes it and reads `cell`.
TASK_FRAME: Final = _run.__code__
