"""Streams leave the relay for a direct path between two agents, and come back."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from actors.edge.settings import EdgeSettings
from actors.runtime import ActorSystem
from actors.transport.stream import Stream
from tests.agent.rig import agent_systems, says
from tests.conftest import PkiFixture, eventually, run
from tests.edge.relay_rig import relays
from tests.edge.rig import Relay, relay
from tools.agent import promoter
from tools.agent.promoter import Promoter
from tools.agent.relay_link import RelayLink
from tools.chaos.history import History, Transfer
from tools.chaos.workload import Plan, Target, Workload
from wire.orp.close_codes import ResetCode

MEBIBYTE = 1 << 20
RULES = """
[[rule]]
id = "all"
tenant = "acme"
caller = "*"
target = "*"
decision = "allow"
p2p_mode = "{mode}"
"""
PLANS = [
    Plan("both", 1, 12 * MEBIBYTE, 12 * MEBIBYTE),
    Plan("down", 2, 100, 24 * MEBIBYTE),
    Plan("up", 3, 24 * MEBIBYTE, 100, half_close=True),
    Plan("idle", 4, 5000, 5000, idle=2.5),
    Plan("half-closed", 5, 1000, 24 * MEBIBYTE, half_close=True),
]
#: On a fast machine one of them may be through before it could move.
MOST = len(PLANS) - 1
COMPLETE = {plan.name: ("complete", "") for plan in PLANS}


def link_of(system: ActorSystem) -> RelayLink:
    cell = system.find("/link")
    assert cell is not None
    assert isinstance(cell.actor, RelayLink)
    return cell.actor


def promoter_of(system: ActorSystem) -> Promoter:
    promoter = link_of(system)._promoter
    assert promoter is not None
    return promoter


async def rid_of_streams(*systems: ActorSystem) -> None:
    """Until the agents have forgotten every stream."""
    for system in systems:
        await eventually(partial(_forgot, system))


def _forgot(system: ActorSystem) -> bool:
    return says(system, "/link", "streams") == 0


def _carries_nothing(promoter: Promoter) -> bool:
    return promoter.paths.streams == 0


def streams_of_agents(running: Relay) -> list[object]:
    """Streams that the relay has open with each agent."""
    cell = running.system.find("/edge/agents")
    assert cell is not None
    children = (cell.children or {}).values()
    return [child.actor.describe()["streams"] for child in children if child.actor is not None]


def promoted(system: ActorSystem) -> int:
    """Streams that left the relay."""
    return int(str(says(system, "/link", "promoted")))


@asynccontextmanager
async def two(
    pki: PkiFixture, tmp_path: Path, mode: str = "allowed", **more: Any
) -> AsyncIterator[tuple[Relay, Workload, list[ActorSystem]]]:
    history = History()
    target = Target(history)
    await target.start()
    settings: dict[str, Any] = {"p2p_listen": ("127.0.0.1", 0), "p2p_after": 0.1, **more}
    async with (
        relay(pki, tmp_path, rules=RULES.format(mode=mode)) as running,
        agent_systems(running, pki, target.port, **settings) as (address, systems),
    ):
        yield running, Workload(address, history, streams=1, target=target), systems
    await target.stop()


async def outcomes(transfers: list[asyncio.Task[Transfer]]) -> dict[str, tuple[str, str]]:
    results = [await transfer for transfer in transfers]
    return {r.name: (r.outcome, r.detail) for r in results}


def test_busy_streams_move_to_a_direct_path_and_lose_nothing(
    pki: PkiFixture, tmp_path: Path
) -> None:
    async def main() -> None:
        async with two(pki, tmp_path) as (running, workload, systems):
            transfers = [asyncio.create_task(workload.transfer(plan)) for plan in PLANS]
            await eventually(lambda: promoted(systems[1]) >= MOST, timeout=15)
            await eventually(lambda: promoted(systems[0]) == promoted(systems[1]))
            # The relay is rid of them, and of their stream credit.
            await eventually(lambda: running.streams() == 0, timeout=10)
            assert not all(transfer.done() for transfer in transfers)
            assert await outcomes(transfers) == COMPLETE
            meters = running.edge.door.meters
            assert meters.counters["stream_migrated_p2p_total"] >= MOST
            assert says(systems[0], "/link", "direct_connections") == 1
            await rid_of_streams(*systems)

    run(main(), timeout=60)


def test_required_holds_over_two_relays(pki: PkiFixture, tmp_path: Path) -> None:
    """Addresses and the word that the stream left cross the link; both relays are rid of it."""

    async def main() -> None:
        history = History()
        target = Target(history)
        await target.start()
        edge = EdgeSettings(region="local", p2p_deadline=2.0)
        rules = RULES.format(mode="required")
        async with (
            relays(pki, tmp_path, "r1", "r2", rules=rules, settings=edge) as (ingress, egress),
            agent_systems(
                ingress,
                pki,
                target.port,
                provider_relays=(egress.address,),
                consumer_relays=(ingress.address,),
                p2p_listen=("127.0.0.1", 0),
                p2p_after=0.1,
            ) as (address, systems),
        ):
            workload = Workload(address, history, streams=1, target=target)
            plan = Plan("both", 1, MEBIBYTE, MEBIBYTE, idle=3.0)
            transfer = asyncio.create_task(workload.transfer(plan))
            await eventually(lambda: says(systems[1], "/link", "promoted") == 1, timeout=10)
            await eventually(lambda: ingress.streams() == egress.streams() == 0, timeout=10)
            result = await transfer
            assert (result.outcome, result.detail) == ("complete", "")
            for one in (ingress, egress):
                ended = one.edge.door.meters.families["streams_ended_total"]
                assert +Counter(ended) == {"migrated": 1}
        await target.stop()

    run(main(), timeout=60)


@pytest.mark.parametrize("whose", ["consumer", "provider", "both"])
def test_a_lost_direct_path_leads_back_to_the_relay(
    pki: PkiFixture, tmp_path: Path, whose: str
) -> None:
    async def main() -> None:
        async with two(pki, tmp_path) as (running, workload, systems):
            transfers = [asyncio.create_task(workload.transfer(plan)) for plan in PLANS]
            await eventually(lambda: promoted(systems[1]) >= MOST, timeout=15)
            await eventually(lambda: running.streams() == 0, timeout=10)
            for name, one in zip(("provider", "consumer"), systems, strict=True):
                promoter = promoter_of(one)
                if whose in (name, "both"):
                    promoter.paths.abort()
            assert await outcomes(transfers) == COMPLETE
            assert running.counters.get("streams_resumed", 0) > 0

    run(main(), timeout=60)


def test_streams_on_a_direct_path_do_not_notice_the_death_of_the_relay(
    pki: PkiFixture, tmp_path: Path
) -> None:
    async def main() -> None:
        async with two(pki, tmp_path) as (running, workload, systems):
            plan = Plan("long", 9, MEBIBYTE, 4 * MEBIBYTE, idle=3.0)
            transfer = asyncio.create_task(workload.transfer(plan))
            await eventually(lambda: says(systems[1], "/link", "promoted") == 1, timeout=10)
            await eventually(lambda: running.streams() == 0, timeout=10)
            running.kill("/edge")
            running.edge.endpoints[0].detach()
            result = await transfer
            assert (result.outcome, result.detail) == ("complete", "")

    run(main(), timeout=60)


def test_where_policy_forbids_it_streams_stay(pki: PkiFixture, tmp_path: Path) -> None:
    async def main() -> None:
        async with two(pki, tmp_path, "forbidden", p2p_budget=1.0) as (running, workload, systems):
            transfer = asyncio.create_task(workload.transfer(Plan("one", 1, 100, 100, idle=2.0)))
            await eventually(lambda: says(systems[1], "/link", "stayed_on_relay") == 1, timeout=10)
            assert (await transfer).outcome == "complete"
            assert running.counters["candidates_forbidden"] > 0
            assert says(systems[0], "/link", "direct_connections") == 0

    run(main(), timeout=60)


def test_addresses_that_lead_nowhere_cost_the_stream_nothing(
    pki: PkiFixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as mute:
            mute.bind(("127.0.0.1", 0))
            settings = {"p2p_advertise": mute.getsockname(), "p2p_budget": 1.0}
            async with two(pki, tmp_path, **settings) as (_running, workload, systems):
                for promoter in map(promoter_of, systems):
                    # Only the advertised address is offered.
                    best = promoter.candidates()[:1]
                    monkeypatch.setattr(promoter, "candidates", partial(tuple, best))
                plan = Plan("one", 1, MEBIBYTE, MEBIBYTE, idle=1.5)
                result = await workload.transfer(plan)
                assert (result.outcome, result.detail) == ("complete", "")
                assert says(systems[1], "/link", "stayed_on_relay") == 1

    run(main(), timeout=60)


def test_a_move_that_fails_goes_on_where_it_was(
    pki: PkiFixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The provider refuses the stream on the direct connection."""

    async def main() -> None:
        async with two(pki, tmp_path) as (_running, workload, systems):

            def refuse(connection: object, path: Stream, message: object, rest: bytes) -> None:
                path.abort(ResetCode.REJECTED)

            monkeypatch.setattr(promoter_of(systems[0]), "_taken", refuse)
            transfers = [asyncio.create_task(workload.transfer(plan)) for plan in PLANS]
            await eventually(
                lambda: says(systems[1], "/link", "stayed_on_relay") == len(PLANS), timeout=15
            )
            assert await outcomes(transfers) == COMPLETE
            assert says(systems[1], "/link", "promoted") == 0

    run(main(), timeout=60)


def test_what_is_consumed_during_a_move_that_fails_is_credited(
    pki: PkiFixture, tmp_path: Path
) -> None:
    """Else the path it goes back to stays short of credit, and stalls when that was the window."""
    size = 16 * MEBIBYTE

    async def main() -> None:
        async def send(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(bytes(size))
            await writer.drain()
            writer.close()

        server = await asyncio.start_server(send, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        async with (
            relay(pki, tmp_path, rules=RULES.format(mode="forbidden")) as running,
            agent_systems(running, pki, port) as (address, systems),
        ):
            with socket.socket() as slow:
                slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                slow.setblocking(False)
                loop = asyncio.get_running_loop()
                await loop.sock_connect(slow, address)
                streams = link_of(systems[1])._table.streams
                await eventually(lambda: any(one.unconsumed for one in streams.values()))
                (stream,) = streams.values()
                await stands_still(lambda: stream.received)
                held = stream.unconsumed
                assert stream.suspend()
                got = 0
                while stream.unconsumed > held // 100:
                    got += len(await loop.sock_recv(slow, 65536))
                stream.rollback()
                async with asyncio.timeout(30):
                    while chunk := await loop.sock_recv(slow, 65536):
                        got += len(chunk)
                assert got == size
        server.close()

    run(main(), timeout=60)


async def stands_still(figure: Callable[[], int]) -> None:
    """Until it has not changed for a while."""
    before = -1
    while before != figure():
        before = figure()
        await asyncio.sleep(0.2)


@pytest.mark.timeout(90)
def test_the_relay_gets_its_streams_back_as_soon_as_it_left_them(
    pki: PkiFixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The provider, too, needs its old stream no longer than until the relay heard of the move."""
    monkeypatch.setattr(promoter, "FORMER_SECONDS", 60.0)

    async def main() -> None:
        async with two(pki, tmp_path) as (running, workload, systems):
            transfer = asyncio.create_task(workload.transfer(Plan("one", 1, 100, 100, idle=1.5)))
            await eventually(lambda: promoted(systems[0]) == promoted(systems[1]) == 1)
            await eventually(lambda: streams_of_agents(running) == [1, 1])  # ctrl
            assert (await transfer).outcome == "complete"

    run(main())


def _streams_of(running: Relay) -> set[object]:
    """How many streams the relay's connections have, halves' included."""
    return {
        child.actor.describe().get("streams")
        for path in ("/edge/agents", "/edge/halves")
        if (cell := running.system.find(path)) is not None
        for child in (cell.children or {}).values()
        if child.actor is not None
    }


def test_two_hundred_promotions_leave_nothing_behind(pki: PkiFixture, tmp_path: Path) -> None:
    async def main() -> None:
        async with two(pki, tmp_path, p2p_after=0.01) as (running, workload, systems):
            for _ in range(10):
                transfers = [
                    asyncio.create_task(workload.transfer(Plan(f"{n}", n, 100, 100, idle=0.6)))
                    for n in range(20)
                ]
                assert {r.outcome for r in [await t for t in transfers]} == {"complete"}
            assert says(systems[1], "/link", "promoted") == 200
            await eventually(lambda: running.streams() == 0, timeout=10)
            # A pair is gone a moment before the last acknowledgement of its streams is there.
            await eventually(lambda: _streams_of(running) == {1}, what="only ctrl streams")
            await rid_of_streams(*systems)
            for promoter in map(promoter_of, systems):
                assert len(promoter.paths) == 1
                await eventually(partial(_carries_nothing, promoter))

    run(main(), timeout=80)
