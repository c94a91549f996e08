"""Two relays and a controller over real gRPC: one registry, one policy, one audit log."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

from actors.control.backend import AuditFilter
from actors.control.messages import RelayMode
from actors.control.operator_messages import ListRules, QueryAudit, RemoveRule
from actors.controller.port import Port
from tests.conftest import eventually, run
from tests.control.rig import Rig
from tests.controller.rig import (
    Controller,
    add_rule,
    allow,
    client,
    decide,
    link,
    server,
    watching,
)


async def resolves(rig: Rig, service: str, expected: list[str], *, region: str = "") -> None:
    """Poll: remote answers are at most a second old."""
    async with asyncio.timeout(10):
        while await rig.providers(service, region=region) != expected:
            await asyncio.sleep(0.02)


def test_a_service_of_one_relay_is_found_from_the_other(tmp_path: Path) -> None:
    async def main() -> None:
        controller = Controller(tmp_path / "c.db")
        async with controller.run(), controller.relay("a") as a, controller.relay("bb") as b:
            await watching(a, b)
            connection, _ = await a.connect("u1", "web")
            (provider,) = (await b.resolve("web")).providers
            assert (provider.uri, provider.relay_id) == ("u1", "a")
            assert provider.relay_endpoint == "192.0.2.1:1"
            assert provider.local_address == "127.0.0.1:80"
            assert provider.connection is None
            await a.kill(connection)
            await resolves(b, "web", [])

    run(main())


def test_rules_reach_every_relay_without_being_asked_for(tmp_path: Path) -> None:
    async def main() -> None:
        controller = Controller(tmp_path / "c.db")
        async with controller.run() as c, controller.relay("a") as a:
            await watching(a)
            assert not (await decide(a, "web")).allow
            await add_rule(c, allow("r1", "web", relay_mode=RelayMode.FORWARD))
            await eventually(lambda: a.describe("policy")["store_rules"] == 1)
            decision = await decide(a, "web")
            assert (decision.allow, decision.reason) == (True, "r1")
            assert decision.relay_mode is RelayMode.FORWARD
            assert await c.policy.ask(RemoveRule("acme", "r1"), timeout=5)
            await eventually(lambda: a.describe("policy")["store_rules"] == 0)
            assert not (await decide(a, "web")).allow

    run(main())


def test_a_rule_added_at_a_relay_is_in_force_there_when_answered(tmp_path: Path) -> None:
    async def main() -> None:
        controller = Controller(tmp_path / "c.db")
        async with controller.run() as c, controller.relay("a") as a:
            await watching(a)
            for number in range(10):
                rule_id = await add_rule(a, allow("", f"s{number}"))
                assert (await decide(a, f"s{number}")).reason == rule_id
                assert await a.policy.ask(RemoveRule("acme", rule_id), timeout=5)
                assert not (await decide(a, f"s{number}")).allow
            assert await c.policy.ask(ListRules(), timeout=5) == ()

    run(main())


def test_the_order_of_rules_is_the_controllers(tmp_path: Path) -> None:
    async def main() -> None:
        controller = Controller(tmp_path / "c.db")
        async with controller.run() as c, controller.relay("a") as a:
            for number in (3, 1, 2):
                await add_rule(c, allow(f"before{number}"))
            await watching(a)
            for number in (6, 4, 5):
                await add_rule(c, allow(f"after{number}"))
            await eventually(lambda: a.describe("policy")["store_rules"] == 6)
            for rig in (a, c):
                listed = await rig.policy.ask(ListRules(), timeout=5)
                names = [entry.rule.id for entry in listed]
                assert names == ["before3", "before1", "before2", "after6", "after4", "after5"]

    run(main())


def test_decisions_of_every_relay_are_in_one_log(tmp_path: Path) -> None:
    async def main() -> None:
        controller = Controller(tmp_path / "c.db")
        async with controller.run() as c, controller.relay("a") as a:
            await watching(a)
            for number in range(300):
                await decide(a, f"s{number}")
            await decide(c, "own")
            wanted = AuditFilter("acme", limit=1000)
            for rig in (a, c):
                # Asked for at a relay, its own decisions are stored first.
                records = await rig.audit.ask(QueryAudit(wanted), timeout=10)
                assert {record.target for record in records} == {
                    "own",
                    *(f"s{number}" for number in range(300)),
                }
            assert server(c)["served"]["Fleet/RecordBatch"] < 300
            assert "Audit/Record" not in server(c)["served"]

    run(main())


def test_the_region_of_the_caller_comes_first_and_then_the_newest(tmp_path: Path) -> None:
    async def main() -> None:
        controller = Controller(tmp_path / "c.db")
        async with AsyncExitStack() as stack:
            enter = stack.enter_async_context
            await enter(controller.run())
            near = await enter(controller.relay("near", region="us"))
            far = await enter(controller.relay("far", region="asia"))
            asking = await enter(controller.relay("asking", region="us"))
            await watching(near, far, asking)
            await near.connect("u-near", "web")
            await asyncio.sleep(0.002)  # the newest is decided by milliseconds
            await far.connect("u-far", "web")
            await resolves(asking, "web", ["u-near", "u-far"], region="us")
            assert await asking.providers("web", region="asia") == ["u-far", "u-near"]
            assert await asking.providers("web") == ["u-far", "u-near"]
            # An event says nothing of regions; the order stays right when it changes the rows.
            await asyncio.sleep(0.002)
            await far.connect("u-far2", "web")
            await resolves(asking, "web", ["u-near", "u-far2", "u-far"], region="us")
            foreign = await enter(client(controller.address))
            assert (await foreign.resolve("web", region="us"))[0] == "u-near@near"
            assert (await foreign.resolve("web"))[0] == "u-far2@far"

    run(main())


async def confirmed(relay: Rig) -> None:
    """Ask until the answer is known to be current: an event may have overtaken the first one."""
    async with asyncio.timeout(20):
        while link(relay)["confirmed_services"] != 1:
            await relay.providers("web")
            await asyncio.sleep(0.05)


def test_a_known_service_is_answered_without_asking_again(tmp_path: Path) -> None:
    async def main() -> None:
        controller = Controller(tmp_path / "c.db")
        async with controller.run() as c, controller.relay("a") as a, controller.relay("bb") as b:
            await watching(a, b)
            await a.connect("u1", "web")
            await resolves(b, "web", ["u1"])
            await confirmed(b)
            asked = server(c)["served"]["Registry/Resolve"]
            for _ in range(3):
                await asyncio.sleep(0.4)  # longer together than remote answers are fresh
                assert await b.providers("web") == ["u1"]
            assert server(c)["served"]["Registry/Resolve"] == asked
            # And yet it hears of a change.
            await a.connect("u2", "web")
            await confirmed(b)
            await resolves(b, "web", ["u2", "u1"])

    run(main())


def test_what_an_earlier_life_of_a_relay_left_is_withdrawn(tmp_path: Path) -> None:
    async def main() -> None:
        controller = Controller(tmp_path / "c.db")
        async with controller.run(), client(controller.address) as foreign:
            await foreign.upsert("a")
            await foreign.register("old", "u1", "a")
            await foreign.register("other", "u1", "bb")
            async with controller.relay("a", grace=0.3) as a:
                await a.connect("u2", "new")
                async with asyncio.timeout(5):
                    while await foreign.resolve("old"):
                        await asyncio.sleep(0.02)
                assert await foreign.resolve("new") == ["u2@a"]
                assert await foreign.resolve("other") == ["u1@bb"]

    run(main())


def test_a_controller_by_a_name_that_has_other_addresses_too(tmp_path: Path) -> None:
    """`localhost` may be ::1 first; the controller listens on 127.0.0.1 only."""

    async def main() -> None:
        controller = Controller(tmp_path / "c.db")
        async with controller.run():
            by_name = Controller(tmp_path / "unused", port=Port("localhost", controller.port.port))
            async with by_name.relay("a") as a:
                await watching(a)

    run(main(), timeout=40)
