"""The inspector's connection: keeps pictures and events coming, whatever the daemon does.

Two subscriptions on one connection, `watch` and `events`. When the connection is lost, both end
and are begun again every `RETRY_SECONDS` until a daemon answers. Knows no screen.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from tools.control_client import Call, CannotConnect, ControlClient, ControlError, Disconnected
from wire.admin.messages import Row

RETRY_SECONDS = 0.5
#: Events asked for at the beginning.
REPLAY = 50
CONNECT_SECONDS = 5.0


class Subscriptions:
    """Runs until its task is cancelled.

    Args:
        path: the control socket.
        query: the arguments of `watch` as they should be now.
        on_snapshot, on_event: called with every picture and event.
        on_state: called with an empty text when connected, else with what is wrong.
    """

    def __init__(
        self,
        path: Path,
        query: Callable[[], Row],
        *,
        on_snapshot: Callable[[Row], None],
        on_event: Callable[[Row], None],
        on_state: Callable[[str], None],
    ) -> None:
        self._path = path
        self._query = query
        self._on_snapshot = on_snapshot
        self._on_event = on_event
        self._on_state = on_state
        self._client: ControlClient | None = None
        self._watching: Call | None = None
        self._again = asyncio.Event()

    @property
    def node(self) -> str:
        """The daemon's name and process id, empty while there is none."""
        greeting = self._client.greeting if self._client is not None else None
        return f"{greeting.node} pid {greeting.pid}" if greeting is not None else ""

    def ask_again(self) -> None:
        """The query changed: watch with the new one, at once."""
        self._again.set()

    async def request(self, op: str, **args: object) -> Row:
        """One question beside the subscriptions.

        Raises:
            ControlError: refused. Disconnected: nobody there. TimeoutError: no answer in time.
        """
        if self._client is None:
            raise Disconnected("disconnected")
        return await self._client.request(op, timeout=6.0, **args)

    async def run(self) -> None:
        """Connect, follow, and again."""
        while True:
            try:
                self._client = await ControlClient.connect(self._path, timeout=CONNECT_SECONDS)
            except CannotConnect as error:
                self._on_state(str(error))
                await asyncio.sleep(RETRY_SECONDS)
                continue
            try:
                await self._follow(self._client)
            finally:
                client, self._client = self._client, None
                await client.close()
            await asyncio.sleep(RETRY_SECONDS)

    async def _follow(self, client: ControlClient) -> None:
        """Until one of the subscriptions ends; tells why."""
        self._on_state("")
        tasks = {
            asyncio.create_task(self._watch(client), name="watch"),
            asyncio.create_task(self._events(client), name="events"),
        }
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            self._on_state(next(iter(done)).result())
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    async def _events(self, client: ControlClient) -> str:
        try:
            async for event in client.call("events", last=REPLAY, follow=True).rows():
                self._on_event(event)
        except (ControlError, Disconnected) as error:
            return str(error)
        return "the event stream ended"

    async def _watch(self, client: ControlClient) -> str:
        while True:
            self._again.clear()
            try:
                call = client.call("watch", **self._query())
            except Disconnected as error:
                return str(error)
            reading = asyncio.create_task(self._read(call), name="snapshots")
            changed = asyncio.create_task(self._again.wait(), name="query")
            try:
                await asyncio.wait({reading, changed}, return_when=asyncio.FIRST_COMPLETED)
                if reading.done():
                    return reading.result()
            finally:
                for task in (reading, changed):
                    task.cancel()
                await asyncio.wait({reading, changed})
                call.cancel()

    async def _read(self, call: Call) -> str:
        try:
            async for snapshot in call.rows():
                self._on_snapshot(snapshot)
        except (ControlError, Disconnected) as error:
            return str(error)
        return "the daemon ended the picture"


__all__ = ["Subscriptions"]
