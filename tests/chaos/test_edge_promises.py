"""Invariants of docs/chaos.md that take many deaths, or an operator, to see: 10, 11, 15, 20, 25."""

from __future__ import annotations

import asyncio
from pathlib import Path

from actors.control.registry.registry import RegistryActor
from actors.transport.quic import QuicSettings
from tests.agent.rig import agent_systems, agents, says
from tests.chaos.in_process import InProcessControl
from tests.conftest import PkiFixture, eventually, run
from tests.edge.rig import RawAgent, Relay, relay
from tools.chaos import stream_checks
from tools.chaos.history import History
from tools.chaos.nemesis import Nemesis
from tools.chaos.workload import Target, Workload
from wire.orp.close_codes import CloseCode
from wire.orp.messages import OpenStream, StreamAccept

#: Streams an agent may have open at a time in these tests, and pairs killed on one connection.
CREDITS = 16
KILLS = 160


async def _pair(running: Relay, pki: PkiFixture) -> tuple[RawAgent, RawAgent]:
    provider = running.agent(pki, pki.provider)
    consumer = running.agent(pki, pki.consumer)
    await provider.connect(running.address, "svc")
    await consumer.connect(running.address)
    return provider, consumer


def _close_code(agent: RawAgent) -> int | None:
    return agent.closed.code if agent.closed is not None else None


def test_20_pairs_killed_on_one_connection_return_their_stream_credits(
    pki: PkiFixture, tmp_path: Path
) -> None:
    async def main() -> None:
        quic = QuicSettings(max_streams=CREDITS)
        async with relay(pki, tmp_path, quic=quic) as running:
            provider, consumer = await _pair(running, pki)
            sibling = consumer.open(OpenStream("svc", "", 1).encode())
            theirs, _ = await provider.next_incoming(1)
            theirs.stream.write(StreamAccept().encode())
            await eventually(lambda: 1 in consumer.ready_streams)
            keep = running.only("/edge/streams")
            for number in range(2, KILLS + 2):
                victim = consumer.open(OpenStream("svc", "", number).encode())
                answered, _ = await provider.next_incoming(number)
                answered.stream.write(StreamAccept().encode())
                await eventually(lambda number=number: number in consumer.ready_streams)  # type: ignore[misc]
                place = running.system.find("/edge/streams")
                assert place is not None
                paths = [cell.path for cell in (place.children or {}).values()]
                running.kill(next(path for path in paths if path != keep))
                await eventually(lambda victim=victim: victim.reset_code is not None)  # type: ignore[misc]
                await eventually(lambda answered=answered: answered.reset_code is not None)  # type: ignore[misc]
            # The sibling lives, and as many streams as ever may be open beside it.
            sibling.stream.write(b"still here")
            await eventually(lambda: bytes(theirs.data) == b"still here")
            room = CREDITS - 2  # ctrl and the sibling
            for extra in range(room):
                stream = consumer.connection.open_stream()
                assert stream is not None, f"{room - extra} stream credits were lost"
                stream.abort()

    run(main(), timeout=60)


def test_25_drain_takes_nothing_new_and_lets_what_runs_finish(
    pki: PkiFixture, tmp_path: Path
) -> None:
    async def main() -> None:
        async with relay(pki, tmp_path) as running:
            provider, consumer = await _pair(running, pki)
            mine = consumer.open(OpenStream("svc", "", 1).encode() + b"before")
            theirs, _ = await provider.next_incoming(1)
            theirs.stream.write(StreamAccept().encode())
            await eventually(lambda: bytes(theirs.data) == b"before")
            drained = asyncio.create_task(running.edge.drain())
            await eventually(lambda: running.edge.door.draining)
            # No new stream, and no new agent.
            refused = consumer.open(OpenStream("svc", "", 2).encode())
            await eventually(lambda: running.counters.get("reject_503", 0) == 1)
            await eventually(lambda: refused.eof)
            late = running.agent(pki, pki.consumer)
            await late.dial(running.address)
            await eventually(lambda: _close_code(late) == CloseCode.GOING_AWAY)
            # What runs goes on, to its end; only then are the agents told to go.
            mine.stream.write(b" and after")
            mine.stream.write_eof()
            await eventually(lambda: bytes(theirs.data) == b"before and after" and theirs.eof)
            assert not drained.done()
            assert _close_code(provider) is None
            theirs.stream.write(b"bye")
            theirs.stream.write_eof()
            await eventually(lambda: bytes(mine.data) == b"bye" and mine.eof)
            await eventually(drained.done)
            await drained
            await eventually(lambda: _close_code(provider) == CloseCode.GOING_AWAY)

    run(main())


def test_11_suspended_control_actors_delay_new_streams_and_lose_none(
    pki: PkiFixture, tmp_path: Path
) -> None:
    async def main() -> None:
        history = History()
        target = Target(history)
        await target.start()
        async with relay(pki, tmp_path) as running, agents(running, pki, target.port) as address:
            workload = Workload(address, history, target=target)
            for name in ("registry", "policy", "audit"):
                place = running.system.ref(f"/control/{name}")
                assert place is not None
                running.system.suspend(place)
                asked = [
                    asyncio.create_task(workload.transfer(workload.small_plan())) for _ in range(5)
                ]
                if name != "audit":  # nobody waits for that one
                    await eventually(lambda: running.streams() == 5)
                    assert not any(task.done() for task in asked)
                details = await InProcessControl(running.system, history).describe(place.path)
                assert details["state"] == "suspended"
                running.system.resume(place)
                for task in asked:
                    assert (await task).outcome == "complete", name
        await target.stop()

    run(main(), timeout=40)


def test_15_registry_and_connections_agree_after_every_fault(
    pki: PkiFixture, tmp_path: Path
) -> None:
    async def main() -> None:
        history = History()
        target = Target(history)
        await target.start()
        async with (
            relay(pki, tmp_path) as running,
            agent_systems(running, pki, target.port) as (_, systems),
        ):
            control = InProcessControl(running.system, history)
            nemesis = Nemesis(control, seed=3, history=history, spare=("/edge/listeners",))

            def disagreement() -> list[str]:
                place = running.system.find("/edge/agents")
                uris = (
                    [
                        str(says(running.system, cell.path, "agent_uri"))
                        for cell in (place.children or {}).values()
                    ]
                    if place is not None
                    else []
                )
                registry = running.system.find("/control/registry")
                if registry is None or registry.actor is None:
                    return ["no registry"]
                assert isinstance(registry.actor, RegistryActor)
                known = [agent.uri for agent in registry.actor._agents]
                return [str(v) for v in stream_checks.registry_matches(uris, known)]

            for _ in range(12):
                await nemesis.strike()
                await eventually(lambda: all(says(s, "/link", "ready") is True for s in systems))
                await eventually(lambda: disagreement() == [])
            assert sum(action.done for action in history.actions) == 12
        await target.stop()

    run(main(), timeout=60)
