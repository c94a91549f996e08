"""What users of the two agents see at their local sockets."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.agent.rig import agents
from tests.conftest import PkiFixture, eventually, run
from tests.edge.rig import relay
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
