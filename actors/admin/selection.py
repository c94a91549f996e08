"""Choosing the rows an operator wants to see: by filter and by order, out of any number.

Rates need two looks at an actor. `Samples` keeps what was seen last, by incarnation; it exists
only as long as somebody watches.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from itertools import chain, islice

from actors.admin.places import Slice
from actors.runtime import inspection
from actors.runtime.cell import Cell

#: Cells merged into the best so far in one step.
CHUNK = 256

#: How urgent a state is, for sorting and for summaries: the worst one is shown.
SEVERITY = {
    "stopped": 0,
    "new": 1,
    "running": 2,
    "busy": 3,
    "starting": 4,
    "draining": 5,
    "stopping": 6,
    "suspended": 7,
    "restarting": 8,
}


class Samples:
    """Counters of actors at an earlier time, to make rates of. Bound: the actors visited."""

    def __init__(self) -> None:
        self._before: dict[int, tuple[float, int, float, int]] = {}
        self._now: dict[int, tuple[float, int, float, int]] = {}

    def turn(self) -> None:
        """A new look begins: what was noted last becomes the past, older notes are forgotten."""
        self._before, self._now = self._now, {}

    def note(self, cell: Cell, now: float) -> tuple[float, float, float]:
        """Note one actor; returns messages/s, busy share and bytes/s since the last look."""
        moved = sum(cell.resources.traffic())
        self._now[cell.incarnation] = (now, cell.handled, cell.busy, moved)
        before = self._before.get(cell.incarnation)
        if before is None or now <= before[0]:
            return 0.0, 0.0, 0.0
        seconds = now - before[0]
        return (
            (cell.handled - before[1]) / seconds,
            (cell.busy - before[2]) / seconds,
            (moved - before[3]) / seconds,
        )


def _mailbox(cell: Cell) -> float:
    return len(cell.mailbox.queue)


def _restarts(cell: Cell) -> float:
    return cell.restarts


def _handled(cell: Cell) -> float:
    return cell.handled


def _busy(cell: Cell) -> float:
    return cell.busy


def _age(cell: Cell) -> float:
    return -cell.started_at


def _bytes(cell: Cell) -> float:
    return sum(cell.resources.traffic())


def _children(cell: Cell) -> float:
    return len(cell.children) if cell.children is not None else 0


def _state(cell: Cell) -> float:
    return SEVERITY.get(inspection.state_word(cell), 9)


Order = Callable[[Cell], float]

#: What `sort` may say, with the value compared; None: start order, which costs nothing.
ORDERS: dict[str, Order | None] = {
    "start": None,
    "mailbox": _mailbox,
    "restarts": _restarts,
    "handled": _handled,
    "busy": _busy,
    "age": _age,
    "bytes": _bytes,
    "children": _children,
    "state": _state,
}

#: Orders that `watch` knows beside these: rates since the snapshot before.
RATES = {"rate": 0, "load": 1, "throughput": 2}


def by_rate(samples: Samples, which: str, now: float) -> Order:
    """An order by one of `RATES`. Every actor compared is noted."""
    index = RATES[which]

    def order(cell: Cell) -> float:
        return samples.note(cell, now)[index]

    return order


def matches(cell: Cell, needle: str) -> bool:
    """True when the lower-case `needle` is part of the id or class, or is the state.

    A needle with a slash is looked for in the whole path.
    """
    if "/" in needle:
        return needle in cell.path.lower()
    if needle in cell.id.lower():
        return True
    actor = cell.actor
    if actor is not None and needle in type(actor).__name__.lower():
        return True
    return needle == inspection.state_word(cell)


class Trail:
    """Walking a tree in pre-order with a filter: matches, and the ancestors they need.

    What is below a match by id is a match, too, as its path has the needle: `streams` are those
    below the supervisor of that name.

    Args:
        needle: lower-case filter; empty: everything matches.
    """

    def __init__(self, needle: str) -> None:
        self._needle = needle
        # The way from the top to the present place; None where the ancestor was given out.
        self._ancestors: list[Cell | None] = []

    def visit(self, cell: Cell, level: int) -> list[tuple[Cell, int, bool]]:
        """The cells to show because of this one: (cell, level, matches itself)."""
        if not self._needle:
            return [(cell, level, True)]
        del self._ancestors[level:]
        if self._needle not in cell.path.lower() and not matches(cell, self._needle):
            self._ancestors.append(cell)
            return []
        shown = [*self.ancestors(), (cell, level, True)]
        self._ancestors.append(None)
        return shown

    def ancestors(self) -> list[tuple[Cell, int, bool]]:
        """The way here as far as it was not shown yet; from now on it is."""
        shown: list[tuple[Cell, int, bool]] = []
        for level, cell in enumerate(self._ancestors):
            if cell is not None:
                shown.append((cell, level, False))
                self._ancestors[level] = None
        return shown


async def select(
    cells: Sequence[Cell],
    *,
    order: str | Order,
    descending: bool,
    needle: str,
    offset: int,
    limit: int,
    slices: Slice | None = None,
) -> tuple[list[Cell], int]:
    """The page `[offset, offset + limit)` of the cells that match, and how many match.

    Works in slices; holds at most `offset + limit + CHUNK` candidates. Equal values keep the
    order of `cells`.
    """
    slices = slices or Slice()
    key = ORDERS[order] if isinstance(order, str) else order
    if key is None:
        if descending:
            cells = cells[::-1]
        if not needle:
            return list(cells[offset : offset + limit]), len(cells)
    source = iter(cells)
    wanted = offset + limit
    matched = 0
    best: list[tuple[float, int, Cell]] = []
    while chunk := list(islice(source, CHUNK)):
        found: list[tuple[float, int, Cell]] = []
        for cell in chunk:
            if needle and not matches(cell, needle):
                continue
            matched += 1
            if key is None:
                if offset < matched <= wanted:
                    best.append((0.0, matched, cell))
            else:
                value = key(cell)
                found.append((-value if descending else value, matched, cell))
        if found:
            best = heapq.nsmallest(wanted, chain(best, found))
        await slices.step(len(chunk))
    start = 0 if key is None else offset
    return [cell for _, _, cell in best[start : start + limit]], matched
