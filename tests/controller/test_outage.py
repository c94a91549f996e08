"""The controller goes away and comes back: what is known serves, what is decided stays."""

from __future__ import annotations

import asyncio
import gc
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Self

import pytest
from loguru import logger

from actors.control.backend import AuditFilter
from actors.control.messages import AuditRecord, Resolve, Unavailable
from actors.control.operator_messages import QueryAudit, RemoveRule
from actors.control.store.fleet_requests import FindRelays
from actors.controller.port import Port
from actors.runtime import ActorDown, ReplyError
from tests.conftest import eventually, run
from tests.control.rig import Rig
from tests.controller.rig import Controller, add_rule, allow, client, decide, link, server, watching


async def known(rig: Rig, service: str, expected: list[str]) -> None:
    async with asyncio.timeout(10):
        while await rig.providers(service) != expected:
            await asyncio.sleep(0.02)


async def away(rig: Rig) -> None:
    """The relay noticed that the controller is gone."""
    await eventually(lambda: not link(rig)["watching"] and not link(rig)["reachable"])


def test_known_services_and_rules_outlast_the_controller(tmp_path: Path) -> None:
    async def main() -> None:
        controller = Controller(tmp_path / "c.db")
        async with controller.relay("a") as a, controller.relay("bb") as b:
            async with controller.run() as c:
                await add_rule(c, allow("r1", "web"))
                await watching(a, b)
                await a.connect("u1", "web")
                await known(b, "web", ["u1"])
            await away(b)
            # Longer than any answer is fresh, so that every resolve comes from what is known.
            for _ in range(4):
                await asyncio.sleep(0.4)
                assert await b.providers("web") == ["u1"]
                assert (await decide(b, "web")).allow
            assert link(b)["served_stale"] > 0
            # What is not known is not "not found": it cannot be told.
            with pytest.raises(ReplyError) as caught:
                await b.registry.ask(Resolve("acme", "other"), timeout=5)
            assert isinstance(caught.value.refusal, Unavailable)
            async with controller.run():
                await watching(a, b)
                await known(b, "web", ["u1"])
                await known(b, "other", [])

    run(main(), timeout=40)


def test_a_start_with_its_controller_is_no_failure(tmp_path: Path) -> None:
    """The rules come a moment after the first look for them; a controller that is away is told."""
    lines: list[str] = []
    sink = logger.add(lambda line: lines.append(str(line)), level="INFO")

    async def main() -> None:
        controller = Controller(tmp_path / "c.db")
        async with controller.run() as c, controller.relay("a") as a:
            await add_rule(c, allow("r1", "web"))
            await watching(a)
            await eventually(lambda: link(a)["rule_snapshots"] == 1)
            assert not any("denied" in line or "WARNING" in line for line in lines)
        async with controller.relay("bb") as b:
            await away(b)
            assert any("the controller does not answer" in line for line in lines)
            await eventually(lambda: any("everything is denied" in line for line in lines))

    try:
        run(main(), timeout=40)
    finally:
        logger.remove(sink)


def test_a_relay_that_starts_without_its_controller_denies_and_recovers(tmp_path: Path) -> None:
    async def main() -> None:
        controller = Controller(tmp_path / "c.db")
        async with controller.run() as c:  # takes its port
            await add_rule(c, allow("r1"))
        async with controller.relay("a") as a:
            assert not (await decide(a, "web")).allow
            connection = a.idle()
            generation = await a.up("u1", connection)
            # An agent keeps its connection and its services, although nobody else hears of them.
            assert await a.register("u1", "web", generation) == "acme/web"
            assert await a.providers("web") == ["u1"]
            await away(a)
            assert await a.register("u1", "web", generation) == "acme/web"
            async with controller.run(), client(controller.address) as foreign:
                async with asyncio.timeout(10):
                    while await foreign.resolve("web") != ["u1@a"]:
                        await asyncio.sleep(0.02)
                await eventually(lambda: a.describe("policy")["store_rules"] == 1)
                assert (await decide(a, "web")).allow

    run(main(), timeout=40)


def test_the_rules_are_replaced_at_once_and_never_empty(tmp_path: Path) -> None:
    async def main() -> None:
        controller = Controller(tmp_path / "c.db")
        async with controller.relay("a") as a:
            async with controller.run() as c:
                for number in range(50):
                    await add_rule(c, allow(f"old{number}", f"s{number}"))
                await add_rule(c, allow("stays", "web"))
                await watching(a)
                await eventually(lambda: a.describe("policy")["store_rules"] == 51)
            await away(a)
            async with AsyncExitStack() as stack:
                # While it is away its rules change; the relay is not connected yet.
                c = await stack.enter_async_context(Controller(controller.database).run())
                for number in range(50):
                    await c.policy.ask(RemoveRule("acme", f"old{number}"), timeout=5)
                await add_rule(c, allow("new", "s7"))
            refused = 0
            snapshots = link(a)["rule_snapshots"]
            async with controller.run():
                async with asyncio.timeout(10):
                    while (await decide(a, "s7")).reason != "new":
                        refused += not (await decide(a, "web")).allow
                        assert a.describe("policy")["store_rules"] in (51, 2)
                        await asyncio.sleep(0)
                assert refused == 0
                assert link(a)["rule_snapshots"] == snapshots + 1
                assert not (await decide(a, "s8")).allow

    run(main(), timeout=40)


def test_decisions_are_kept_up_to_the_declared_queue(tmp_path: Path) -> None:
    async def main() -> None:
        controller = Controller(tmp_path / "c.db")
        async with controller.relay("a", audit_queue=500) as a:
            async with controller.run() as c:
                await add_rule(c, allow("r1"))
                await watching(a)
                await eventually(lambda: a.describe("policy")["store_rules"] == 1)
            await away(a)
            for number in range(600):
                await decide(a, f"s{number}")
            await eventually(lambda: a.describe("audit")["queued"] == 500)
            await eventually(lambda: a.describe("audit")["lost"] == 100)
            assert a.describe("audit")["stored"] == 0
            async with controller.run() as c:
                await eventually(lambda: a.describe("audit")["stored"] == 500, timeout=10)
                wanted = AuditFilter("acme", caller="caller", limit=1000)
                records = await c.audit.ask(QueryAudit(wanted), timeout=5)
                # The newest are dropped, the oldest kept.
                assert {record.target for record in records} == {f"s{n}" for n in range(500)}
            assert a.system.dead_letters.by_type[AuditRecord.__name__, "queue full"] == 100

    run(main(), timeout=40)


def test_a_controller_that_forgot_everything_is_told_again(tmp_path: Path) -> None:
    async def main() -> None:
        controller = Controller(tmp_path / "c.db")
        async with controller.relay("a", region="us") as a:
            async with controller.run():
                await watching(a)
                await a.connect("u1", "web", "db")
            await away(a)
            controller.database = tmp_path / "empty.db"
            async with controller.run(), client(controller.address) as foreign:
                async with asyncio.timeout(10):
                    while await foreign.resolve("web") + await foreign.resolve("db") != [
                        "u1@a",
                        "u1@a",
                    ]:
                        await asyncio.sleep(0.02)
                async with controller.relay("bb") as b:
                    (provider,) = (await b.resolve("web")).providers
                    assert provider.relay_endpoint == "192.0.2.1:1"  # it announced itself too

    run(main(), timeout=40)


def test_killing_the_server_or_the_link_loses_nothing(tmp_path: Path) -> None:
    async def main() -> None:
        controller = Controller(tmp_path / "c.db")
        async with controller.run() as c, controller.relay("a") as a:
            await add_rule(c, allow("r1"))
            await watching(a)
            await a.connect("u1", "web")
            await eventually(lambda: a.describe("policy")["store_rules"] == 1)
            for _ in range(5):
                place = c.ref("/control/controller/server")
                before = place.incarnation
                c.system.kill(place)
                assert (await decide(a, "web")).allow
                await eventually(lambda: place.incarnation != before)  # noqa: B023  # awaited here
                await eventually(lambda: server(c)["listening"], timeout=10)
                await add_rule(c, allow(f"n{before}"))
                await watching(a)
                await eventually(
                    lambda: a.describe("policy")["store_rules"] == link(a)["rules"] > 1
                )
            a.system.kill(a.ref("/control/link"))
            async with asyncio.timeout(10):
                while not (await decide(a, "web")).allow:
                    await asyncio.sleep(0.02)
            await watching(a)

    run(main(), timeout=40)


def test_a_link_that_dies_with_a_request_on_its_first_step(tmp_path: Path) -> None:
    """Its end is told to who asked; what was to be done for it never began."""

    async def dies_after(turns: int, a: Rig) -> None:
        await watching(a)
        place = a.ref("/control/link")
        before = place.incarnation
        asked = asyncio.create_task(place.ask(FindRelays(), timeout=5))
        for _ in range(turns):
            await asyncio.sleep(0)
        a.system.kill(place)
        await asyncio.wait([asked])
        assert isinstance(asked.exception(), ActorDown)
        await eventually(lambda: place.incarnation != before)
        gc.collect()  # a coroutine that nobody awaited says so here

    async def main() -> None:
        controller = Controller(tmp_path / "c.db")
        async with controller.run(), controller.relay("a") as a:
            for turns in range(8):
                await dies_after(turns, a)

    run(main(), timeout=40)


class Wire:
    """A TCP connection in the middle, which can fall silent without breaking."""

    def __init__(self, to: int) -> None:
        self._to = to
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        except OSError:
            pass

    async def _connected(self, near: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        far, out = await asyncio.open_connection("127.0.0.1", self._to)
        self._writers += [back, out]
        for one in (self._carry(near, out), self._carry(far, back)):
            self._tasks.add(asyncio.create_task(one))

    def fall_silent(self) -> None:
        """Nothing passes any more; new connections do."""
        for task in self._tasks:
            task.cancel()

    async def __aenter__(self) -> Self:
        self._writers: list[asyncio.StreamWriter] = []
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self.fall_silent()
        await asyncio.wait(self._tasks)
        for writer in self._writers:
            writer.transport.abort()
        await asyncio.sleep(0)


def test_a_connection_that_fell_silent_is_given_up(tmp_path: Path) -> None:
    async def main() -> None:
        controller = Controller(tmp_path / "c.db")
        async with controller.run() as c, Wire(controller.port.port) as wire:
            through = Controller(tmp_path / "unused", port=Port("127.0.0.1", wire.port))
            async with through.relay("a") as a:
                await watching(a)
                await add_rule(c, allow("r1"))
                await eventually(lambda: a.describe("policy")["store_rules"] == 1)
                wire.fall_silent()
                await add_rule(c, allow("r2"))
                questions = [
                    asyncio.create_task(a.registry.ask(Resolve("acme", name), timeout=10))
                    for name in ("web", "db")
                ]
                await eventually(lambda: link(a)["channels"] > 1, timeout=15)
                await asyncio.wait(questions)
                for question in questions:
                    question.exception()
                await watching(a)
                await eventually(lambda: a.describe("policy")["store_rules"] == 2)
                assert await a.providers("web") == []

    run(main(), timeout=60)


def test_agents_come_and_go_while_the_controller_is_away(tmp_path: Path) -> None:
    async def main() -> None:
        controller = Controller(tmp_path / "c.db")
        async with controller.relay("a") as a:
            async with controller.run(), client(controller.address) as foreign:
                await watching(a)
                leaving, _ = await a.connect("u1", "web", "old")
                assert await foreign.resolve("web") == ["u1@a"]
            await away(a)
            await a.kill(leaving)
            assert a.describe("registry")["agents"] == 0
            # Its withdrawal is still on the way when it is back.
            async with asyncio.timeout(4):
                await a.connect("u1", "web")
            assert await a.providers("web") == ["u1"]
            async with controller.run(), client(controller.address) as foreign:
                async with asyncio.timeout(10):
                    while await foreign.resolve("old") or await foreign.resolve("web") != ["u1@a"]:
                        await asyncio.sleep(0.02)
                await eventually(lambda: a.describe("registry")["unpublished"] == 0)

    run(main(), timeout=40)
