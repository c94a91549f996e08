"""Looking at the tree: `tree`, `children`, `describe`, `stats`.

All of them visit actors in slices (places.py) and send rows in parts, so that a tree of
100 000 actors costs the relay a thousandth of a second at a time. What changes meanwhile may be
seen or not; every row is true for the moment it was made.
"""

from __future__ import annotations

import asyncio
from collections import Counter

from actors.admin.mounts import ControlFailed, SubtreeMount
from actors.admin.places import (
    Slice,
    forward,
    inward_args,
    local_cell,
    mounted,
    row,
)
from actors.admin.process_figures import process_figures
from actors.admin.selection import ORDERS, Trail, select
from actors.admin.session import Exchange
from actors.runtime import inspection
from actors.runtime.cell import Cell
from wire.admin.errors import ErrorCode
from wire.admin.limits import MAX_FILTER_CHARACTERS, MAX_PAGE_ROWS, MAX_PART_ROWS
from wire.admin.messages import Row
from wire.admin.paths import ROOT, row_outward, rows_outward

#: Seconds a mounted process gets for each part of its answer.
MOUNT_SECONDS = 5.0
MAX_DEPTH = 10_000
#: Rows a page sorted by value may lie behind the first; beyond, a filter is the way.
MAX_SORTED_OFFSET = 5000
MAX_OFFSET = 10_000_000


async def tree(exchange: Exchange) -> Row:
    """`tree`: args path, depth, filter. Rows in pre-order, parents before children.

    With a filter: the actors that match and their ancestors, which carry `"match": false`.
    Result: `rows`, and `unavailable`: the child processes that did not answer, with the reason.
    """
    args = exchange.args
    path = args.path(default=ROOT)
    depth = args.optional_integer("depth", least=0, most=MAX_DEPTH)
    needle = args.text("filter", "", most=MAX_FILTER_CHARACTERS).lower()
    args.finish()
    mount = mounted(exchange.service, path)
    if mount is not None:
        return await forward(exchange, mount, inward_args(exchange, mount[0], path))
    walk = _TreeWalk(exchange, needle, MAX_DEPTH if depth is None else depth)
    await walk.run(local_cell(exchange.service, path))
    return {"rows": walk.sent, "unavailable": walk.unavailable}


class _TreeWalk:
    """The state of one `tree` request."""

    def __init__(self, exchange: Exchange, needle: str, depth: int) -> None:
        self._exchange = exchange
        self._service = exchange.service
        self._needle = needle
        self._depth = depth
        self._trail = Trail(needle)
        self._rows: list[Row] = []
        self.sent = 0
        self.unavailable: list[Row] = []

    async def run(self, top: Cell) -> None:
        slices = Slice()
        stack: list[tuple[Cell, int]] = [(top, 0)]
        while stack:
            cell, level = stack.pop()
            self._add(self._trail.visit(cell, level))
            if len(self._rows) >= MAX_PART_ROWS:
                await self._flush()
            await slices.step()
            if level >= self._depth:
                continue
            if cell.children:
                below = level + 1
                stack.extend((child, below) for child in reversed(list(cell.children.values())))
            elif cell.children is None:
                path = cell.path
                subtree = self._service.mounts.at(path)
                if subtree is not None:
                    await self._descend(path, subtree, level)
        await self._flush()

    def _add(self, shown: list[tuple[Cell, int, bool]]) -> None:
        for cell, _, match in shown:
            one = row(self._service, cell)
            if self._needle:
                one["match"] = match
            self._rows.append(one)

    async def _flush(self) -> None:
        rows, self._rows = self._rows, []
        self.sent += len(rows)
        await self._exchange.part(rows)

    async def _descend(self, place: str, subtree: SubtreeMount, level: int) -> None:
        await self._flush()
        # Paths in there do not have the place in front of them, and match with it.
        needle = "" if self._needle in place.lower() else self._needle
        args = {"path": ROOT, "depth": self._depth - level, "filter": needle}
        call = subtree.call("tree", args)
        try:
            parts = call.__aiter__()
            while True:
                async with asyncio.timeout(MOUNT_SECONDS):
                    rows = await anext(parts, None)
                if rows is None:
                    break
                # The child's root is the place of the process actor, which has its row here.
                inner = [one for one in rows if one.get("path") != ROOT]
                if self._needle and not needle:
                    for one in inner:
                        one["match"] = True
                if inner:
                    self._add(self._trail.ancestors())
                    self._rows.extend(rows_outward(place, inner))
                    await self._flush()
            deeper = (await call.result()).get("unavailable")
            if isinstance(deeper, list):
                self.unavailable.extend(row_outward(place, one) for one in deeper)
        except ControlFailed as error:
            self.unavailable.append({"path": place, "message": error.message})
        except TimeoutError:
            text = f"no answer within {MOUNT_SECONDS:g} s"
            self.unavailable.append({"path": place, "message": text})
        finally:
            call.cancel()


async def children(exchange: Exchange) -> Row:
    """`children`: args path, offset, limit, sort, descending, filter. One page of rows.

    Result: `path`, `total` children, `matched` by the filter, `offset` of the page.
    """
    args = exchange.args
    path = args.path()
    offset = args.integer("offset", 0, least=0, most=MAX_OFFSET)
    limit = args.integer("limit", 100, least=1, most=MAX_PAGE_ROWS)
    order = args.choice("sort", "start", ORDERS)
    descending = args.flag("descending")
    needle = args.text("filter", "", most=MAX_FILTER_CHARACTERS).lower()
    args.finish()
    service = exchange.service
    mount = service.mounts.find(path)
    if mount is not None:
        return await forward(exchange, mount, inward_args(exchange, mount[0], path))
    if order != "start" and offset > MAX_SORTED_OFFSET:
        text = f"a sorted page may begin at most at {MAX_SORTED_OFFSET}: use a filter"
        raise ControlFailed(ErrorCode.REFUSED, text)
    cell = local_cell(service, path)
    cells = list((cell.children or {}).values())
    page, matched = await select(
        cells, order=order, descending=descending, needle=needle, offset=offset, limit=limit
    )
    await exchange.part([row(service, one) for one in page])
    return {"path": path, "total": len(cells), "matched": matched, "offset": offset}


async def describe(exchange: Exchange) -> Row:
    """`describe`: arg path. Everything known of one actor, its own `describe()` included.

    For the actor that owns a process, `process` describes the root of the tree inside it.
    """
    path = exchange.args.path()
    exchange.args.finish()
    service = exchange.service
    mount = mounted(service, path)
    if mount is not None:
        return await forward(exchange, mount, inward_args(exchange, mount[0], path))
    result = inspection.details(local_cell(service, path))
    subtree = service.mounts.at(path)
    if subtree is not None:
        result["mount"] = True
        result["process"] = await _describe_root(path, subtree)
    return result


async def _describe_root(place: str, subtree: SubtreeMount) -> Row:
    call = subtree.call("describe", {"path": ROOT})
    try:
        async with asyncio.timeout(1.0):
            return row_outward(place, await call.result())
    except ControlFailed as error:
        return {"unavailable": error.message}
    except TimeoutError:
        return {"unavailable": "no answer within 1 s"}
    finally:
        call.cancel()


async def stats(exchange: Exchange) -> Row:
    """`stats`: args path, classes. Counters of the node; with `classes`, sums per actor class.

    Result: `totals`, `process`, `actors`, `states`, `resources` (what actors own, by kind),
    `mounts`, and `classes`: rows of class, actors, mailbox, handled, busy_seconds, restarts,
    bytes_in, bytes_out, most actors first. The sums
    cover what lies at or below `path` in this process; a path in a child process asks that one.
    """
    args = exchange.args
    path = args.path(default=ROOT)
    wanted = args.flag("classes")
    args.finish()
    service = exchange.service
    mount = mounted(service, path)
    if mount is not None:
        return await forward(exchange, mount, inward_args(exchange, mount[0], path))
    slices = Slice()
    actors = 0
    states: dict[str, int] = {}
    resources: Counter[str] = Counter()
    classes: dict[str, Row] = {}
    for cell in inspection.walk(local_cell(service, path)):
        actors += 1
        word = inspection.state_word(cell)
        states[word] = states.get(word, 0) + 1
        resources.update(cell.resources.kinds())
        if wanted:
            _add_to_class(classes, cell)
        await slices.step()
    result: Row = {
        "path": path,
        "actors": actors,
        "states": states,
        "resources": dict(resources),
        "totals": inspection.totals(service.system),
        "process": process_figures(actors),
        "mounts": [place for place, _ in service.mounts.under(path)],
    }
    if wanted:
        result["classes"] = sorted(classes.values(), key=_actor_count, reverse=True)
    return result


def _actor_count(entry: Row) -> int:
    count = entry["actors"]
    return count if isinstance(count, int) else 0


def _add_to_class(classes: dict[str, Row], cell: Cell) -> None:
    name = type(cell.actor).__name__ if cell.actor is not None else ""
    received, sent = cell.resources.traffic()
    amounts: dict[str, float] = {
        "actors": 1,
        "mailbox": len(cell.mailbox.queue),
        "handled": cell.handled,
        "busy_seconds": cell.busy,
        "restarts": cell.restarts,
        "bytes_in": received,
        "bytes_out": sent,
    }
    entry = classes.setdefault(name, {"class": name})
    for key, amount in amounts.items():
        before = entry.get(key, 0)
        assert isinstance(before, (int, float))
        entry[key] = before + amount
