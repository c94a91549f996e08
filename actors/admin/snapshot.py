"""One picture of the local tree for `watch`: the rows an operator's screen shows, in order.

Tree view: the places on screen are the top and the children of every open place, a page at a
time; what a page leaves out is one row with `more`. A folded place with children carries `group`:
how many actors are below, their worst state, their queued messages and moved bytes. Sums stop at
`GROUP_BUDGET` actors per snapshot and then say `partial`.

Top view: every actor below the top, the first `max_rows` in the order asked for.

Rows carry `depth` (levels below the top) and in the top view `value`, the number sorted by.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from actors.admin.places import Slice, row
from actors.admin.selection import (
    ORDERS,
    RATES,
    SEVERITY,
    Order,
    Samples,
    Trail,
    by_rate,
    select,
)
from actors.admin.session import ControlService
from actors.runtime import inspection
from actors.runtime.cell import Cell
from wire.admin.messages import Row

#: Actors visited for the sums of folded places, per snapshot.
GROUP_BUDGET = 20_000
VIEWS = frozenset({"tree", "top"})
WATCH_ORDERS = frozenset({*ORDERS, *RATES})


@dataclass(frozen=True, slots=True)
class View:
    """What one `watch` shows; see `watch` in watch.py for the arguments."""

    view: str
    root: str
    open: Mapping[str, int]
    filter: str
    sort: str
    descending: bool
    max_rows: int
    page: int


class LocalSnapshot:
    """Builds the rows of one snapshot of this process's own tree.

    Args:
        splice: called with the path and depth of a place where another process's tree continues;
            gives the row's own corrections and the rows to put below it.
    """

    def __init__(
        self,
        service: ControlService,
        view: View,
        samples: Samples,
        slices: Slice,
        splice: Callable[[str, int], tuple[Row, list[Row]]],
    ) -> None:
        self._service = service
        self._view = view
        self._slices = slices
        self._splice = splice
        self._budget = GROUP_BUDGET
        self._order = self._make_order(samples)
        self.rows: list[Row] = []
        self.truncated = False

    def _make_order(self, samples: Samples) -> Order | None:
        samples.turn()
        if self._view.sort in RATES:
            return by_rate(samples, self._view.sort, self._service.system.loop.time())
        return ORDERS[self._view.sort]

    async def tree(self, top: Cell) -> None:
        """The rows of the tree view."""
        if self._view.filter:
            await self._filtered(top)
            return
        stack: list[tuple[Cell | Row, int]] = [(top, 0)]
        while stack:
            if self._full():
                return
            item, level = stack.pop()
            if isinstance(item, dict):
                self.rows.append(item)
                continue
            one = self._add(item, level)
            path = str(one["path"])
            offset = self._view.open.get(path)
            if one.get("mount"):
                self._add_spliced(one, path, level)
            elif item.children and offset is not None:
                stack.extend(reversed(await self._page(item, path, offset, level + 1)))
            elif item.children:
                one["group"] = await self._group(item)
            await self._slices.step()

    async def _page(
        self, cell: Cell, path: str, offset: int, level: int
    ) -> list[tuple[Cell | Row, int]]:
        """What stands below an open place: its page of children, and what is left out."""
        cells = list((cell.children or {}).values())
        offset = min(offset, max(0, len(cells) - 1) // self._view.page * self._view.page)
        page, total = await select(
            cells,
            order=self._order or "start",
            descending=self._view.descending,
            needle="",
            offset=offset,
            limit=self._view.page,
            slices=self._slices,
        )
        items: list[tuple[Cell | Row, int]] = [(child, level) for child in page]
        if offset:
            items.insert(0, (_more(path, offset, "before", level), level))
        after = total - offset - len(page)
        if after > 0:
            items.append((_more(path, after, "after", level), level))
        return items

    async def _filtered(self, top: Cell) -> None:
        trail = Trail(self._view.filter)
        stack = [(top, 0)]
        while stack:
            cell, level = stack.pop()
            for shown, depth, match in trail.visit(cell, level):
                self._add(shown, depth)["match"] = match
            if cell.children:
                stack.extend((child, level + 1) for child in reversed(cell.children.values()))
            elif cell.children is None and self._service.mounts.at(path := cell.path) is not None:
                own, below = self._splice(path, level)
                if below:
                    for shown, depth, match in trail.ancestors():
                        self._add(shown, depth)["match"] = match
                    self.rows[-1].update(own)
                    self.rows.extend(below)
            if self._full():
                return
            await self._slices.step()

    async def top(self, top: Cell) -> None:
        """The rows of the top view, not yet merged with those of other processes."""
        cells: list[Cell] = []
        for cell in inspection.walk(top):
            cells.append(cell)
            await self._slices.step()
        page, _ = await select(
            cells,
            order=self._order or "start",
            descending=self._view.descending,
            needle=self._view.filter,
            offset=0,
            limit=self._view.max_rows,
            slices=self._slices,
        )
        for cell in page:
            one = self._add(cell, 0)
            one["value"] = self._order(cell) if self._order is not None else 0.0

    def _add(self, cell: Cell, depth: int) -> Row:
        one = row(self._service, cell)
        one["depth"] = depth
        self.rows.append(one)
        return one

    def _add_spliced(self, one: Row, path: str, level: int) -> None:
        own, below = self._splice(path, level)
        one.update(own)
        self.rows.extend(below)

    def _full(self) -> bool:
        if len(self.rows) >= self._view.max_rows:
            del self.rows[self._view.max_rows :]
            self.truncated = True
        return self.truncated

    async def _group(self, top: Cell) -> Row:
        """What a folded place holds."""
        actors = mailbox = received = sent = restarts = 0
        worst = "running"
        partial = False
        for cell in inspection.walk(top):
            if self._budget <= 0:
                partial = True
                break
            self._budget -= 1
            actors += 1
            mailbox += len(cell.mailbox.queue)
            restarts += cell.restarts
            bytes_in, bytes_out = cell.resources.traffic()
            received += bytes_in
            sent += bytes_out
            word = inspection.state_word(cell)
            if SEVERITY.get(word, 9) > SEVERITY.get(worst, 9):
                worst = word
            await self._slices.step()
        return {
            "actors": actors - 1,
            "worst": worst,
            "mailbox": mailbox,
            "restarts": restarts,
            "bytes_in": received,
            "bytes_out": sent,
            "partial": partial,
        }


def _more(path: str, count: int, where: str, depth: int) -> Row:
    return {"more_of": path, "more": count, "where": where, "depth": depth}
