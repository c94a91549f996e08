"""`watch`: pictures of the tree at an interval, for a screen.

Nothing is computed while nobody watches. A snapshot is built in slices, and the pause after it is
at least `PAUSE_FACTOR` times the work it took, so that watching a huge tree costs the relay at
most a tenth of its time. A slow reader gets fewer snapshots, never old ones.

Processes mounted in the tree are watched the same way; their newest picture is put in its place.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace

from actors.admin.mounts import ControlFailed, SubtreeMount
from actors.admin.places import Slice, local_cell, mounted
from actors.admin.selection import Samples
from actors.admin.session import Exchange
from actors.admin.snapshot import VIEWS, WATCH_ORDERS, LocalSnapshot, View
from actors.runtime import inspection
from actors.runtime.cell import Cell
from wire.admin.arguments import Arguments
from wire.admin.limits import (
    MAX_FILTER_CHARACTERS,
    MAX_OPEN_PATHS,
    MAX_PAGE_ROWS,
    MAX_WATCH_INTERVAL,
    MAX_WATCH_ROWS,
    MIN_WATCH_INTERVAL,
)
from wire.admin.messages import Row
from wire.admin.paths import ROOT, below, inward, rows_outward

PAUSE_FACTOR = 9.0
#: Seconds between two counts of all actors.
COUNT_SECONDS = 10.0
#: Seconds the first snapshot waits for the pictures of mounted processes.
FIRST_WAIT_SECONDS = 0.3
#: Seconds between two attempts to watch a process that does not answer.
RETRY_SECONDS = 1.0


def parse_view(args: Arguments) -> tuple[View, float]:
    """The arguments of `watch`, and its interval. Raises `BadArguments`."""
    view = View(
        view=args.choice("view", "tree", VIEWS),
        root=args.path("root", ROOT),
        open=args.offsets("open", most=MAX_OPEN_PATHS),
        filter=args.text("filter", "", most=MAX_FILTER_CHARACTERS).lower(),
        sort=args.choice("sort", "start", WATCH_ORDERS),
        descending=args.flag("descending"),
        max_rows=args.integer("max_rows", 200, least=1, most=MAX_WATCH_ROWS),
        page=args.integer("page", 100, least=1, most=MAX_PAGE_ROWS),
    )
    interval = args.number("interval", 1.0, least=MIN_WATCH_INTERVAL, most=MAX_WATCH_INTERVAL)
    args.finish()
    return view, interval


async def watch(exchange: Exchange) -> Row:
    """`watch`: args view, root, open, filter, sort, descending, max_rows, page, interval.

    `open` maps the path of each unfolded place to the offset of the page shown of its children.
    Every part is one snapshot: `seq`, `at` (seconds of a monotonic clock, to make rates of two
    snapshots), `rows`, `truncated`, `totals`, `unavailable`. Ends when it is cancelled, or with
    `not_found` when `root` is gone.
    """
    view, interval = parse_view(exchange.args)
    mount = mounted(exchange.service, view.root)
    if mount is not None:
        return await _forward(exchange, mount, view, interval)
    async with asyncio.TaskGroup() as group:
        watcher = _Watcher(exchange, view, interval, group)
        failure = await watcher.run()
        watcher.end()
    raise failure


class _Watcher:
    """One `watch` request."""

    def __init__(
        self, exchange: Exchange, view: View, interval: float, group: asyncio.TaskGroup
    ) -> None:
        self._exchange = exchange
        self._service = exchange.service
        self._view = view
        self._interval = interval
        self._group = group
        self._samples = Samples()
        self._followed: dict[str, _MountPicture] = {}
        self._seq = 0
        self._actors = 0
        self._counted = 0.0

    async def run(self) -> ControlFailed:
        """Send snapshots until the top is gone; returns that as the failure to answer with."""
        while True:
            self._follow_mounts()
            if self._seq == 0 and self._followed:
                await self._first_pictures()
            slices = Slice()
            try:
                snapshot = await self._build(slices)
            except ControlFailed as error:
                return error
            await self._exchange.part([snapshot])
            await asyncio.sleep(max(self._interval, slices.spent * PAUSE_FACTOR))

    def end(self) -> None:
        """Stop watching other processes."""
        for picture in self._followed.values():
            picture.end()

    async def _build(self, slices: Slice) -> Row:
        system = self._service.system
        top = local_cell(self._service, self._view.root)
        at = system.loop.time()
        local = LocalSnapshot(self._service, self._view, self._samples, slices, self._splice)
        if self._view.view == "tree":
            await local.tree(top)
        else:
            await local.top(top)
            self._merge_top(local)
        if not self._seq or at - self._counted >= COUNT_SECONDS:
            self._counted, self._actors = at, await _count(system.root, slices)
        self._seq += 1
        pictures = self._followed.items()
        return {
            "seq": self._seq,
            "at": round(at, 4),
            "view": self._view.view,
            "rows": local.rows,
            "truncated": local.truncated,
            "totals": {**inspection.totals(system), "actors": self._actors},
            "unavailable": [
                {"path": p, "message": one.failed} for p, one in pictures if one.failed
            ],
        }

    # Mounted processes.

    def _follow_mounts(self) -> None:
        present = dict(self._service.mounts.under(self._view.root))
        for place, picture in list(self._followed.items()):
            if present.get(place) is not picture.mount:
                picture.end()
                del self._followed[place]
        for place, mount in present.items():
            if place not in self._followed and self._wants(place):
                self._followed[place] = _MountPicture(
                    place, mount, _inner_args(self._view, place, self._interval), self._group
                )

    def _wants(self, place: str) -> bool:
        return self._view.view == "top" or bool(self._view.filter) or place in self._view.open

    async def _first_pictures(self) -> None:
        try:
            async with asyncio.timeout(FIRST_WAIT_SECONDS):
                for picture in list(self._followed.values()):
                    await picture.answered.wait()
        except TimeoutError:
            pass  # they come with a later snapshot

    def _splice(self, path: str, depth: int) -> tuple[Row, list[Row]]:
        picture = self._followed.get(path)
        return ({}, []) if picture is None else picture.rows_at(depth)

    def _merge_top(self, local: LocalSnapshot) -> None:
        for picture in self._followed.values():
            # The child's root stands for its process, which has its row here.
            local.rows.extend(picture.rows_at(0)[1])
        if self._view.sort != "start":
            local.rows.sort(key=_value, reverse=self._view.descending)
        del local.rows[self._view.max_rows :]


class _MountPicture:
    """The newest snapshot of one mounted process, kept up to date by a task."""

    def __init__(
        self,
        place: str,
        mount: SubtreeMount,
        args: dict[str, object],
        group: asyncio.TaskGroup,
    ) -> None:
        self.place = place
        self.mount = mount
        self.failed = ""
        self.answered = asyncio.Event()
        self._args = args
        self._rows: list[Row] = []
        self._task = group.create_task(self._follow())

    def end(self) -> None:
        """Stop watching."""
        self._task.cancel()

    def rows_at(self, depth: int) -> tuple[Row, list[Row]]:
        """What the process says of its root, and its other rows, placed `depth` levels down."""
        own: Row = {}
        rows: list[Row] = []
        for one in self._rows:
            if one.get("path") == self.place:
                own = {name: one[name] for name in ("children", "group") if name in one}
                continue
            level = one.get("depth", 0)
            rows.append({**one, "depth": depth + (level if isinstance(level, int) else 0)})
        return own, rows

    async def _follow(self) -> None:
        while True:
            call = self.mount.call("watch", self._args)
            try:
                async for part in call:
                    self._take(part)
            except ControlFailed as error:
                self.failed = error.message
                self._rows = []
                self.answered.set()
            finally:
                call.cancel()
            await asyncio.sleep(RETRY_SECONDS)

    def _take(self, part: list[Row]) -> None:
        for snapshot in part:
            rows = snapshot.get("rows")
            if isinstance(rows, list):
                self._rows = rows_outward(self.place, rows)
        self.failed = ""
        self.answered.set()


def _inner_args(view: View, place: str, interval: float) -> dict[str, object]:
    """The same view, as the process mounted at `place` understands it."""
    inner = replace(
        view,
        root=ROOT if below(place, view.root) else inward(place, view.root),
        open={inward(place, path): at for path, at in view.open.items() if below(path, place)},
    )
    return {
        "view": inner.view,
        "root": inner.root,
        "open": inner.open,
        "filter": inner.filter,
        "sort": inner.sort,
        "descending": inner.descending,
        "max_rows": inner.max_rows,
        "page": inner.page,
        "interval": interval,
    }


async def _forward(
    exchange: Exchange, mount: tuple[str, SubtreeMount], view: View, interval: float
) -> Row:
    """Watch a place inside a mounted process."""
    place, subtree = mount
    call = subtree.call("watch", _inner_args(view, place, interval))
    try:
        async for part in call:
            for snapshot in part:
                rows = snapshot.get("rows")
                if isinstance(rows, list):
                    rows_outward(place, rows)
            await exchange.part(part)
        return await call.result()
    finally:
        call.cancel()


def _value(row: Row) -> float:
    value = row.get("value")
    return float(value) if isinstance(value, (int, float)) else 0.0


async def _count(top: Cell, slices: Slice) -> int:
    count = 0
    for _ in inspection.walk(top):
        count += 1
        await slices.step()
    return count
