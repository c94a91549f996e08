"""What the runtime tells about actors: one row per actor, details on demand.

Everything here reads cells; nothing runs actor code except `describe()`, which is synchronous.
Rows are plain JSON-able dicts; see docs/runtime.md section 9 for the fields.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from .lifecycle import State
from .tracebacks import one_line

if TYPE_CHECKING:
    from .cell import Cell
    from .system import ActorSystem


def state_word(cell: Cell) -> str:
    """running, suspended, busy (in a handler that waits), starting, draining, stopping, ..."""
    if cell.suspended:
        return "suspended"
    if cell.state is State.RUNNING and cell in cell.system.awaiting:
        return "busy"
    return cell.state.name.lower()


def row(cell: Cell) -> dict[str, object]:
    """The row of one actor in the tree. Cheap: no actor code runs."""
    actor = cell.actor
    mailbox = cell.mailbox
    received, sent = cell.resources.traffic()
    now = cell.system.loop.time()
    return {
        "path": cell.path,
        "id": cell.id or "/",
        "kind": cell.kind,
        "class": type(actor).__name__ if actor is not None else "",
        "state": state_word(cell),
        "incarnation": cell.incarnation,
        "mailbox": len(mailbox.queue),
        "bound": mailbox.spec.bound,
        "handled": cell.handled,
        "busy_seconds": round(cell.busy, 6),
        "restarts": cell.restarts,
        "restart": cell.spec.restart.value,
        "strategy": getattr(actor, "strategy_word", ""),
        "uptime": round(now - cell.started_at, 3) if cell.task is not None else 0.0,
        "children": len(cell.children) if cell.children is not None else 0,
        "bytes_in": received,
        "bytes_out": sent,
    }


def details(cell: Cell) -> dict[str, object]:
    """Everything the runtime knows about one actor, and its own `describe()`."""
    result = row(cell)
    statistics = cell.mailbox.statistics()
    result["mailbox_statistics"] = statistics._asdict()
    result["overflow"] = cell.mailbox.spec.overflow.value
    result["restart"] = cell.spec.restart.value
    result["shutdown"] = cell.spec.shutdown
    result["dead_letters"] = cell.dead
    result["expired"] = cell.expired
    result["asks_failed"] = cell.failed
    result["asks_out"] = cell.asks_out
    result["last_message"] = cell.last_type.__name__ if cell.last_type else ""
    result["last_exit"] = str(cell.last_exit) if cell.last_exit else ""
    result["resources"] = cell.resources.kinds()
    result["timers"] = len(cell.timers or ())
    result["monitored_by"] = len(cell.monitors or ())
    result["monitors"] = sorted({target.path for target in (cell.watching or {}).values()})[:64]
    result["links"] = sorted(peer.path for peer in cell.links or ())[:64]
    result["names"] = list(cell.names or ())
    if cell.state is State.RESTARTING:
        result["restart_in"] = round(max(0.0, cell.next_start - cell.system.loop.time()), 3)
    actor = cell.actor
    if actor is not None and cell.state is not State.STARTING:
        try:
            result["describe"] = actor.describe()
        except Exception as exc:  # noqa: BLE001  # a broken describe() must not break the inspector
            result["describe"] = {"error": one_line(exc, 200)}
    else:
        result["describe"] = {}
    return result


def walk(cell: Cell) -> Iterator[Cell]:
    """A subtree, parents before children, children in start order.

    Safe while the tree changes between two steps: a level is a snapshot of its children.
    """
    stack = [cell]
    while stack:
        current = stack.pop()
        yield current
        if current.children:
            stack.extend(reversed(list(current.children.values())))


def totals(system: ActorSystem) -> dict[str, object]:
    """Counters of the whole system."""
    return {
        "node": system.name,
        "actors_started": system.actors_started,
        "actors_living": system.living,
        "timers": len(system.timers),
        "events": system.events.published,
        "subscribers": system.events.subscribers,
        "dead_letters": system.dead_letters.total,
        "undead": system.undead,
        "resource_errors": system.resource_errors,
        "unowned_exceptions": system.unowned_exceptions,
        "uptime": round(system.loop.time() - system.started_at, 3),
    }
