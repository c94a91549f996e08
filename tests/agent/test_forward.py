"""Forward streams between two real agents: the bytes travel as datagrams, users notice nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from actors.edge.forward.settings import ForwardSettings
from actors.edge.settings import EdgeSettings
from actors.runtime import ActorSystem
from tests.agent.rig import agents, says
from tests.conftest import PkiFixture, eventually, run
from tests.edge.forward_rig import FORWARD_ALL, granted
from tests.edge.rig import Relay, relay
from tools.agent.settings import AgentSettings
from tools.agent.settings import Mapping as Service
from tools.agent.tree import agent_root
from tools.chaos.history import History
from tools.chaos.workload import Plan, Target, Workload
from wire.orp.messages import OpenStream


@asynccontextmanager
async def forwarding(pki: PkiFixture, tmp_path: Path) -> AsyncIterator[Relay]:
    """A relay that forwards every stream."""
    settings = EdgeSettings(region="local", forward=ForwardSettings(listen=("127.0.0.1", 0)))
    async with relay(pki, tmp_path, rules=FORWARD_ALL, settings=settings) as running:
        yield running


def _allocations(running: Relay) -> int:
    cell = running.system.find("/edge/forward/allocations")
    return len(cell.children or ()) if cell is not None else 0


def test_bytes_are_equal_both_ways_and_nothing_is_left(pki: PkiFixture, tmp_path: Path) -> None:
    async def main() -> None:
        history = History()
        target = Target(history)
        await target.start()
        async with (
            forwarding(pki, tmp_path) as running,
            agents(running, pki, target.port) as address,
        ):
            workload = Workload(address, history, target=target)
            for plan in (
                Plan("small", 1, 10, 10),
                Plan("half-closed", 2, 300_000, 1, half_close=True),
                Plan("large", 4, 1 << 20, 1 << 20),
            ):
                transfer = await workload.transfer(plan)
                assert (transfer.outcome, transfer.detail) == ("complete", ""), plan.name
            assert running.counters["streams_forwarded"] == 3
            assert running.counters.get("streams_spliced", 0) == 0
            await eventually(lambda: running.streams() == 0)
            await eventually(lambda: _allocations(running) == 0)
        assert history.transfers == []
        await target.stop()

    run(main(), timeout=60)


def test_killed_allocations_do_not_break_a_transfer(pki: PkiFixture, tmp_path: Path) -> None:
    async def main() -> None:
        history = History()
        target = Target(history)
        await target.start()
        async with (
            forwarding(pki, tmp_path) as running,
            agents(running, pki, target.port) as address,
        ):
            transferring = asyncio.create_task(
                Workload(address, history, target=target).transfer(
                    Plan("under fire", 5, 2 << 20, 2 << 20)
                )
            )
            for _ in range(6):
                await eventually(lambda: _allocations(running) == 2)
                cell = running.system.find("/edge/forward/allocations")
                assert cell is not None
                for child in list((cell.children or {}).values()):
                    if not transferring.done():
                        running.kill(child.path)
                await asyncio.sleep(0.02)
                if transferring.done():
                    break
            transfer = await transferring
            assert (transfer.outcome, transfer.detail) == ("complete", "")
        await target.stop()

    run(main(), timeout=60)


def test_a_consumer_that_goes_away_ends_the_providers_side(pki: PkiFixture, tmp_path: Path) -> None:
    async def main() -> None:
        begun, ended = asyncio.Event(), asyncio.Event()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                while await reader.read(1000):
                    begun.set()
            except ConnectionError:
                pass
            ended.set()
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        async with (
            forwarding(pki, tmp_path) as running,
            agents(running, pki, port) as address,
        ):
            _, writer = await asyncio.open_connection(*address)
            writer.write(b"hello")
            await begun.wait()
            writer.transport.abort()
            async with asyncio.timeout(10.0):
                await ended.wait()
            await eventually(lambda: running.streams() == 0)
            await eventually(lambda: _allocations(running) == 0)
        server.close()
        await server.wait_closed()

    run(main(), timeout=30)


def test_a_consumer_that_never_dials_does_not_hold_the_providers_target(
    pki: PkiFixture, tmp_path: Path
) -> None:
    async def main() -> None:
        opened, ended = asyncio.Event(), asyncio.Event()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            opened.set()
            try:
                await reader.read()
            except ConnectionError:
                pass
            ended.set()
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        provider = ActorSystem("provider")
        async with forwarding(pki, tmp_path) as running:
            settings = AgentSettings(
                certificate=str(pki.provider.certificate),
                key=str(pki.provider.key),
                ca=str(pki.ca),
                relays=(running.address,),
                provide=(Service("svc", "127.0.0.1", port),),
            )
            await provider.start(lambda: agent_root(settings))
            await eventually(lambda: says(provider, "/link", "registered") == ["svc"])
            consumer = running.agent(pki, pki.consumer)
            await consumer.connect(running.address)
            mine = consumer.open(OpenStream("svc", "", 7).encode())
            await granted(consumer, 7)
            await opened.wait()
            mine.stream.write_eof()  # without a word to the tunnel
            async with asyncio.timeout(10.0):  # a tunnel has 30 s to come up
                await ended.wait()
            await eventually(lambda: mine.eof)
            await eventually(lambda: running.streams() == _allocations(running) == 0)
            await provider.stop(timeout=5.0)
        server.close()
        await server.wait_closed()

    run(main(), timeout=30)
