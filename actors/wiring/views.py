"""What the daemon does, over all its doors: the rows of `ctl agents`, `services` and `streams`.

Source: docs/decisions/0134.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import Final

from actors.admin.commands import Command
from actors.doors.door import Door, Viewed
from actors.doors.row_filter import has_text
from wire.admin.arguments import Arguments
from wire.admin.messages import Row

VIEWS: Final = ("agents", "services", "streams")
#: Fields that name an agent.
AGENT_FIELDS: Final = ("agent", "consumer", "provider")
MAX_ROWS: Final = 100_000
_MAX_WORD: Final = 512
#: Rows made in one turn of the event loop.
_SLICE: Final = 200


class Views:
    """Rows of every door that has some.

    Args:
        doors: by name; read when somebody asks.
    """

    def __init__(self, doors: Mapping[str, Door]) -> None:
        self._doors = doors

    def commands(self) -> Mapping[str, Command]:
        """One for each of `VIEWS`."""
        return {view: self._command(view) for view in VIEWS}

    def _command(self, view: str) -> Command:
        async def command(args: Arguments, _initiator: str) -> tuple[list[Row], Row]:
            return await self.rows(view, args)

        return command

    async def rows(self, view: str, args: Arguments) -> tuple[list[Row], Row]:
        """args: door, tenant, service and agent (exact), filter (part of any text), limit.

        Rows are the doors' own with `door`. Result: matched, the number of all that match; silent,
        the doors that show nothing of themselves.
        """
        door = args.text("door", "", most=_MAX_WORD)
        exact = {name: args.text(name, "", most=_MAX_WORD) for name in ("tenant", "service")}
        agent = args.text("agent", "", most=_MAX_WORD)
        needle = args.text("filter", "", most=_MAX_WORD)
        limit = args.integer("limit", 1000, least=1, most=MAX_ROWS)
        args.finish()
        found: list[Row] = []
        matched = seen = 0
        silent: list[str] = []
        for name, one in list(self._doors.items()):
            if door and name != door:
                continue
            if not isinstance(one, Viewed):
                silent.append(name)
                continue
            for row in _of(one, view):
                seen += 1
                if seen % _SLICE == 0:
                    await asyncio.sleep(0)
                if _fits(row, exact, agent, needle):
                    matched += 1
                    if len(found) < limit:
                        found.append({"door": name, **row})
        return found, {"matched": matched, "silent": silent}


def _of(door: Viewed, view: str) -> Iterable[Row]:
    if view == "agents":
        return door.agents()
    return door.services() if view == "services" else door.streams()


def _fits(row: Row, exact: Mapping[str, str], agent: str, needle: str) -> bool:
    for name, wanted in exact.items():
        if wanted:
            many = row.get(name, row.get(f"{name}s"))
            if wanted != many and not (isinstance(many, list) and wanted in many):
                return False
    if agent and agent not in [row.get(name) for name in AGENT_FIELDS]:
        return False
    return has_text(row, needle)
