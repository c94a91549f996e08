"""The served controller as the sheet describes it: methods, semantics, bytes on the wire."""

from __future__ import annotations

import asyncio
import re
import time
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from actors.control.messages import P2PMode, RelayMode
from actors.control.policy.rule import Effect, Rule
from actors.control.remote.codec import METHODS, rule_message, rule_of, tenant_of
from tests.conftest import eventually, run
from tests.controller.rig import Client, Controller, add_rule, allow, client, server
from wire.orp import control_pb2 as pb
from wire.orp import fleet_pb2


def test_paths_and_kinds_are_those_of_the_sheet() -> None:
    unary = {
        "Registry": {"RegisterService", "DeregisterAgent", "Resolve", "UpsertRelay"},
        "Policy": {"AddPolicy", "RemovePolicy", "ListPolicies"},
        "Audit": {"Record"},
    }
    streams = {"Registry": {"Watch"}, "Policy": {"Watch"}, "Audit": {"Query"}}
    for table, kind in ((unary, False), (streams, True)):
        for service, names in table.items():
            for name in names:
                method = METHODS[f"{service}/{name}"]
                assert method.path == f"/outrelay.control.v1.{service}/{name}"
                assert method.streams is kind
    assert sum("/outrelay." in method.path for method in METHODS.values()) == 11


@pytest.mark.parametrize(
    "message, encoded",
    [
        # Computed by hand from the field tables: tag = number << 3 | wire type.
        (
            pb.RegisterServiceRequest(
                tenant="a", service_name="s", agent_uri="u", relay_id="r", local_addr="l"
            ),
            "0a0161 120173 1a0175 220172 2a016c",
        ),
        (pb.RegisterServiceResponse(service_id="a/s"), "0a03612f73"),
        (
            pb.DeregisterAgentRequest(tenant="a", agent_uri="u", relay_id="r"),
            "0a0161 120175 1a0172",
        ),
        (
            pb.ResolveRequest(tenant="a", service_name="s", caller_region="e"),
            "0a0161 120173 1a0165",
        ),
        (
            pb.ResolveResponse(
                providers=[
                    pb.Provider(
                        service_id="a/s",
                        agent_uri="u",
                        relay_id="r",
                        local_addr="l",
                        updated_at_unix_ms=300,
                        relay_endpoint="h",
                    )
                ]
            ),
            "0a14 0a03612f73 120175 1a0172 22016c 28ac02 320168",
        ),
        (pb.WatchRequest(tenant="a", service_names=["s", "t"]), "0a0161 120173 120174"),
        (
            pb.WatchEvent(
                kind=pb.EVENT_KIND_DEREGISTER,
                provider=pb.Provider(agent_uri="u"),
                service_name="s",
            ),
            "0802 1203 120175 1a0173",
        ),
        (pb.UpsertRelayRequest(id="r", region="e", endpoint="h"), "0a0172 120165 1a0168"),
        (
            pb.AddPolicyRequest(
                rule=pb.PolicyRule(
                    id="i",
                    tenant="a",
                    caller_pattern="c",
                    target_pattern="t",
                    method_pattern="m",
                    decision=pb.DECISION_DENY,
                    expires_unix_ms=1,
                    created_at_unix_ms=2,
                    p2p_mode=pb.P2P_REQUIRED,
                    relay_mode=pb.RELAY_MODE_FORWARD,
                )
            ),
            "0a19 0a0169 120161 1a0163 220174 2a016d 3002 3801 4002 4802 5001",
        ),
        (pb.RemovePolicyRequest(tenant="a", id="i"), "0a0161 120169"),
        (pb.RemovePolicyResponse(removed=True), "0801"),
        (
            pb.PolicyEvent(kind=pb.PolicyEvent.POLICY_KIND_REMOVED, removed_id="i"),
            "0802 1a0169",
        ),
        (pb.PolicyEvent(kind=pb.PolicyEvent.POLICY_KIND_SNAPSHOT_END), "0803"),
        (
            pb.RecordAuditRequest(
                event=pb.AuditEvent(
                    ts_unix_ms=1,
                    tenant="a",
                    caller="c",
                    target="t",
                    method="m",
                    decision=pb.DECISION_ALLOW,
                    reason="r",
                    stream_id="s",
                )
            ),
            "0a16 0801 120161 1a0163 220174 2a016d 3001 3a0172 420173",
        ),
        (
            pb.QueryAuditRequest(tenant="a", caller="c", target="t", since_unix_ms=1, limit=2),
            "0a0161 120163 1a0174 2001 2802",
        ),
    ],
)
def test_golden_encodings(message: Any, encoded: str) -> None:
    raw = bytes.fromhex(encoded)
    assert message.SerializeToString() == raw
    assert type(message).FromString(raw) == message


@pytest.mark.parametrize("effect", list(Effect))
@pytest.mark.parametrize("p2p", list(P2PMode))
@pytest.mark.parametrize("relay", list(RelayMode))
def test_a_rule_survives_the_way_there_and_back(
    effect: Effect, p2p: P2PMode, relay: RelayMode
) -> None:
    rule = Rule("i", "acme", "c*", "t", "m", effect, 5, 6, p2p, relay)
    raw = rule_message(rule).SerializeToString()
    assert rule_of(pb.PolicyRule.FromString(raw)) == rule


def test_values_nobody_knows_are_read_as_refusal() -> None:
    # decision = 9, p2p_mode = 9, relay_mode = 9: a later controller.
    rule = rule_of(pb.PolicyRule.FromString(bytes.fromhex("0a0169 3009 4809")))
    assert (rule.effect, rule.p2p_mode) == (Effect.UNSPECIFIED, P2PMode.FORBIDDEN)
    assert (
        rule_of(pb.PolicyRule.FromString(bytes.fromhex("3001 5009"))).effect is Effect.UNSPECIFIED
    )


@pytest.mark.parametrize(
    "identifier, name, tenant",
    [("acme/web", "web", "acme"), ("a/b/c", "b/c", "a"), ("web", "web", ""), ("x/y", "z", "")],
)
def test_whose_service_an_event_is_about(identifier: str, name: str, tenant: str) -> None:
    event = pb.WatchEvent(provider=pb.Provider(service_id=identifier), service_name=name)
    assert tenant_of(event) == tenant


def with_controller(test: Any, **settings: Any) -> None:
    """Run a test against a served controller, as a foreign caller."""

    async def main(path: Path) -> None:
        controller = Controller(path, **settings)
        async with controller.run() as rig, client(controller.address) as foreign:
            await test(rig, foreign)

    run(main(Path(":memory:")))


async def read(stream: Any, count: int) -> list[Any]:
    async with asyncio.timeout(5):
        return [await stream.read() for _ in range(count)]


def test_register_resolve_deregister() -> None:
    async def test(rig: Any, foreign: Client) -> None:
        assert await foreign.resolve("web") == []
        await foreign.upsert("r1")
        await foreign.upsert("r1")  # idempotent
        await foreign.register("web", "u1")
        await foreign.register("db", "u1")
        await foreign.register("web", "u1")
        assert await foreign.resolve("web") == ["u1@r1"]
        assert await foreign.resolve("web", tenant="other") == []
        answer = await foreign.call(
            "Registry/Resolve", pb.ResolveRequest(tenant="acme", service_name="web")
        )
        (provider,) = answer.providers
        assert provider.service_id == "acme/web"
        assert (provider.local_addr, provider.relay_endpoint) == ("l:1", "r1.example:7443")
        assert abs(provider.updated_at_unix_ms - time.time() * 1000) < 60_000
        # At another relay it is not known.
        elsewhere = pb.DeregisterAgentRequest(tenant="acme", agent_uri="u1", relay_id="r2")
        await foreign.call("Registry/DeregisterAgent", elsewhere)
        assert await foreign.resolve("web") == ["u1@r1"]
        gone = pb.DeregisterAgentRequest(tenant="acme", agent_uri="u1", relay_id="r1")
        await foreign.call("Registry/DeregisterAgent", gone)
        assert await foreign.resolve("web") == await foreign.resolve("db") == []

    with_controller(test)


def test_registrations_outlive_the_controller(tmp_path: Path) -> None:
    async def main() -> None:
        controller = Controller(tmp_path / "c.db")
        async with controller.run(), client(controller.address) as foreign:
            await foreign.upsert("r1")
            await foreign.register("web", "u1")
        async with controller.run(), client(controller.address) as foreign:
            assert await foreign.resolve("web") == ["u1@r1"]

    run(main())


def test_watch_tells_changes_of_the_tenant_and_names_asked_for() -> None:
    async def test(rig: Any, foreign: Client) -> None:
        await foreign.upsert("r1")
        await foreign.register("before", "u0")
        watches = [
            foreign.stream("Registry/Watch", request)
            for request in (
                pb.WatchRequest(),
                pb.WatchRequest(tenant="acme"),
                pb.WatchRequest(tenant="acme", service_names=["db"]),
                pb.WatchRequest(tenant="other"),
            )
        ]
        for watch in watches:
            await watch.initial_metadata()
        await foreign.register("web", "u1")
        await foreign.register("db", "u1")
        await foreign.register("x", "u9", tenant="other")
        await foreign.call(
            "Registry/DeregisterAgent",
            pb.DeregisterAgentRequest(tenant="acme", agent_uri="u1", relay_id="r1"),
        )
        everything = await read(watches[0], 5)
        told = [(event.kind, event.service_name) for event in everything]
        up, down = pb.EVENT_KIND_REGISTER, pb.EVENT_KIND_DEREGISTER
        assert told[:3] == [(up, "web"), (up, "db"), (up, "x")]
        assert sorted(told[3:]) == [(down, "db"), (down, "web")]
        assert everything[0].provider.relay_endpoint == "r1.example:7443"
        assert everything[0].provider.service_id == "acme/web"
        assert len(await read(watches[1], 4)) == 4
        assert [event.service_name for event in await read(watches[2], 2)] == ["db", "db"]
        assert [event.service_name for event in await read(watches[3], 1)] == ["x"]
        for watch in watches:
            watch.cancel()
        await eventually(lambda: server(rig)["provider_watches"] == 0)

    with_controller(test)


def test_add_list_and_remove_rules() -> None:
    async def test(rig: Any, foreign: Client) -> None:
        async def add(**fields: Any) -> str:
            rule = pb.PolicyRule(
                tenant="acme",
                caller_pattern="*",
                target_pattern="*",
                decision=pb.DECISION_ALLOW,
                **fields,
            )
            return str((await foreign.call("Policy/AddPolicy", pb.AddPolicyRequest(rule=rule))).id)

        generated = await add(created_at_unix_ms=1)
        assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", generated)
        assert await add(id="mine") == "mine"
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await add(id="mine")
        assert caught.value.code() is grpc.StatusCode.ALREADY_EXISTS
        listed = await foreign.call("Policy/ListPolicies", pb.ListPoliciesRequest(tenant="acme"))
        assert [rule.id for rule in listed.rules] == [generated, "mine"]
        assert abs(listed.rules[0].created_at_unix_ms - time.time() * 1000) < 60_000
        for tenant, removed in (("other", False), ("acme", True), ("acme", False)):
            request = pb.RemovePolicyRequest(tenant=tenant, id="mine")
            answer = await foreign.call("Policy/RemovePolicy", request)
            assert answer.removed is removed

    with_controller(test)


def test_watch_of_rules_is_a_snapshot_and_then_live() -> None:
    async def test(rig: Any, foreign: Client) -> None:
        await add_rule(rig, allow("a1"))
        await add_rule(rig, allow("b1", tenant="b"))
        await add_rule(rig, allow("a2"))
        await eventually(lambda: server(rig)["rules"] == 3)
        mine = foreign.stream("Policy/Watch", pb.WatchPoliciesRequest(tenant="acme"))
        every = foreign.stream("Policy/Watch", pb.WatchPoliciesRequest())
        kinds = pb.PolicyEvent
        events = await read(mine, 3)
        assert [event.rule.id for event in events] == ["a1", "a2", ""]
        assert [event.kind for event in events] == [
            kinds.POLICY_KIND_ADDED,
            kinds.POLICY_KIND_ADDED,
            kinds.POLICY_KIND_SNAPSHOT_END,
        ]
        assert [event.rule.id for event in await read(every, 4)] == ["a1", "b1", "a2", ""]
        await add_rule(rig, allow("b2", tenant="b"))
        await add_rule(rig, allow("a3"))
        await foreign.call("Policy/RemovePolicy", pb.RemovePolicyRequest(tenant="acme", id="a1"))
        live = await read(mine, 2)
        assert (live[0].kind, live[0].rule.id) == (kinds.POLICY_KIND_ADDED, "a3")
        assert (live[1].kind, live[1].removed_id) == (kinds.POLICY_KIND_REMOVED, "a1")
        assert [event.rule.id or event.removed_id for event in await read(every, 3)] == [
            "b2",
            "a3",
            "a1",
        ]

    with_controller(test)


def test_audit_is_recorded_and_queried() -> None:
    async def test(rig: Any, foreign: Client) -> None:
        now = int(time.time() * 1000)

        async def record(at: int, caller: str, target: str) -> None:
            event = pb.AuditEvent(
                ts_unix_ms=at,
                tenant="acme",
                caller=caller,
                target=target,
                decision=pb.DECISION_DENY,
                reason="r",
            )
            await foreign.call("Audit/Record", pb.RecordAuditRequest(event=event))

        async def query(**fields: Any) -> list[tuple[str, str]]:
            request = pb.QueryAuditRequest(tenant="acme", **fields)
            return [
                (event.caller, event.target)
                async for event in foreign.stream("Audit/Query", request)
            ]

        await record(now - 3000, "u1", "web")
        await record(now - 1000, "u2", "web")
        await record(now - 2000, "u1", "db")
        await record(0, "u3", "web")  # 0: now
        newest = [("u3", "web"), ("u2", "web"), ("u1", "db"), ("u1", "web")]
        assert await query() == newest
        assert await query(limit=2) == newest[:2]
        assert await query(caller="u1") == newest[2:]
        assert await query(target="db") == [("u1", "db")]
        assert await query(since_unix_ms=now - 2000) == newest[:3]
        events = [pb.AuditEvent(tenant="b", caller=str(n)) for n in range(300)]
        await foreign.call("Fleet/RecordBatch", fleet_pb2.RecordBatchRequest(events=events))
        of_b = foreign.stream("Audit/Query", pb.QueryAuditRequest(tenant="b"))
        assert len([event async for event in of_b]) == 300

    with_controller(test)


@pytest.mark.parametrize(
    "method, request_",
    [
        ("Registry/RegisterService", pb.RegisterServiceRequest(tenant="a", service_name="s")),
        (
            "Registry/RegisterService",
            pb.RegisterServiceRequest(
                tenant="a", service_name="s" * 256, agent_uri="u", relay_id="r"
            ),
        ),
        ("Registry/UpsertRelay", pb.UpsertRelayRequest(id="r")),
        ("Registry/Resolve", pb.ResolveRequest(tenant="a", service_name="a\nb")),
        ("Registry/Watch", pb.WatchRequest(service_names=[str(n) for n in range(1025)])),
        ("Policy/AddPolicy", pb.AddPolicyRequest()),
        (
            "Policy/AddPolicy",
            pb.AddPolicyRequest(
                rule=pb.PolicyRule(tenant="a", caller_pattern="*", target_pattern="*")
            ),
        ),
        ("Policy/ListPolicies", pb.ListPoliciesRequest()),
        ("Audit/Record", pb.RecordAuditRequest()),
        ("Audit/Query", pb.QueryAuditRequest()),
        (
            "Fleet/RecordBatch",
            fleet_pb2.RecordBatchRequest(events=[pb.AuditEvent(tenant="a")] * 1025),
        ),
    ],
)
def test_wrong_requests_get_a_status_that_says_so(method: str, request_: Any) -> None:
    async def test(rig: Any, foreign: Client) -> None:
        assert await foreign.status(method, request_) == "INVALID_ARGUMENT"
        assert server(rig)["refused"] == {"INVALID_ARGUMENT": 1}

    with_controller(test)
