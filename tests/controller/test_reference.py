"""A relay of ours and a controller that knows the sheet's methods only."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from actors.control.messages import RegisterRefused
from actors.controller.port import Port
from actors.runtime import ReplyError
from tests.conftest import eventually, run
from tests.controller.reference import Reference
from tests.controller.rig import Controller, decide, link
from wire.orp import control_pb2 as pb


def of(reference: Reference) -> Controller:
    return Controller(Path("unused"), port=Port("127.0.0.1", reference.port))


def test_services_rules_and_audit_without_the_methods_of_our_own() -> None:
    async def main() -> None:
        reference = Reference()
        for number in range(3):
            reference.rules[f"r{number}"] = pb.PolicyRule(
                id=f"r{number}",
                tenant="acme",
                caller_pattern="*",
                target_pattern="w*",
                decision=pb.DECISION_ALLOW,
            )
        async with reference.run():
            controller = of(reference)
            async with (
                controller.relay("a", tenants=("acme",)) as a,
                controller.relay("bb", tenants=("acme",)) as b,
            ):
                await eventually(lambda: a.describe("policy")["store_rules"] == 3)
                assert (await decide(a, "web")).reason == "r0"
                connection, _ = await a.connect("u1", "web")
                await eventually(lambda: "bb" in reference.relays and "a" in reference.relays)
                (provider,) = (await b.resolve("web")).providers
                assert (provider.uri, provider.relay_endpoint) == ("u1", "192.0.2.1:1")
                for number in range(40):
                    await decide(a, f"w{number}")
                await eventually(lambda: len(reference.audit) == 41)
                assert len({event.target for event in reference.audit}) == 41
                await a.kill(connection)
                async with asyncio.timeout(5):
                    while await b.providers("web"):
                        await asyncio.sleep(0.02)

    run(main(), timeout=40)


def test_an_event_without_an_endpoint_is_asked_about() -> None:
    async def main() -> None:
        reference = Reference()
        async with reference.run():
            controller = of(reference)
            async with (
                controller.relay("a", tenants=("acme",)) as a,
                controller.relay("bb", tenants=("acme",)) as b,
            ):
                assert await b.providers("web") == []
                await eventually(lambda: len(reference.watchers) == 2)
                await a.connect("u1", "web")
                async with asyncio.timeout(5):
                    while await b.providers("web") != ["u1"]:
                        await asyncio.sleep(0.02)
                (provider,) = (await b.resolve("web")).providers
                assert provider.relay_endpoint == "192.0.2.1:1"

    run(main(), timeout=40)


def test_one_refused_service_does_not_hold_up_the_others() -> None:
    async def main() -> None:
        reference = Reference()
        async with reference.run(), of(reference).relay("a", tenants=("acme",)) as a:
            _, generation = await a.connect("u1")
            good = asyncio.create_task(a.register("u1", "web", generation))
            with pytest.raises(ReplyError) as caught:
                await a.register("u1", "refused", generation)
            assert caught.value.refusal == RegisterRefused("store")
            assert await good == "acme/web"

    run(main())


def test_all_tenants_at_once_is_refused_rather_than_open() -> None:
    """Without a tenant it tells an empty snapshot: everything is denied, and the log says why."""

    async def main() -> None:
        reference = Reference()
        reference.rules["r"] = pb.PolicyRule(
            id="r",
            tenant="acme",
            caller_pattern="*",
            target_pattern="*",
            decision=pb.DECISION_ALLOW,
        )
        async with reference.run(), of(reference).relay("a") as a:
            await eventually(lambda: link(a)["rule_snapshots"] == 1)
            decision = await decide(a, "web")
            assert (decision.allow, decision.reason) == (False, "no matching rule")

    run(main())
