"""What operators may ask about the TURN door: `ctl turn list`, `show`, `users` and `close`.

Rows and figures, never payload and no secrets. Users are whom quotas count: time-limited names
without their time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from loguru import logger

from actors.doors.door import DoorCommand
from actors.doors.row_filter import has_text
from wire.admin.arguments import Arguments
from wire.admin.errors import Declined
from wire.admin.messages import Row
from wire.turn.allocation import Allocation

if TYPE_CHECKING:
    from actors.turn.context import TurnContext

#: Rows of one answer.
MOST = 10_000


class TurnCommands:
    def __init__(self, door: TurnContext) -> None:
        self._door = door

    def commands(self) -> Mapping[str, DoorCommand]:
        return {
            "turn_list": self._list,
            "turn_show": self._show,
            "turn_users": self._users,
            "turn_close": self._close,
        }

    def streams(self) -> Iterable[Row]:
        for one in self._door.dispatcher.allocations.values():
            yield {
                "stream": str(one.number),
                "tenant": None,
                "consumer": one.user,
                "provider": None,
                "service": None,
                "method": "allocate",
                "state": "open",
                "mode": "turn-tcp" if one.endpoint.stream else "turn-udp",
                "seconds": round(self._door.clock() - one.since, 3),
                "bytes_up": one.bytes_from_client,
                "bytes_down": one.bytes_from_peers,
                "path": self._path(one),
            }

    def _path(self, one: Allocation) -> str:
        return f"{self._door.place('allocations').path}/{one.number}"

    def _row(self, one: Allocation) -> Row:
        return {
            "number": one.number,
            "user": one.user,
            "client": f"{one.client[0]} {one.client[1]}",
            "transport": "stream" if one.endpoint.stream else "UDP",
            "relayed": [f"{host} {port}" for host, port in map(_address, one.relays.values())],
            "channels": len(one.channels),
            "permissions": len(one.permissions),
            "bytes_from_client": one.bytes_from_client,
            "bytes_from_peers": one.bytes_from_peers,
            "packets_from_client": one.packets_from_client,
            "packets_from_peers": one.packets_from_peers,
            "dropped": one.dropped,
            "seconds": round(self._door.clock() - one.since, 1),
            "seconds_left": round(one.deadline.expires - self._door.clock(), 1),
        }

    async def _list(self, args: Arguments, _initiator: str) -> tuple[list[Row], Row]:
        """`ctl turn list [USER]`. Args: user, empty for all; filter, part of any text."""
        user = args.text("user", "", most=512)
        needle = args.text("filter", "", most=512)
        args.finish()
        alive = self._door.dispatcher.allocations.values()
        rows = [
            row
            for one in alive
            if (not user or one.user == user) and has_text(row := self._row(one), needle)
        ]
        return rows[:MOST], {"allocations": len(rows)}

    async def _show(self, args: Arguments, _initiator: str) -> tuple[list[Row], Row]:
        """`ctl turn show NUMBER`. Args: number. Result: the row, its peers and channels."""
        one = self._find(args)
        now = self._door.clock()
        return [], {
            **self._row(one),
            "permitted": {
                host: round(deadline.expires - now, 1)
                for host, deadline in list(one.permissions.items())[:256]
            },
            "bound": {
                f"{number:#06x}": f"{peer[0]} {peer[1]}"
                for number, peer in list(one.channels.items())[:256]
            },
        }

    async def _users(self, args: Arguments, _initiator: str) -> tuple[list[Row], Row]:
        """`ctl turn users`. No args. A row a user: allocations, and bytes since the start."""
        args.finish()
        total, alive = Counter(self._door.users), Counter[str]()
        for one in self._door.dispatcher.allocations.values():
            alive[one.user] += 1
            total[one.user] += one.bytes_from_client + one.bytes_from_peers
        rows: list[Row] = [
            {"user": user, "allocations": alive[user], "bytes": size}
            for user, size in total.most_common(MOST)
        ]
        return rows, {"users": len(total)}

    async def _close(self, args: Arguments, initiator: str) -> tuple[list[Row], Row]:
        """`ctl turn close NUMBER`. Args: number. Its client hears 437."""
        one = self._find(args)
        logger.warning("allocation {} closed by {}", one.number, initiator)
        self._door.dispatcher.close(one, "closed by an operator")
        return [], {"closed": one.number}

    def _find(self, args: Arguments) -> Allocation:
        number = args.integer("number", least=1, most=2**53)
        args.finish()
        one = self._door.dispatcher.allocations.get(number)
        if one is None:
            raise Declined(f"no allocation {number}")
        return one


def _address(relay: object) -> tuple[str, int]:
    address: tuple[str, int] = relay.address  # type: ignore[attr-defined]  # a `Relay`
    return address
