"""What users of the two agents see at their local sockets."""

from __future__ import annotations

import asyncio
import shutil
import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from loguru import logger

from actors.edge.connection.agent_connection import AgentConnection
from actors.pki.certificates import create_leaf
from actors.pki.dev_pki import LeafFiles
from actors.pki.files import pair_paths, read_pair, replace_certificate
from actors.runtime import ActorSystem, Event
from actors.transport.quic import DialFailed, QuicEndpoint
from tests.agent.rig import agent_systems, agents, says
from tests.conftest import PkiFixture, eventually, run
from tests.edge.rig import identity, relay
from tools.chaos.history import History
from tools.chaos.workload import Plan, Target, Workload


def test_bytes_are_equal_both_ways_with_and_without_half_close(
    pki: PkiFixture, tmp_path: Path
) -> None:
    async def main() -> None:
        history = History()
        target = Target(history)
        await target.start()
        async with relay(pki, tmp_path) as running, agents(running, pki, target.port) as address:
            workload = Workload(address, history, target=target)
            for plan in (
                Plan("small", 1, 10, 10),
                Plan("half-closed", 2, 300_000, 1, half_close=True),
                Plan("empty upload", 3, 0, 1000, half_close=True),
                Plan("large", 4, 2 << 20, 2 << 20),
            ):
                transfer = await workload.transfer(plan)
                assert (transfer.outcome, transfer.detail) == ("complete", ""), plan.name
            await eventually(lambda: running.streams() == 0)
        assert history.transfers == []  # the target saw no truncated upload
        await target.stop()

    run(main(), timeout=60)


def test_a_refused_target_closes_the_local_connection_without_garbage(
    pki: PkiFixture, tmp_path: Path
) -> None:
    async def main() -> None:
        probe = await asyncio.start_server(lambda r, w: w.close(), "127.0.0.1", 0)
        port = probe.sockets[0].getsockname()[1]
        probe.close()
        await probe.wait_closed()
        async with relay(pki, tmp_path) as running, agents(running, pki, port) as address:
            reader, writer = await asyncio.open_connection(*address)
            try:
                received = await reader.read()
            except ConnectionResetError:
                received = b""
            assert received == b""  # never the bytes of a STREAM_REJECT
            writer.close()
            assert running.counters["provider_rejected"] == 1

    run(main(), timeout=30)


@pytest.fixture
def log() -> Iterator[list[str]]:
    """All lines of this process at INFO and above, by the module that wrote them."""
    lines: list[str] = []
    sink = logger.add(
        lambda line: lines.append(str(line)),
        level="INFO",
        format="{name} {level} {message}",
    )
    yield lines
    logger.remove(sink)


def test_a_target_that_refuses_is_told_end_to_end(
    pki: PkiFixture, tmp_path: Path, log: list[str]
) -> None:
    with socket.socket() as free:  # bound, and not listening
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

        async def main() -> None:
            async with relay(pki, tmp_path) as running, agents(running, pki, port) as address:
                _, writer = await asyncio.open_connection(*address)
                await eventually(lambda: running.counters.get("reject_503", 0) == 1)
                await eventually(lambda: any("rejected: 503" in line for line in log[-1:]))
                writer.close()

        run(main(), timeout=30)
    refused = f"target refused 127.0.0.1:{port}"
    told = [line for line in log if refused in line]
    provider = "actors.transport.refusal_log WARNING verified: streams refused: "
    assert any(line.startswith(provider + refused) for line in told)
    assert any("stream_pair INFO stream rejected: 503 provider rej" in line for line in told)
    assert any("consumer_bridge WARNING verified: rejected: 503" in line for line in told)


def test_refused_connections_do_not_fill_the_log(pki: PkiFixture, tmp_path: Path) -> None:
    lines: list[str] = []

    async def main() -> None:
        async with relay(pki, tmp_path) as running, agents(running, pki, 1) as address:
            for _ in range(100):
                _, writer = await asyncio.open_connection(*address)
                writer.close()
            await eventually(lambda: running.counters.get("provider_rejected", 0) == 100)
            await eventually(lambda: running.streams() == 0)

    sink = logger.add(lambda line: lines.append(str(line)), level="INFO", filter="tools.agent")
    started = time.monotonic()
    try:
        run(main(), timeout=30)
    finally:
        logger.remove(sink)
    said = sum("rejected: 503" in line for line in lines)
    assert 1 <= said <= 10 * (2 + time.monotonic() - started)


def test_agents_reconnect_and_register_again(pki: PkiFixture, tmp_path: Path) -> None:
    async def main() -> None:
        history = History()
        target = Target(history)
        await target.start()
        async with relay(pki, tmp_path) as running, agents(running, pki, target.port) as address:
            workload = Workload(address, history, target=target)
            running.kill("/edge/agents")  # takes both connections
            outcomes: list[str] = []
            for number in range(50):
                transfer = await workload.transfer(Plan(f"t{number}", number, 100, 100))
                outcomes.append(transfer.outcome)
                if transfer.outcome == "complete":
                    break
                await asyncio.sleep(0.05)
            assert outcomes[-1] == "complete"
            assert set(outcomes) <= {"reset", "complete"}
        await target.stop()

    run(main(), timeout=60)


def only_bridge(system: ActorSystem) -> str:
    """The path of an agent's only bridge; empty when there is none."""
    place = system.find("/bridges")
    paths = [cell.path for cell in (place.children or {}).values()] if place is not None else []
    return paths[0] if len(paths) == 1 else ""


def test_a_stream_that_ends_while_it_is_being_accepted_ends_its_bridge_in_order(
    pki: PkiFixture, tmp_path: Path
) -> None:
    async def main() -> None:
        history = History()
        target = Target(history)
        await target.start()
        async with (
            relay(pki, tmp_path) as running,
            agent_systems(running, pki, target.port) as (address, (provider, _)),
        ):
            ended: list[Event] = []
            provider.events.subscribe(ended.append)
            workload = Workload(address, history, target=target)
            # The provider's link answers nobody: its bridge waits between dialling and accepting.
            link = provider.ref("/link")
            assert link is not None
            provider.suspend(link)
            transfer = asyncio.create_task(workload.transfer(workload.small_plan()))
            await eventually(lambda: says(provider, only_bridge(provider), "local_address"))
            bridge = provider.find(only_bridge(provider))
            assert bridge is not None
            running.kill(running.only("/edge/streams"))
            await eventually(lambda: getattr(bridge.actor, "_broken", False))
            provider.resume(link)
            # The user is served by another opening.
            assert (await transfer).outcome == "complete"
            await eventually(lambda: provider.find(bridge.path) is None)
            exits = [e for e in ended if e.kind == "exited" and e.path == bridge.path]
            assert [event.fields["kind"] for event in exits] == ["shutdown"]
        await target.stop()

    run(main())


def test_two_agents_with_one_certificate_do_not_take_turns_for_ever(
    pki: PkiFixture, tmp_path: Path
) -> None:
    async def main() -> None:
        async with (
            relay(pki, tmp_path) as running,
            agent_systems(running, pki, 0, only=1) as (_, first),
            agent_systems(running, pki, 0, only=1) as (_, second),
        ):
            await asyncio.sleep(3.0)
            connections = [says(one[0], "/link", "connections") for one in (first, second)]
            assert sum(int(str(count)) for count in connections) <= 12
            assert running.counters["superseded"] >= 1

    run(main())


def test_an_agent_answers_nobody_who_dials_it(pki: PkiFixture, tmp_path: Path) -> None:
    """It only dials out (sheet 7.1, 02)."""

    async def main() -> None:
        async with relay(pki, tmp_path) as running, agent_systems(running, pki, 0, only=0):
            described = running.system.find(running.only("/edge/agents"))
            assert described is not None
            assert described.actor is not None
            port = int(str(described.actor.describe()["remote"]).rpartition(":")[2])
            stranger = QuicEndpoint(alpn=("orp/1",), identity=identity(pki, pki.consumer))
            with pytest.raises(DialFailed, match="timed out"):
                await stranger.connect(("127.0.0.1", port), timeout=0.5)
            stranger.abort()

    run(main())


def test_a_renewed_certificate_is_used_from_the_next_dial_on(
    pki: PkiFixture, tmp_path: Path
) -> None:
    async def main() -> None:
        paths = pair_paths(tmp_path, "renewed")
        shutil.copy(pki.provider.certificate, paths.certificate)
        shutil.copy(pki.provider.key, paths.key)
        leaf = LeafFiles(pki.provider.identity, paths.certificate, paths.key)
        own = replace(pki, dev=replace(pki.dev, agents={**pki.dev.agents, "provider": leaf}))
        authority, old = read_pair(pair_paths(pki.dev.directory, "ca")), read_pair(paths)
        assert authority is not None
        assert old is not None
        async with relay(pki, tmp_path) as running, agent_systems(running, own, 0, only=0):
            place = running.only("/edge/agents")

            def serial() -> int:
                cell = running.system.find(running.only("/edge/agents"))
                assert cell is not None
                assert isinstance(cell.actor, AgentConnection)
                return int(cell.actor._connection.peer.fingerprint, 16)

            before = serial()
            now = datetime.now(UTC)
            fresh = create_leaf(
                authority, leaf.identity, lifetime=timedelta(days=2), now=now, key=old.key
            )
            replace_certificate(paths.certificate, fresh)
            running.kill(place)
            cell = running.system.find("/edge/agents")
            assert cell is not None
            await eventually(lambda: place not in {c.path for c in (cell.children or {}).values()})
            await eventually(lambda: len(cell.children or ()) == 1)
            assert serial() != before

    run(main())
