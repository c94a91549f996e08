"""Which actor the running code belongs to.

An actor's task starts in a fresh context that holds only this variable, so that nothing of its
spawner's context lives as long as the actor does. Tasks an actor owns start in a fresh one, too.

Source: docs/runtime.md section 3.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import Context, ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .cell import Cell

_current: ContextVar[Cell | None] = ContextVar("trunkline_actor", default=None)


#: The cell of the actor whose handler or owned task is running, or None outside actors. The
#: variable's own method: every ask calls it.
current: Callable[[], Cell | None] = _current.get


def context_for(cell: Cell) -> Context:
    """A fresh context in which `current()` is `cell`."""
    fresh = Context()
    fresh.run(_current.set, cell)
    return fresh
