"""mTLS on the served controller: who is let in, and what each role may do."""

from __future__ import annotations

import asyncio
import shutil
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc

from actors.control.controller_identity import ClientTls
from actors.control.messages import AuditRecord
from actors.control.remote.codec import METHODS
from actors.controller.authority import ANYBODY, NEEDED, Role, caller_of
from actors.controller.grpc_server import ServerTls
from actors.controller.server import ServerSettings
from actors.pki.dev_pki import LeafFiles, ensure_dev_pki
from actors.wiring.certificates import check_served
from tests.conftest import PkiFixture, eventually, run
from tests.controller.rig import (
    Client,
    Controller,
    add_rule,
    allow,
    client,
    decide,
    link,
    server,
    watching,
)
from tests.edge.relay_rig import relay_leaf
from wire.orp import control_pb2 as pb
from wire.orp import fleet_pb2

RULE = pb.PolicyRule(
    tenant="acme", caller_pattern="*", target_pattern="*", decision=pb.DECISION_ALLOW
)
REQUESTS: dict[str, Any] = {
    "Registry/RegisterService": pb.RegisterServiceRequest(
        tenant="acme", service_name="s", agent_uri="u", relay_id="r1"
    ),
    "Registry/DeregisterAgent": pb.DeregisterAgentRequest(
        tenant="acme", agent_uri="u", relay_id="r1"
    ),
    "Registry/Resolve": pb.ResolveRequest(tenant="acme", service_name="s"),
    "Registry/UpsertRelay": pb.UpsertRelayRequest(id="r1", endpoint="h:1"),
    "Policy/AddPolicy": pb.AddPolicyRequest(rule=RULE),
    "Policy/RemovePolicy": pb.RemovePolicyRequest(tenant="acme", id="x"),
    "Policy/ListPolicies": pb.ListPoliciesRequest(tenant="acme"),
    "Policy/Watch": pb.WatchPoliciesRequest(tenant="acme"),
    "Audit/Record": pb.RecordAuditRequest(event=pb.AuditEvent(tenant="acme")),
    "Audit/Query": pb.QueryAuditRequest(tenant="acme"),
    "Fleet/RecordBatch": fleet_pb2.RecordBatchRequest(),
    "Fleet/WithdrawStale": fleet_pb2.WithdrawStaleRequest(relay_id="r1"),
    "Fleet/Clock": fleet_pb2.ClockRequest(),
    "Fleet/ListRelays": fleet_pb2.ListRelaysRequest(),
}


def credentials(leaf: LeafFiles, ca: Path) -> Any:
    return grpc.ssl_channel_credentials(
        ca.read_bytes(), leaf.key.read_bytes(), leaf.certificate.read_bytes()
    )


def secured(tmp_path: Path, pki: PkiFixture) -> Controller:
    tls = ServerTls(pki.relay.certificate, pki.relay.key, pki.ca)
    operators = frozenset({str(pki.provider.identity)})
    return Controller(tmp_path / "c.db", settings=ServerSettings(tls=tls, operators=operators))


@asynccontextmanager
async def caller(controller: Controller, leaf: LeafFiles, ca: Path) -> AsyncIterator[Client]:
    async with client(controller.address, credentials(leaf, ca)) as one:
        yield one


def test_every_method_has_its_roles() -> None:
    assert NEEDED.keys() == METHODS.keys()
    assert all(ANYBODY.may(name) for name in METHODS)
    nobody = caller_of("", ())
    agent = caller_of("outrelay://acme/agent/00000000-0000-0000-0000-000000000001", ())
    garbage = caller_of("https://example.org/relay/r1", ())
    for one in (nobody, agent, garbage):
        assert not one.roles
        assert not any(one.may(name) for name in METHODS)
        assert not one.speaks_for("r1")
    relay = caller_of("outrelay://acme/relay/r1", ())
    assert relay.roles == {Role.RELAY}
    assert relay.speaks_for("r1")
    assert not relay.speaks_for("r2")
    assert not relay.may("Unknown/Method")
    both = caller_of("outrelay://acme/relay/r1", {"outrelay://acme/relay/r1"})
    assert both.roles == {Role.RELAY, Role.OPERATOR}


def test_roles_over_the_wire(tmp_path: Path, pki: PkiFixture) -> None:
    async def main() -> None:
        controller = secured(tmp_path, pki)
        who = {"relay": pki.relay, "operator": pki.provider, "nobody": pki.consumer}
        async with controller.run() as rig:
            for name, leaf in who.items():
                async with caller(controller, leaf, pki.ca) as one:
                    for method, request in REQUESTS.items():
                        allowed = any(role.value == name for role in NEEDED[method])
                        status = await one.status(method, request)
                        assert status == ("OK" if allowed else "PERMISSION_DENIED"), (name, method)
            refused = sum(
                not any(role.value == name for role in NEEDED[method])
                for name in who
                for method in REQUESTS
            )
            assert server(rig)["refused"] == {"PERMISSION_DENIED": refused}

    run(main(), timeout=60)


def test_a_relay_speaks_for_itself_only(tmp_path: Path, pki: PkiFixture) -> None:
    async def main() -> None:
        controller = secured(tmp_path, pki)
        async with controller.run(), caller(controller, pki.relay, pki.ca) as one:
            for method, request in (
                ("Registry/UpsertRelay", pb.UpsertRelayRequest(id="r2", endpoint="h:1")),
                (
                    "Registry/RegisterService",
                    pb.RegisterServiceRequest(
                        tenant="acme", service_name="s", agent_uri="u", relay_id="r2"
                    ),
                ),
                (
                    "Registry/DeregisterAgent",
                    pb.DeregisterAgentRequest(tenant="acme", agent_uri="u", relay_id="r2"),
                ),
                ("Fleet/WithdrawStale", fleet_pb2.WithdrawStaleRequest(relay_id="r2")),
            ):
                assert await one.status(method, request) == "PERMISSION_DENIED"

    run(main())


def test_strangers_do_not_get_in(tmp_path: Path, pki: PkiFixture) -> None:
    async def main() -> None:
        controller = secured(tmp_path, pki)
        resolve = REQUESTS["Registry/Resolve"]
        async with controller.run() as rig:
            async with caller(controller, pki.foreign_agent, pki.ca) as foreign:
                assert await foreign.status("Registry/Resolve", resolve) == "UNAVAILABLE"
            bare = grpc.ssl_channel_credentials(pki.ca.read_bytes())
            async with client(controller.address, bare) as one:
                assert await one.status("Registry/Resolve", resolve) == "UNAVAILABLE"
            async with client(controller.address) as plain:
                assert await plain.status("Registry/Resolve", resolve) == "UNAVAILABLE"
            async with caller(controller, pki.relay, pki.foreign_ca_certificate) as distrusting:
                assert await distrusting.status("Registry/Resolve", resolve) == "UNAVAILABLE"
            assert server(rig)["served"] == {}

    run(main(), timeout=60)


def test_a_relay_with_tls_has_all_it_needs(tmp_path: Path, pki: PkiFixture) -> None:
    async def main() -> None:
        controller = secured(tmp_path, pki)
        tls = ClientTls(pki.relay.certificate, pki.relay.key, pki.ca)
        async with (
            controller.run() as c,
            controller.relay("r1", tls=tls) as relay,
            caller(controller, pki.provider, pki.ca) as operator,
        ):
            await watching(relay)
            await relay.connect("u1", "web")
            assert await operator.resolve("web") == ["u1@r1"]
            await add_rule(c, allow("rule"))
            await eventually(lambda: relay.describe("policy")["store_rules"] == 1)
            assert (await decide(relay, "web")).allow
            await eventually(lambda: relay.describe("audit")["stored"] > 0)
            assert not relay.system.dead_letters.by_type.get(
                (AuditRecord.__name__, "not stored"), 0
            )

    run(main(), timeout=40)


def test_a_relay_uses_its_renewed_certificate(tmp_path: Path, pki: PkiFixture) -> None:
    async def main() -> None:
        controller = secured(tmp_path, pki)
        cert, key = tmp_path / "cert", tmp_path / "key"
        shutil.copy(pki.foreign_agent.certificate, cert)
        shutil.copy(pki.foreign_agent.key, key)
        tls = ClientTls(cert, key, pki.ca)
        async with controller.run(), controller.relay("r1", tls=tls) as relay:
            await eventually(lambda: link(relay)["failures"] > 2)
            assert not link(relay)["watching"]
            shutil.copy(pki.relay.key, key)
            shutil.copy(pki.relay.certificate, cert)
            await watching(relay)
            await relay.connect("u1", "web")

    run(main(), timeout=40)


def test_a_renewed_certificate_is_used_without_a_restart(tmp_path: Path, pki: PkiFixture) -> None:
    """The served one is replaced on disk: the next handshake shows the new one."""

    def shown(controller: Controller) -> bytes | None:
        context = ssl.create_default_context(cafile=str(pki.ca))
        context.load_cert_chain(pki.consumer.certificate, pki.consumer.key)
        context.set_alpn_protocols(["h2"])
        address = (controller.port.host, controller.port.port)
        with (
            socket.create_connection(address, timeout=5) as raw,
            context.wrap_socket(raw, server_hostname="localhost") as secure,
        ):
            return secure.getpeercert(binary_form=True)

    async def main() -> None:
        files = [tmp_path / name for name in ("cert", "key", "ca")]
        shutil.copy(pki.relay.certificate, files[0])
        shutil.copy(pki.relay.key, files[1])
        shutil.copy(pki.ca, files[2])
        files[1].chmod(0o600)
        settings = ServerSettings(tls=ServerTls(files[0], files[1], files[2], check_served))
        controller = Controller(tmp_path / "c.db", settings=settings)
        async with controller.run() as rig:
            before = await asyncio.to_thread(shown, controller)
            assert before == await asyncio.to_thread(shown, controller)
            renewed = relay_leaf(pki, "r2")
            shutil.copy(renewed.certificate, files[0])
            shutil.copy(renewed.key, files[1])
            after = await asyncio.to_thread(shown, controller)
            assert after != before
            files[0].write_text("half written")
            assert await asyncio.to_thread(shown, controller) == after
            # Nor is one that callers would refuse: of another authority, or of an agent.
            for refused in (pki.foreign_agent, pki.provider):
                shutil.copy(refused.certificate, files[0])
                shutil.copy(refused.key, files[1])
                assert await asyncio.to_thread(shown, controller) == after
            shutil.copy(pki.relay.certificate, files[0])
            assert await asyncio.to_thread(shown, controller) == after
            shutil.copy(pki.relay.key, files[1])
            assert await asyncio.to_thread(shown, controller) == before
            assert server(rig)["listening"]

    run(main(), timeout=40)


def test_an_agents_certificate_is_no_controllers(tmp_path: Path, pki: PkiFixture) -> None:
    """It has the authority, the name and the purpose; only its identity is another one."""
    tls = ClientTls(pki.relay.certificate, pki.relay.key, pki.ca)

    async def main() -> None:
        impostor = ServerSettings(tls=ServerTls(pki.provider.certificate, pki.provider.key, pki.ca))
        controller = Controller(tmp_path / "c.db", settings=impostor)
        async with controller.run() as rig, controller.relay("r1", tls=tls) as relay:
            await eventually(lambda: link(relay)["failures"] > 2)
            assert not link(relay)["watching"]
            assert "is not a relay" in str(link(relay)["last_error"])
            assert server(rig)["served"] == {}
        lax = replace(tls, require_relay=False)
        async with controller.run(), controller.relay("r1", tls=lax) as relay:
            await watching(relay)

    run(main(), timeout=40)


def test_a_controller_comes_back_with_another_certificate(tmp_path: Path, pki: PkiFixture) -> None:
    """Of a relay; the one it was known by before is gone."""
    further = ensure_dev_pki(pki.dev.directory, relay_id="r7").relay
    tls = ClientTls(pki.relay.certificate, pki.relay.key, pki.ca)

    async def main() -> None:
        first = Controller(
            tmp_path / "c.db", settings=ServerSettings(tls=ServerTls(*_files(pki.relay, pki)))
        )
        async with first.relay("r1", tls=tls) as relay:
            async with first.run():
                await watching(relay)
            second = Controller(
                tmp_path / "c.db",
                settings=ServerSettings(tls=ServerTls(*_files(further, pki))),
            )
            second.port = first.port
            async with second.run():
                await watching(relay)
                await relay.connect("u1", "web")

    run(main(), timeout=40)


def _files(leaf: LeafFiles, pki: PkiFixture) -> tuple[Path, Path, Path]:
    return leaf.certificate, leaf.key, pki.ca
