"""An allocation that is killed under traffic, again and again; its neighbours lose nothing."""

from __future__ import annotations

import asyncio
import os

import pytest

from tests.conftest import eventually, run
from tests.turn.rig import Client, Plug, door

KILLS = int(os.environ.get("TURN_KILLS", "100"))
#: Between two kills: below what a supervisor takes for a storm.
PAUSE = 0.65
#: Between two datagrams of a peer.
INTERVAL = 0.001


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_kills_under_traffic_cost_their_client_a_moment_and_nobody_else_anything() -> None:
    async def main() -> None:
        async with door() as running:
            loop = asyncio.get_running_loop()
            peer = Plug()
            users = ("alice", "bob")  # of 50 each: there is a quota
            clients = [Client(running.address(), users[n % 2]) for n in range(100)]
            relayed = []
            for client in clients:
                relayed.append(await client.allocate())
                assert await client.bind(0x4001, peer.address) == 0
            arrived: list[float] = []
            sent = 0

            async def traffic() -> None:
                nonlocal sent
                while True:
                    peer.send(b"x" * 200, relayed[0])
                    peer.send(b"y" * 200, relayed[1 + sent % 99])
                    sent += 1
                    while not clients[0].plug.got.empty():
                        clients[0].plug.got.get_nowait()
                        arrived.append(loop.time())
                    await asyncio.sleep(INTERVAL)

            flow = asyncio.create_task(traffic())
            gaps = []
            for _ in range(KILLS):
                await asyncio.sleep(PAUSE)
                killed = loop.time()
                running.kill("allocations/1")
                await running.up("allocations/1")
                await eventually(lambda: arrived and arrived[-1] > killed)  # noqa: B023  # now
                gaps.append(next(at for at in arrived if at > killed) - killed)
                arrived.clear()
            flow.cancel()
            await asyncio.wait({flow})
            assert running.turn.door.restarted == KILLS
            await asyncio.sleep(0.5)
            others = sum(client.plug.got.qsize() for client in clients[1:])
            assert others == sent
            gaps.sort()
            median, worst = (gaps[int(len(gaps) * share)] * 1e3 for share in (0.5, 0.99))
            # The generator is on the same loop, and machines are shared: the median decides.
            assert median < 20, f"gap p50 {median:.1f} ms, p99 {worst:.1f} ms"
            peer.close()
            for client in clients:
                client.close()

    run(main(), timeout=500)
