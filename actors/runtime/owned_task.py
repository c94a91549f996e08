"""A task that belongs to an actor: linked in both directions."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .cell import Cell


class OwnedTask:
    """A linked task. A failure is reported to the owner; the owner's end cancels it."""

    __slots__ = ("_cell", "_incarnation", "name", "task")

    def __init__(self, cell: Cell, coroutine: Coroutine[Any, Any, object], name: str) -> None:
        self._cell = cell
        self._incarnation = cell.incarnation
        self.name = name
        self.task: asyncio.Task[object] = cell.system.loop.create_task(coroutine, name=name)
        cell.resources.add(self, "task")
        self.task.add_done_callback(self._done)

    @property
    def done(self) -> bool:
        """True once it ended."""
        return self.task.done()

    def abort(self) -> None:
        """Cancel; idempotent."""
        self.task.cancel()

    def _done(self, task: asyncio.Task[object]) -> None:
        cell = self._cell
        if cell.incarnation == self._incarnation:
            cell.resources.discard(self)
        if task.cancelled():
            return
        error = task.exception()
        if error is None:
            return
        if not isinstance(error, Exception):
            error = RuntimeError(f"task {self.name} raised {type(error).__name__}")
        cell.resource_failed(f"task {self.name}", error, self._incarnation)
