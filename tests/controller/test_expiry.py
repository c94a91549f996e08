"""Dead relays: their services go, watchers hear of it, and the living stay."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

from tests.conftest import eventually, run
from tests.controller.rig import Client, Controller, client, watching
from wire.orp import control_pb2 as pb


async def gone(foreign: Client, name: str) -> None:
    async with asyncio.timeout(5):
        while await foreign.resolve(name):
            await asyncio.sleep(0.02)


def test_a_relay_that_stops_is_withdrawn_and_one_that_goes_on_is_not(tmp_path: Path) -> None:
    async def main() -> None:
        controller = Controller(tmp_path / "c.db", relay_alive_seconds=0.4)
        async with controller.run() as rig, client(controller.address) as foreign:
            watch = foreign.stream("Registry/Watch", pb.WatchRequest())
            await watch.initial_metadata()
            await foreign.upsert("dead", heartbeats=True)
            await foreign.upsert("reference")  # announces itself once, as the sheet has it
            await foreign.register("web", "u1", "dead")
            await foreign.register("db", "u2", "reference")
            async with controller.relay("alive", heartbeat=0.1) as alive:
                await watching(alive)
                await alive.connect("u3", "mail")
                await gone(foreign, "web")
                assert await foreign.resolve("db") == ["u2@reference"]
                assert await foreign.resolve("mail") == ["u3@alive"]
                # A service of a relay nobody heard of goes by its own age.
                await foreign.register("lost", "u4", "unheard")
                await gone(foreign, "lost")
                assert await foreign.resolve("mail") == ["u3@alive"]
                events = [await watch.read() for _ in range(5)]
                ended = [event for event in events if event.kind == pb.EVENT_KIND_DEREGISTER]
                assert (ended[0].service_name, ended[0].provider.relay_id) == ("web", "dead")
            assert rig.describe("controller/expiry")["services_expired"] >= 2
            watch.cancel()

    run(main(), timeout=40)


def test_silent_relays_expire_where_it_is_wanted(tmp_path: Path) -> None:
    async def main() -> None:
        controller = Controller(tmp_path / "c.db", relay_alive_seconds=0.3, silent_too=True)
        async with controller.run(), client(controller.address) as foreign:
            await foreign.upsert("reference")
            await foreign.register("db", "u2", "reference")
            assert await foreign.resolve("db") == ["u2@reference"]
            await gone(foreign, "db")

    run(main())


def test_everybody_has_time_to_come_back_after_a_start(tmp_path: Path) -> None:
    async def main() -> None:
        controller = Controller(tmp_path / "c.db", relay_alive_seconds=30.0)
        async with controller.run(), client(controller.address) as foreign:
            await foreign.upsert("r1", heartbeats=True)
            await foreign.register("web", "u1")
        with closing(sqlite3.connect(tmp_path / "c.db")) as store, store:
            # The controller was away for an hour.
            store.execute("UPDATE relay_instances SET last_heartbeat_unix_ms = 1000")
        async with controller.run() as rig, client(controller.address) as foreign:
            assert await foreign.resolve("web") == ["u1@r1"]
            assert rig.describe("controller/expiry")["sweeps"] == 0

    run(main())


def test_what_was_expired_while_it_was_cut_off_is_published_again(tmp_path: Path) -> None:
    async def main() -> None:
        controller = Controller(tmp_path / "c.db", relay_alive_seconds=0.4)
        async with controller.relay("a", heartbeat=0.1) as a:
            async with controller.run():
                await watching(a)
                await a.connect("u1", "web")
            await eventually(lambda: not a.describe("link")["reachable"])
            with closing(sqlite3.connect(tmp_path / "c.db")) as store, store:
                store.execute("DELETE FROM services")  # as its controller would have done
            async with controller.run(), client(controller.address) as foreign:
                async with asyncio.timeout(10):
                    while await foreign.resolve("web") != ["u1@a"]:
                        await asyncio.sleep(0.02)

    run(main(), timeout=40)


def test_relays_and_agents_of_long_ago_are_forgotten(tmp_path: Path) -> None:
    async def main() -> None:
        path = tmp_path / "c.db"
        controller = Controller(path, relay_alive_seconds=0.2)
        async with controller.run(), client(controller.address) as foreign:
            await foreign.upsert("r1")
            await foreign.register("web", "u1", "r1")
        with closing(sqlite3.connect(path)) as store, store:
            store.execute("INSERT INTO agents VALUES ('old', 'acme', 1, NULL)")
            store.execute("INSERT INTO relay_instances VALUES ('old', NULL, 'h:1', 1, 0)")
        async with controller.run() as rig:
            await eventually(lambda: rig.describe("controller/expiry")["sweeps"] > 0)
        with closing(sqlite3.connect(path)) as store:
            assert store.execute("SELECT uri FROM agents").fetchall() == [("u1",)]
            relays = {row[0] for row in store.execute("SELECT id FROM relay_instances")}
            assert relays == {"r1", "c"}

    run(main())
