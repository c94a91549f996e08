"""Many streams at once: a few are taken in each turn of the loop, and all of them in the end."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from actors.edge.connection.opening_turns import STREAMS_PER_TURN, OpeningTurns
from actors.edge.settings import EdgeSettings
from actors.transport.quic import QuicSettings
from tests.conftest import PkiFixture, eventually, run
from tests.edge.rig import relay
from wire.orp import reject
from wire.orp.messages import OpenStream

BURST = 400


@pytest.mark.parametrize("engine", ["native", "aioquic"])
def test_a_burst_of_opens_leaves_the_loop_to_others(
    pki: PkiFixture, tmp_path: Path, engine: str
) -> None:
    async def main() -> None:
        async with relay(pki, tmp_path, quic=QuicSettings(engine=engine)) as running:
            agent = running.agent(pki, pki.consumer)
            await agent.connect(running.address)
            taken = before = running.edge.door.next_serial()
            most = 0

            async def watch() -> None:
                nonlocal taken, most
                while True:
                    now = running.edge.door.next_serial() - 1  # ours is not counted
                    most, taken = max(most, now - taken), now + 1
                    await asyncio.sleep(0)

            watching = asyncio.create_task(watch())
            opened = [agent.open(OpenStream("nobody", "", 0).encode()) for _ in range(BURST)]
            await eventually(lambda: all(stream.eof for stream in opened), timeout=20)
            watching.cancel()
            assert taken - before >= BURST
            assert 0 < most <= STREAMS_PER_TURN
            for stream in opened:
                assert await stream.first_frame() == reject.SERVICE_NOT_FOUND

    run(main(), timeout=40)


def test_streams_that_wait_for_their_turn_are_bounded(pki: PkiFixture, tmp_path: Path) -> None:
    """Also such that are over before it comes: they count as streams no more."""
    bound, burst = 50, 400

    async def main() -> None:
        settings = EdgeSettings(region="local", max_streams_per_agent=bound)
        async with relay(pki, tmp_path, settings=settings) as running:
            agent = running.agent(pki, pki.consumer)
            await agent.connect(running.address)
            for _ in range(burst):
                stream = agent.connection.open_stream()
                assert stream is not None
                stream.write(b"O")
                stream.reset(1)
            await eventually(
                lambda: (
                    running.counters.get("first_frame_reset", 0)
                    + running.counters.get("stream_crowded_out", 0)
                    == burst
                )
            )
            assert running.counters["stream_crowded_out"] >= burst - bound - 2 * STREAMS_PER_TURN

    run(main(), timeout=40)


def test_a_turn_is_shared_by_tenants_and_then_by_their_connections() -> None:
    turns = OpeningTurns()
    assert turns.share("acme") == STREAMS_PER_TURN
    many = [turns.join("beta") for _ in range(4)]
    assert turns.share("beta") == STREAMS_PER_TURN // 4
    assert turns.share("acme") == STREAMS_PER_TURN  # it has nothing in store
    one = turns.join("acme")
    assert turns.share("acme") == STREAMS_PER_TURN // 2
    assert turns.share("beta") == STREAMS_PER_TURN // 8
    crowd = [turns.join(f"tenant {n}") for n in range(100)]
    assert turns.share("acme") == turns.share("beta") == 1  # nobody waits for ever
    for busy in (*many, one, *crowd, *many):
        busy.abort()
    assert turns.share("beta") == STREAMS_PER_TURN


def test_several_connections_of_a_tenant_begin_no_more_than_one(
    pki: PkiFixture, tmp_path: Path
) -> None:
    """Each of the provider and the consumer opens hundreds of streams: they share the turns."""

    async def main() -> None:
        async with relay(pki, tmp_path) as running:
            agents = [running.agent(pki, leaf) for leaf in (pki.consumer, pki.provider)]
            for agent in agents:
                await agent.connect(running.address)
            opened = [
                agent.open(OpenStream("nobody", "", 0).encode())
                for _ in range(BURST)
                for agent in agents
            ]
            await asyncio.sleep(0)
            begun = []
            while not all(stream.eof for stream in opened):
                before = running.edge.door.next_serial()
                await asyncio.sleep(0)
                begun.append(running.edge.door.next_serial() - before - 1)
            # The first turn of each connection is its own: nobody knew that more come.
            assert sorted(begun)[-3] <= STREAMS_PER_TURN

    run(main(), timeout=40)
