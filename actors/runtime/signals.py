"""What travels in the system lane and in reserved slots. Internal to the runtime."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .messages import Down
from .reasons import ExitReason

if TYPE_CHECKING:
    from .cell import Cell
    from .timers import Timer


class Stop:
    """End gracefully: now, or (`drain`) after what is queued."""

    __slots__ = ("drain", "reason")

    def __init__(self, reason: ExitReason, drain: bool) -> None:
        self.reason = reason
        self.drain = drain


class Crash:
    """Raise `error` inside the actor's loop."""

    __slots__ = ("error",)

    def __init__(self, error: Exception) -> None:
        self.error = error


class Tick:
    """A due timer, in a reserved slot of the user lane."""

    __slots__ = ("key", "message", "timer")

    def __init__(self, key: object, message: object) -> None:
        self.key = key
        self.message = message
        self.timer: Timer | None = None


class Notice:
    """A `Down`, in a reserved slot of the user lane."""

    __slots__ = ("down",)

    def __init__(self, down: Down) -> None:
        self.down = down


class ChildStarted:
    """To a supervisor: this incarnation of a child runs."""

    __slots__ = ("cell", "incarnation")

    def __init__(self, cell: Cell) -> None:
        self.cell = cell
        self.incarnation = cell.incarnation


class ChildExited:
    """To a supervisor: this incarnation of a child ended; its resources are gone already."""

    __slots__ = ("cell", "incarnation", "reason", "uptime")

    def __init__(self, cell: Cell, reason: ExitReason, uptime: float) -> None:
        self.cell = cell
        self.incarnation = cell.incarnation
        self.reason = reason
        self.uptime = uptime


class RestartNow:
    """To a supervisor: an operator does not want to wait for this child's restart delay."""

    __slots__ = ("cell",)

    def __init__(self, cell: Cell) -> None:
        self.cell = cell


class CancelRestart:
    """To a supervisor: an operator stopped this child while it waited for its restart."""

    __slots__ = ("cell",)

    def __init__(self, cell: Cell) -> None:
        self.cell = cell


class InjectedCrash(Exception):
    """Raised inside an actor by the `crash` verb."""
