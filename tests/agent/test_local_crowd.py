"""Local listeners of an agent: who is turned away, and that running out of descriptors rests."""

from __future__ import annotations

import asyncio
import socket

import pytest

from actors.runtime import ActorSystem, DynamicSupervisor, Supervisor
from actors.runtime import ChildSpec as Spec
from actors.transport.gate import NOBODY
from actors.transport.tcp.acceptor import AcceptLimits
from tests.conftest import PkiFixture, eventually, run
from tests.transport.test_acceptor import few_descriptors, knock
from tools.agent import service_listener
from tools.agent.service_listener import ServiceListener
from tools.agent.settings import AgentSettings, Mapping
from tools.agent.stream_table import StreamTable


def tree(pki: PkiFixture) -> Supervisor:
    settings = AgentSettings(
        certificate=str(pki.consumer.certificate),
        key=str(pki.consumer.key),
        ca=str(pki.ca),
        relays=(("127.0.0.1", 9),),
    )
    mapping = Mapping("web", "127.0.0.1", 0)
    return Supervisor(
        [
            Spec("bridges", DynamicSupervisor),
            Spec("link", DynamicSupervisor),  # answers nothing: bridges wait
            Spec(
                "listener",
                lambda: ServiceListener(settings, mapping, "/link", "/bridges", StreamTable()),
            ),
        ]
    )


def says(system: ActorSystem) -> dict[str, object]:
    cell = system.find("/listener")
    assert cell is not None
    assert cell.actor is not None
    return cell.actor.describe()


def test_one_address_has_its_share_and_gets_it_back(
    pki: PkiFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = AcceptLimits(8, 4, yields=NOBODY)
    monkeypatch.setattr(service_listener, "LIMITS", limits)

    async def main() -> None:
        system = ActorSystem("agent")
        await system.start(lambda: tree(pki))
        try:
            host, _, port = str(says(system)["address"]).rpartition(":")
            address = (host, int(port))
            crowd = [knock(address, "127.0.0.2") for _ in range(6)]
            await eventually(
                lambda: says(system)["refused"] == {"refused_pending_per_source_limit": 2}
            )
            crowd += [knock(address, "127.0.0.3") for _ in range(3)]
            await eventually(lambda: says(system)["accepted"] == 7)
            crowd += [knock(address, "127.0.0.4") for _ in range(2)]
            await eventually(lambda: "refused_pending_limit" in str(says(system)["refused"]))
            # What ended is free again.
            before = says(system)["accepted"]
            cell = system.find("/bridges")
            assert cell is not None
            for child in list(cell.children or ()):
                ref = system.ref(f"/bridges/{child}")
                assert ref is not None
                system.kill(ref)
            await eventually(lambda: not system.find("/bridges").children)  # type: ignore[union-attr]
            crowd += [knock(address, "127.0.0.2")]
            await eventually(lambda: says(system)["accepted"] == int(str(before)) + 1)
            for one in crowd:
                one.close()
        finally:
            await system.stop(timeout=5.0)

    run(main())


def test_without_descriptors_it_rests(pki: PkiFixture) -> None:
    async def main() -> None:
        system = ActorSystem("agent")
        await system.start(lambda: tree(pki))
        crowd = [socket.socket() for _ in range(20)]
        try:
            host, _, port = str(says(system)["address"]).rpartition(":")
            with few_descriptors(3):
                for one in crowd:
                    one.setblocking(False)
                    one.connect_ex((host, int(port)))
                await eventually(lambda: "out_of_descriptors" in str(says(system)["refused"]))
                refused = says(system)["refused"]
                assert isinstance(refused, dict)
                before = refused["out_of_descriptors"]
                await asyncio.sleep(0.35)
                after = says(system)["refused"]
                assert isinstance(after, dict)
                assert after["out_of_descriptors"] - before <= 4
            await eventually(lambda: says(system)["accepted"] == 20)
        finally:
            for one in crowd:
                one.close()
            await system.stop(timeout=5.0)

    run(main())
