"""Who may answer an agent: relays on the way to a relay, the agent across on a direct path.

Every certificate of the authority has the same DNS name and both purposes; the identity in it is
what tells them apart.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from actors.edge.connection import agent_connection
from actors.edge.forward import granting
from tests.agent.rig import agent_systems, agents, says
from tests.agent.test_forward import forwarding
from tests.agent.test_p2p import RULES, promoter_of
from tests.conftest import PkiFixture, eventually, run
from tests.edge.relay_rig import relays
from tests.edge.rig import leaf_of, relay
from tools.chaos.history import History
from tools.chaos.workload import Plan, Target, Workload
from wire.orp.messages import AllocGranted, StreamReady


@pytest.mark.parametrize("transport", ["quic", "tcp"])
def test_an_agents_certificate_is_no_relays(
    pki: PkiFixture, tmp_path: Path, transport: str
) -> None:
    """Whoever has one, and the address, would read everything."""

    async def main() -> None:
        async with (
            relay(
                pki, tmp_path / "a", leaf=leaf_of(pki, tmp_path, "acme", 99), tcp=True
            ) as impostor,
            relay(pki, tmp_path / "b", tcp=True) as genuine,
        ):
            nowhere = ("127.0.0.1", 9)
            both = (
                {"provider_relays": (impostor.address, genuine.address)}
                if transport == "quic"
                else {
                    "provider_relays": (nowhere,),
                    "relays_tcp": (impostor.edge.tcp_addresses[0], genuine.edge.tcp_addresses[0]),
                    "dial_timeout": 1.0,
                }
            )
            for _ in range(5):  # the fastest one wins
                async with agent_systems(genuine, pki, 1, only=0, **both) as (_, (agent,)):
                    assert says(agent, "/link", "relay_uri") == pki.relay.identity
                    assert says(agent, "/link", "transport") == transport
            assert not impostor.edge.door.connections

    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    run(main(), timeout=50)


def test_only_an_impostor_is_nobody(pki: PkiFixture, tmp_path: Path) -> None:
    async def main() -> None:
        impostor_leaf = leaf_of(pki, tmp_path, "acme", 99)
        async with relay(pki, tmp_path, leaf=impostor_leaf) as impostor:
            with pytest.raises(pytest.fail.Exception):
                async with agent_systems(impostor, pki, 1, only=0):
                    pass
            assert not impostor.edge.door.connections

    run(main(), timeout=30)


@pytest.mark.parametrize("ids", [("r2",), ("r9", "r2")])
def test_an_agent_that_knows_its_relays_goes_to_no_other(
    pki: PkiFixture, tmp_path: Path, ids: tuple[str, ...]
) -> None:
    async def main() -> None:
        async with relays(pki, tmp_path, "r1", "r2") as (first, second):
            addresses = (first.address, second.address)
            async with agent_systems(
                first, pki, 1, only=0, provider_relays=addresses, relay_ids=ids
            ) as (_, (agent,)):
                assert str(says(agent, "/link", "relay_uri")).endswith("/relay/r2")
                assert not first.edge.door.connections

    run(main(), timeout=30)


@pytest.mark.parametrize("across", ["the provider", "another agent"])
def test_a_direct_path_leads_to_the_agent_the_relay_named(
    pki: PkiFixture, tmp_path: Path, across: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The address a provider had may be another agent's of the tenant by now."""
    if across == "another agent":
        named = leaf_of(pki, tmp_path, "acme", 99).identity
        monkeypatch.setattr(
            agent_connection, "StreamReady", lambda stream_id, _: StreamReady(stream_id, named)
        )

    async def main() -> None:
        history = History()
        target = Target(history)
        await target.start()
        async with (
            relay(pki, tmp_path, rules=RULES.format(mode="allowed")) as running,
            agent_systems(
                running, pki, target.port, p2p_listen=("127.0.0.1", 0), p2p_after=0.1
            ) as (address, (_, consumer)),
        ):
            workload = Workload(address, history, streams=1, target=target)
            transfer = asyncio.create_task(workload.transfer(Plan("one", 1, 5000, 5000, idle=2.0)))
            promoter = promoter_of(consumer)
            await eventually(lambda: promoter.stayed + promoter.promoted == 1)
            assert promoter.promoted == (across == "the provider")
            assert (await transfer).outcome == "complete"
        await target.stop()

    run(main(), timeout=30)


@pytest.mark.parametrize("across", ["the provider", "another agent"])
def test_a_tunnel_leads_to_the_agent_the_relay_named(
    pki: PkiFixture, tmp_path: Path, across: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if across == "another agent":
        named = leaf_of(pki, tmp_path, "acme", 99).identity
        monkeypatch.setattr(
            granting,
            "AllocGranted",
            lambda *fields: replace(AllocGranted(*fields), peer_agent_uri=named),
        )

    async def main() -> None:
        history = History()
        target = Target(history)
        await target.start()
        async with (
            forwarding(pki, tmp_path) as running,
            agents(running, pki, target.port) as address,
        ):
            workload = Workload(address, history, streams=1, target=target)
            result = await workload.transfer(Plan("one", 1, 5000, 5000))
            assert (result.outcome == "complete") == (across == "the provider")
        await target.stop()

    run(main(), timeout=30)
