"""The control client as the nemesis wants it, surviving the loss of its own connection."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from pathlib import Path

from tools.chaos.groups import Row
from tools.chaos.history import History
from tools.control_client import CannotConnect, ControlClient, ControlError, Disconnected

#: Seconds to get a connection back.
RECONNECT_SECONDS = 10.0


class ControlAdapter:
    """The control client as the nemesis wants it, surviving the loss of its own connection.
    `Control` of tools.chaos.nemesis.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._client: ControlClient | None = None

    async def client(self) -> ControlClient:
        """A live connection.

        Raises:
            CannotConnect: the first time at once, later after `RECONNECT_SECONDS`.
        """
        if self._client is not None and self._client.lost is None:
            return self._client
        if self._client is None:
            self._client = await ControlClient.connect(self._path)
            return self._client
        deadline = asyncio.get_running_loop().time() + RECONNECT_SECONDS
        while True:
            try:
                self._client = await ControlClient.connect(self._path)
            except CannotConnect:
                if asyncio.get_running_loop().time() > deadline:
                    raise
                await asyncio.sleep(0.1)
            else:
                return self._client

    async def tree(self, path: str = "/") -> list[Row]:
        """Every row below `path`."""
        client = await self.client()
        try:
            return list(await client.rows("tree", path=path))
        except ControlError:
            return []

    async def describe(self, path: str) -> Mapping[str, object]:
        """Details of one actor; empty when nobody is there."""
        client = await self.client()
        try:
            return await client.request("describe", path=path)
        except ControlError:
            return {}

    async def act(self, verb: str, path: str, reason: str) -> bool:
        """kill, crash, suspend or resume."""
        client = await self.client()
        try:
            await client.request(verb, path=path, reason=reason, by="chaos")
        except ControlError:
            return False
        except Disconnected:
            return True  # it served this very connection
        return True

    async def stats(self) -> dict[str, object]:
        """Counters of the node and its process, in one flat dict."""
        client = await self.client()
        answer = await client.request("stats", timeout=60.0)
        flat: dict[str, object] = {
            "actors": answer.get("actors"),
            "resources": answer.get("resources"),
        }
        for key in ("totals", "process"):  # of the node and of its process
            part = answer.get(key)
            if isinstance(part, dict):
                flat.update(part)
        return flat

    async def follow(self, history: History, until: Callable[[], bool]) -> None:
        """Append every event to the history until told to end."""
        seen = 0
        while not until():
            client = await self.client()
            call = client.call("events", path="/", last=2000 if seen else 0, follow=True)
            with contextlib.suppress(Disconnected):
                async for row in call.rows():
                    number = row.get("seq")
                    if isinstance(number, int):
                        if number <= seen:
                            continue
                        seen = number
                    if row.get("kind") == "lost":
                        history.events_lost += 1
                    history.events.append(row)

    async def carriers(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """What carries streams, over all doors: places of connections, and of pairs."""
        client = await self.client()
        rows = await client.rows("doors")

        def places(key: str) -> tuple[str, ...]:
            return tuple(
                str(place)
                for row in rows
                if isinstance(named := row.get(key), list)
                for place in named
            )

        return places("connections"), places("pairs")

    async def relay_address(self) -> tuple[str, int] | None:
        """Where agents on this machine reach the relay; None when it does not listen."""
        for row in await self.tree("/edge"):
            if row.get("class") != "QuicListener":
                continue
            described = (await self.describe(str(row["path"]))).get("describe")
            address = described.get("address") if isinstance(described, dict) else None
            host, colon, port = str(address).rpartition(":")
            if not colon or not port.isdigit() or port == "0":
                continue
            host = host.removeprefix("[").removesuffix("]")
            loopback = {"0.0.0.0": "127.0.0.1", "::": "::1"}
            return loopback.get(host, host), int(port)
        return None

    async def close(self) -> None:
        """Close the connection."""
        if self._client is not None:
            await self._client.close()
