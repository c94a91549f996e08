"""Finding what a control request is about: an actor here, or a place in a mounted process.

Everything that looks at many actors goes through `Slice`: after `SLICE_SECONDS` of work the event
loop gets a turn, whatever the size of the tree.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from time import perf_counter

from actors.admin.mounts import ControlFailed, SubtreeMount
from actors.admin.session import ControlService, Exchange
from actors.runtime import inspection
from actors.runtime.cell import Cell
from wire.admin.errors import ErrorCode
from wire.admin.messages import Row
from wire.admin.paths import inward, row_outward, rows_outward

#: Work between two turns of the event loop, seconds.
SLICE_SECONDS = 0.001
#: Cells visited between two looks at the clock.
SLICE_CHECK = 32


class Slice:
    """Counts work and gives the event loop a turn when a slice is used up."""

    __slots__ = ("_began", "_left", "spent")

    def __init__(self) -> None:
        self._began = perf_counter()
        self._left = SLICE_CHECK
        #: Seconds of work so far, turns of the event loop left out.
        self.spent = 0.0

    async def step(self, visited: int = 1) -> None:
        """Account for `visited` cells; may give the event loop a turn."""
        self._left -= visited
        if self._left > 0:
            return
        self._left = SLICE_CHECK
        worked = perf_counter() - self._began
        if worked >= SLICE_SECONDS:
            self.spent += worked
            await asyncio.sleep(0)
            self._began = perf_counter()


def local_cell(service: ControlService, path: str) -> Cell:
    """The actor at `path` in this process. Raises `ControlFailed` (`not_found`)."""
    cell = service.system.find(path)
    if cell is None:
        raise ControlFailed(ErrorCode.NOT_FOUND, f"no actor at {path}")
    return cell


def mounted(service: ControlService, path: str) -> tuple[str, SubtreeMount] | None:
    """The mount that `path` lies strictly below; None when this process answers for it."""
    found = service.mounts.find(path)
    return None if found is None or found[0] == path else found


def row(service: ControlService, cell: Cell) -> Row:
    """The row of one actor, with `mount: true` when another process's tree continues there."""
    result = inspection.row(cell)
    if cell.children is None and service.mounts.at(cell.path) is not None:
        result["mount"] = True
    return result


async def forward(
    exchange: Exchange,
    mount: tuple[str, SubtreeMount],
    args: Mapping[str, object],
) -> Row:
    """Let a mounted process serve this operation; `args` has paths of its own tree."""
    place, subtree = mount
    call = subtree.call(exchange.op, args)
    try:
        async for rows in call:
            await exchange.part(rows_outward(place, rows))
        return row_outward(place, await call.result())
    finally:
        call.cancel()


def inward_args(exchange: Exchange, mount: str, path: str) -> dict[str, object]:
    """The request's own arguments with its path as the mounted process knows it."""
    return {**exchange.values, "path": inward(mount, path)}
