"""What a relay counts when real streams come and go, and the pages that show it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import aiohttp

from actors.observe.system_meters import watch_system
from actors.observe.tree import ObserveSettings, observe_spec
from actors.observe.web import MetricsServer
from actors.runtime import ActorSystem, Supervisor
from tests.agent.rig import agents
from tests.conftest import PkiFixture, eventually, run
from tests.edge.rig import Relay, relay
from tools.chaos.history import History
from tools.chaos.workload import Plan, Target, Workload
from wire.orp.messages import OpenStream


def counted(running: Relay) -> dict[str, int]:
    from actors.observe.exposition import snapshot

    found = snapshot(running.edge.door.meters)["counters"]
    assert isinstance(found, dict)
    return found


def test_what_alarms_watch_is_there_before_it_happens(pki: PkiFixture, tmp_path: Path) -> None:
    """A series that begins with its first event shows no increase of it."""

    async def main() -> None:
        async with relay(pki, tmp_path) as running:
            watch_system(running.edge.door.meters, running.system)
            found = counted(running)
            for name in (
                "streams_ended_total.failed",
                "streams_ended_total.killed",
                "actor_events_total.escalated",
                "edge_events_total.relay_dial_failed",
            ):
                assert found[name] == 0, name

    run(main())


def test_streams_bytes_rejects_and_durations_are_counted(pki: PkiFixture, tmp_path: Path) -> None:
    async def main() -> None:
        history = History()
        target = Target(history)
        await target.start()
        records: list[Any] = []
        async with relay(pki, tmp_path) as running, agents(running, pki, target.port) as address:
            running.edge.door.access = records.append
            workload = Workload(address, history, streams=1, target=target)
            plan = Plan("one", 1, 100_000, 200_000, idle=0.3)
            transfer = asyncio.create_task(workload.transfer(plan))
            meters = running.edge.door.meters
            await eventually(lambda: meters.gauges["stream_active"]() == 1)
            assert meters.gauges["agents_connected"]() == 2
            assert len(meters.distributions["quic_round_trip_seconds"]()) == 2
            assert max(meters.distributions["quic_round_trip_seconds"]()) > 0
            assert max(meters.distributions["quic_connection_streams"]()) >= 2
            assert (await transfer).outcome == "complete"
            await eventually(lambda: running.streams() == 0)
            upload = 100_000 + len(plan.line())
            download = 200_000 + 32
            found = counted(running)
            assert found["stream_opens_total"] == 1
            assert found["bytes_forwarded"] == upload + download
            assert found["streams_ended_total.finished"] == 1
            assert meters.histograms["stream_open_duration"].count == 1
            assert meters.histograms["stream_ready_duration"].count == 1
            assert meters.histograms["stream_open_duration"].sum_ns > 3e8
            (record,) = records
            assert (record.outcome, record.service, record.mode) == (
                "finished",
                "verified",
                "splice",
            )
            assert (record.bytes_up, record.bytes_down) == (upload, download)
            assert (record.consumer, record.provider) == (
                pki.consumer.identity,
                pki.provider.identity,
            )
        await target.stop()

    run(main())


def test_every_counter_is_shown_before_its_first_event(pki: PkiFixture, tmp_path: Path) -> None:
    async def main() -> None:
        async with relay(pki, tmp_path) as running:
            found = counted(running)
            for name in (
                "bytes_forwarded",
                "intra_relay_hops",
                "stream_forward_assigned_total",
                "stream_migrated_p2p_total",
                "stream_opens_total",
                "stream_rejects",
            ):
                assert found.get(name) == 0, name

    run(main())


def test_rejects_and_killed_pairs_are_ends_too(pki: PkiFixture, tmp_path: Path) -> None:
    async def main() -> None:
        records: list[Any] = []
        async with relay(pki, tmp_path) as running:
            running.edge.door.access = records.append
            provider, agent = running.agent(pki, pki.provider), running.agent(pki, pki.consumer)
            await provider.connect(running.address, "verified")
            await agent.connect(running.address)
            agent.open(OpenStream("nobody has this", "", 7).encode())
            await eventually(lambda: counted(running).get("stream_rejects") == 1)
            await eventually(lambda: len(records) == 1)
            assert records[0].outcome == "rejected"
            assert records[0].detail.startswith("404")
            assert counted(running)["edge_events_total.reject_404"] == 1
            await eventually(lambda: running.streams() == 0)  # it may still be on its way out
            agent.open(OpenStream("verified", "", 8).encode())
            await eventually(lambda: running.streams() == 1)
            running.kill(running.only("/edge/streams"))
            await eventually(lambda: len(records) == 2)
            assert records[1].outcome == "killed"
            assert counted(running)["streams_ended_total.killed"] == 1

    run(main())


def test_the_pages(pki: PkiFixture, tmp_path: Path) -> None:
    async def main() -> None:
        missing = {"/control/policy": "no rules yet"}

        async def readiness() -> dict[str, str]:
            return missing

        async with relay(pki, tmp_path) as running, aiohttp.ClientSession() as client:
            running.edge.door.meters.counters["stream_rejects"] += 1
            system = ActorSystem("pages")
            bound: list[int] = []
            spec = observe_spec(
                running.edge.door.meters,
                readiness,
                ObserveSettings(listen=("127.0.0.1", 0)),
                bound=bound,
            )
            await system.start(lambda: Supervisor([spec]))
            base = f"http://127.0.0.1:{bound[0]}"
            async with client.get(f"{base}/ready") as response:
                assert response.status == 503
                assert (await response.json())["missing"] == missing
            missing.clear()
            async with client.get(f"{base}/ready") as response:
                assert response.status == 200
            async with client.get(f"{base}/health") as response:
                assert response.status == 200
            async with client.get(f"{base}/debug/metrics") as response:
                assert (await response.json())["counters"]["stream_rejects"] == 1
            async with client.get(f"{base}/metrics") as response:
                assert "trunkline_stream_rejects_total 1.0" in await response.text()
            async with client.get(f"{base}/nothing") as response:
                assert response.status == 404
            # Killed, it answers again at the same address.
            cell = system.find("/observe/http")
            assert cell is not None
            assert isinstance(cell.actor, MetricsServer)
            system.kill(cell.ref, initiator="test")

            async def answers() -> bool:
                try:
                    async with client.get(f"{base}/health") as response:
                        return await response.text() == '{"status":"alive"}'
                except aiohttp.ClientError:
                    return False

            for _ in range(100):
                if await answers():
                    break
                await asyncio.sleep(0.05)
            assert await answers()
            await system.stop(timeout=5.0)

    run(main())
