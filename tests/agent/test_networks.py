"""Agents in networks as people have them: names with several addresses, targets that are dead."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from actors.runtime import ActorSystem
from actors.transport.quic import QuicEndpoint
from tests.agent.rig import says
from tests.conftest import PkiFixture, eventually, run
from tests.edge.rig import Relay, identity, relay
from tests.transport.names import names
from tools.agent import targets
from tools.agent.direct_paths import DirectPaths
from tools.agent.settings import AgentSettings, Mapping
from tools.agent.tree import agent_root
from wire.orp.messages import Candidate


@asynccontextmanager
async def pair(
    running: Relay, pki: PkiFixture, relays: tuple[tuple[str, int], ...], *provide: Mapping
) -> AsyncIterator[dict[str, tuple[str, int]]]:
    """A provider of these and a consumer; yields where each service is listened for."""
    systems = []
    services = dict.fromkeys(each.service for each in provide)
    consume = tuple(Mapping(service, "127.0.0.1", 0) for service in services)
    for leaf, provided, consumed in ((pki.provider, provide, ()), (pki.consumer, (), consume)):
        settings = AgentSettings(
            certificate=str(leaf.certificate),
            key=str(leaf.key),
            ca=str(pki.ca),
            relays=relays,
            provide=provided,
            consume=consumed,
        )
        system = ActorSystem("agent")
        await system.start(lambda settings=settings: agent_root(settings))  # type: ignore[misc]
        systems.append(system)
    try:
        for system in systems:
            await eventually(lambda system=system: says(system, "/link", "ready") is True)  # type: ignore[misc]
        listeners = systems[1].find("/listeners")
        assert listeners is not None
        places = {}
        for child in (listeners.children or {}).values():
            host, _, port = str(says(systems[1], child.path, "address")).rpartition(":")
            places[str(says(systems[1], child.path, "service"))] = (host, int(port))
        yield places
    finally:
        for system in reversed(systems):
            await system.stop(timeout=5.0)


def free_port() -> int:
    """A TCP port that is free now, for both IP versions."""
    with socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as probe:
        return int(probe.getsockname()[1])


@asynccontextmanager
async def hello(host: str) -> AsyncIterator[int]:
    """A target that greets; its port."""

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello")
        writer.write_eof()
        await reader.read()
        writer.close()

    server = await asyncio.start_server(greet, host, 0)
    try:
        yield int(server.sockets[0].getsockname()[1])
    finally:
        server.close()


async def greeting(address: tuple[str, int]) -> bytes:
    reader, writer = await asyncio.open_connection(*address)
    try:
        return await reader.read()
    finally:
        writer.close()


def test_relay_and_target_by_names_with_a_dead_address(
    pki: PkiFixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        with names(monkeypatch) as system:
            system.known["relay.test"] = ["::1", "127.0.0.1"]
            system.known["target.test"] = ["127.0.0.2", "::1", "127.0.0.3"]
            async with relay(pki, tmp_path) as running, hello("127.0.0.3") as port:
                relays = (("relay.test", running.address[1]),)
                target = Mapping("web", "target.test", port)
                async with pair(running, pki, relays, target) as places:
                    async with asyncio.timeout(10):
                        assert await greeting(places["web"]) == b"hello"

    run(main(), timeout=40)


def test_a_target_whose_name_is_not_answered_slows_no_other(
    pki: PkiFixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        with names(monkeypatch) as system:
            system.known["alive.test"] = ["127.0.0.1"]
            async with relay(pki, tmp_path) as running, hello("127.0.0.1") as port:
                services = (
                    Mapping("dead", "target.dead", port),
                    Mapping("name", "alive.test", port),
                    Mapping("literal", "127.0.0.1", port),
                )
                async with pair(running, pki, (running.address,), *services) as places:
                    waiting = [asyncio.create_task(greeting(places["dead"])) for _ in range(40)]
                    await eventually(lambda: system.asked.get("target.dead"))
                    async with asyncio.timeout(4):
                        assert await greeting(places["literal"]) == b"hello"
                        assert await greeting(places["name"]) == b"hello"
                    assert not any(one.done() for one in waiting)
                    system.answer_all()
                    await asyncio.wait(waiting)
                    for one in waiting:
                        one.exception()

    run(main(), timeout=40)


def test_a_target_that_swallows_connections_holds_a_bounded_part(
    pki: PkiFixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(targets, "MAX_DIALS", 3)

    async def main() -> None:
        with names(monkeypatch) as system:
            async with relay(pki, tmp_path) as running, hello("::1") as port:
                services = (
                    Mapping("dead", "target.dead", port),
                    # Two targets of one service; nobody is at the first.
                    Mapping("both", "127.0.0.1", port),
                    Mapping("both", "::1", port),
                )
                async with pair(running, pki, (running.address,), *services) as places:
                    waiting = [asyncio.create_task(greeting(places["dead"])) for _ in range(5)]
                    # Refused at once: two of five.
                    await eventually(lambda: sum(one.done() for one in waiting) == 2)
                    async with asyncio.timeout(4):
                        assert await greeting(places["both"]) == b"hello"
                    assert sum(one.done() for one in waiting) == 2
                    system.answer_all()
                    await asyncio.wait(waiting)
                    for one in waiting:
                        one.exception()

    run(main(), timeout=40)


def test_one_service_at_both_loopback_addresses(pki: PkiFixture, tmp_path: Path) -> None:
    """And at both wildcards, on one port each."""

    async def main() -> None:
        async with relay(pki, tmp_path) as running, hello("127.0.0.1") as port:
            settings = AgentSettings(
                certificate=str(pki.consumer.certificate),
                key=str(pki.consumer.key),
                ca=str(pki.ca),
                relays=(running.address,),
                consume=tuple(
                    Mapping("web", host, number)
                    for hosts in (("127.0.0.1", "::1"), ("0.0.0.0", "::"))
                    for number in (free_port(),)
                    for host in hosts
                ),
            )
            system = ActorSystem("agent")
            await system.start(lambda: agent_root(settings))
            provider = replace(
                settings,
                certificate=str(pki.provider.certificate),
                key=str(pki.provider.key),
                consume=(),
                provide=(Mapping("web", "127.0.0.1", port),),
            )
            other = ActorSystem("agent")
            await other.start(lambda: agent_root(provider))
            for one in (system, other):
                await eventually(lambda one=one: says(one, "/link", "ready") is True)  # type: ignore[misc]
            async with asyncio.timeout(10):
                for mapping in settings.consume:
                    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(mapping.host, mapping.host)
                    assert await greeting((host, mapping.port)) == b"hello"
            await system.stop(timeout=5.0)
            await other.stop(timeout=5.0)

    run(main(), timeout=40)


def test_what_another_agent_says_is_not_looked_up(
    pki: PkiFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Candidates are addresses; a name would make us ask name servers of the peer's choice."""

    async def main() -> None:
        with names(monkeypatch) as system:
            endpoint = QuicEndpoint(alpn=("orp/1",), identity=identity(pki, pki.provider))
            paths = DirectPaths(
                endpoint, pki.provider.identity, lambda *_: None, lambda _, function: function
            )
            said = [
                Candidate("host", host, 1, 100) for host in ("peer.dead", "fe80::1%lo", "a\0b", "")
            ]
            async with asyncio.timeout(5):
                assert await paths.reach(said, peer="", server_name="", budget=60.0) is None
            assert not system.asked
            endpoint.abort()

    run(main())
