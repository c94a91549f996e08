"""What relays say to their controller while nothing happens, and what they repair meanwhile."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

from actors.control.backend import Withdrawal
from actors.control.messages import Confirm
from actors.control.store.requests import DeregisterAgents, DeregisterStale
from tests.conftest import eventually, run
from tests.control.rig import Rig
from tests.controller.rig import Controller, client, server, watching

AGENTS = 20
SERVICES = ("web", "db", "ssh")
FOR_EVER = 1 << 60


def _writes(rig: Rig) -> int:
    return int(rig.describe("store")["writes"])


def test_what_is_listed_is_not_published_again(tmp_path: Path) -> None:
    """An idle agent, however often its relay asks, costs the controller no RPC and no write."""

    async def main() -> None:
        controller = Controller(tmp_path / "c.db")
        async with (
            controller.run() as c,
            controller.relay("a") as a,
            controller.relay("bb") as b,
        ):
            await watching(a, b)
            agents = []
            for relay in (a, b):
                for number in range(AGENTS):
                    uri = f"{relay is b}-{number}"
                    connection, generation = await relay.connect(uri, *SERVICES)
                    agents.append((relay, uri, connection, generation))
            served, writes = dict(server(c)["served"]), _writes(c)
            for relay, uri, connection, generation in agents:
                assert await relay.up(uri, connection, generation) == generation
                for name in SERVICES:
                    assert await relay.register(uri, name, generation) == f"acme/{name}"
                question = Confirm(uri, generation, len(SERVICES))
                assert await relay.registry.ask(question, timeout=5.0)
            assert server(c)["served"] == served
            assert _writes(c) == writes

    run(main(), timeout=40)


def test_rows_that_vanished_at_the_controller_come_back_with_a_heartbeat(tmp_path: Path) -> None:
    """As when this relay was stopped for longer than it lives without a heartbeat."""

    async def main() -> None:
        controller = Controller(tmp_path / "c.db")
        async with (
            controller.run(heartbeat=0.1) as c,
            controller.relay("a", heartbeat=0.1) as a,
            client(controller.address) as foreign,
        ):
            await watching(a)
            await a.connect("u1", *SERVICES)
            await c.connect("u2", "own")
            for relay_id in ("a", "c"):  # one over gRPC, one beside the store
                await c.ref("/control/store").ask(DeregisterStale(relay_id, FOR_EVER), timeout=5)
            async with asyncio.timeout(10):
                while [await foreign.resolve(name) for name in (*SERVICES, "own")] != [
                    ["u1@a"],
                    ["u1@a"],
                    ["u1@a"],
                    ["u2@c"],
                ]:
                    await asyncio.sleep(0.02)
            assert a.describe("registry")["published_again"] == len(SERVICES)

    run(main(), timeout=40)


def test_an_agent_that_moved_is_not_taken_back(tmp_path: Path) -> None:
    """Its old connection has not ended yet when the old relay sends its heartbeats."""

    async def main() -> None:
        controller = Controller(tmp_path / "c.db")
        async with (
            controller.run() as c,
            controller.relay("a", heartbeat=0.02) as a,
            controller.relay("bb", heartbeat=0.1) as b,
            client(controller.address) as foreign,
        ):
            await watching(a, b)
            old, _ = await a.connect("u1", "web")
            await a.connect("u2", "db")
            await b.connect("u1", "web")
            assert await foreign.resolve("web") == ["u1@bb"]
            served = server(c)["served"]["Registry/UpsertRelay"]
            await eventually(lambda: server(c)["served"]["Registry/UpsertRelay"] > served + 10)
            assert await foreign.resolve("web") == ["u1@bb"]
            await a.kill(old)
            # And a row that the old relay took with it is brought back by the new one.
            gone = DeregisterAgents([Withdrawal("acme", "u1", "bb")])
            await c.ref("/control/store").ask(gone, timeout=5)
            async with asyncio.timeout(10):
                while await foreign.resolve("web") != ["u1@bb"]:
                    await asyncio.sleep(0.02)
        with closing(sqlite3.connect(tmp_path / "c.db")) as store:
            assert store.execute("SELECT count(*) FROM relay_instances").fetchone() == (3,)

    run(main(), timeout=40)
