"""Local connections while there is no relay: they wait for a moment, then are ended at once."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from loguru import logger

from actors.runtime import ActorSystem
from actors.transport.quic import QuicSettings
from tests.agent.rig import SERVICE, agent_systems, says
from tests.conftest import PkiFixture, eventually, run
from tests.edge.rig import relay
from tools.agent.settings import AgentSettings
from tools.agent.settings import Mapping as Service
from tools.agent.tree import agent_root

PATIENCE = 0.5


@pytest.fixture
def warnings() -> Iterator[list[str]]:
    lines: list[str] = []
    sink = logger.add(lambda line: lines.append(str(line)), level="WARNING", format="{message}")
    yield lines
    logger.remove(sink)


async def _ends(address: tuple[str, int]) -> float:
    """Seconds until a local connection is ended."""
    began = time.monotonic()
    reader, writer = await asyncio.open_connection(*address)
    try:
        assert await reader.read() == b""
    except ConnectionResetError:
        pass
    finally:
        writer.close()
    return time.monotonic() - began


def test_a_relay_that_is_down_gives_local_clients_a_prompt_end_and_a_line(
    pki: PkiFixture, tmp_path: Path, warnings: list[str]
) -> None:
    async def main() -> None:
        async with relay(pki, tmp_path) as running:
            consumers = agent_systems(
                running,
                pki,
                9,
                consumer_relays=(running.address,),
                only=1,
                relay_patience=PATIENCE,
                dial_timeout=0.2,
            )
            async with consumers as (address, [system]):
                running.edge.close_agents()
                running.edge.door.draining = True
                await eventually(lambda: says(system, "/link", "ready") is False)
                assert await _ends(address) < 5 * PATIENCE  # it waited: the relay might be back
                assert await _ends(address) < PATIENCE  # nobody expects it any more
                told = [line for line in warnings if line.startswith(f"{SERVICE}: no stream: ")]
                assert len(told) == 2
                assert all("no relay" in line for line in told)
                running.edge.door.draining = False
                await eventually(lambda: says(system, "/link", "ready") is True, timeout=10)
                warnings.clear()
                await _ends(address)  # refused by the relay: it has no provider
                assert any("404 service not found" in line for line in warnings)

    run(main(), timeout=40)


def test_an_agent_that_never_had_a_relay_does_the_same(
    pki: PkiFixture, tmp_path: Path, warnings: list[str]
) -> None:
    async def main() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
            silent.bind(("127.0.0.1", 0))
            settings = AgentSettings(
                certificate=str(pki.consumer.certificate),
                key=str(pki.consumer.key),
                ca=str(pki.ca),
                relays=(silent.getsockname(),),
                consume=(Service(SERVICE, "127.0.0.1", 0),),
                relay_patience=PATIENCE,
                dial_timeout=0.2,
            )
            system = ActorSystem("agent")
            await system.start(lambda: agent_root(settings))
            listeners = system.find("/listeners")
            assert listeners is not None
            assert listeners.children is not None
            place = next(iter(listeners.children.values())).path
            host, _, port = str(says(system, place, "address")).rpartition(":")
            assert await _ends((host, int(port))) < 5 * PATIENCE
            assert any("no relay: 127.0.0.1:" in line for line in warnings)
            await system.stop(timeout=5.0)

    run(main(), timeout=20)


def test_an_agent_that_may_have_no_more_streams_says_so_at_once(
    pki: PkiFixture, tmp_path: Path, warnings: list[str]
) -> None:
    """One stream is ctrl; the other one is taken, and a local connection waits for it."""

    async def main() -> None:
        async with relay(pki, tmp_path, quic=QuicSettings(max_streams=2)) as running:
            provider = running.agent(pki, pki.provider)
            await provider.connect(running.address, SERVICE)
            consumers = agent_systems(running, pki, 9, consumer_relays=(running.address,), only=1)
            async with consumers as (address, _):
                _, first = await asyncio.open_connection(*address)
                await provider.next_incoming(1)
                _, second = await asyncio.open_connection(*address)

                def told() -> list[str]:
                    return [line for line in warnings if "no more streams at a time" in line]

                await eventually(told)
                assert told()[0].startswith("1 local connections wait: ")
                for writer in (first, second):
                    writer.close()

    run(main(), timeout=20)
