"""One agent, or one tenant, does not fill what all need."""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import replace
from pathlib import Path

import pytest
from loguru import logger

from actors.edge.forward.settings import ForwardSettings
from actors.edge.settings import EdgeSettings
from actors.pki.dev_pki import LeafFiles
from actors.transport.connection import Connection
from tests.conftest import PkiFixture, eventually, run
from tests.edge.forward_rig import FORWARD_ALL
from tests.edge.rig import ALLOW_ALL, Incoming, RawAgent, Relay, leaf_of, relay
from tests.edge.test_promotion import HERE, heard, say, spliced
from wire.orp import reject
from wire.orp.close_codes import CloseCode, ResetCode
from wire.orp.frame import HEADER, VERSION, FrameType
from wire.orp.messages import (
    CandidateOffer,
    OpenStream,
    Register,
    StreamAccept,
    StreamReject,
    StreamResume,
)

SETTINGS = EdgeSettings(region="local")
TWO_TENANTS = ALLOW_ALL + ALLOW_ALL.replace('"all"', '"others"').replace('"acme"', '"other"')


async def agents_of(
    running: Relay, pki: PkiFixture, directory: Path, tenant: str, count: int, *services: str
) -> list[RawAgent]:
    made = []
    for number in range(count):
        agent = running.agent(pki, leaf_of(pki, directory, tenant, 100 + number))
        await agent.connect(running.address, *services)
        made.append(agent)
    return made


async def dialled(running: Relay, pki: PkiFixture, leaf: LeafFiles) -> Connection:
    """A connection on which nothing is said."""
    connection = await running.agent(pki, leaf).endpoint.connect(running.address)
    connection.start()
    return connection


def refused(running: Relay) -> dict[str, int]:
    return dict(running.edge.door.meters.families["quota_refusals_total"])


def waiting(running: Relay) -> int:
    cell = running.system.find("/edge/halves")
    return len(cell.children or ()) if cell is not None else 0


def test_one_tenant_does_not_block_the_returns_of_another(pki: PkiFixture, tmp_path: Path) -> None:
    settings = replace(SETTINGS, max_halves=40, max_halves_per_agent=30)

    async def main() -> None:
        async with relay(pki, tmp_path, rules=TWO_TENANTS, settings=settings) as running:
            greedy = await agents_of(running, pki, tmp_path, "acme", 2)
            halves: list[Incoming] = []
            for agent, first, taken in ((greedy[0], 1000, 30), (greedy[1], 1030, 36)):
                halves += [agent.open(StreamResume(first + n).encode()) for n in range(40)]
                await eventually(lambda taken=taken: waiting(running) == taken)  # type: ignore[misc]
            await eventually(lambda: sum(one.reset_code is not None for one in halves) == 44)
            assert {one.reset_code for one in halves} == {None, ResetCode.RELAY_FAULT}
            assert refused(running)["halves_identity"] == 10
            assert refused(running)["halves_tenant"] == 34
            modest = await agents_of(running, pki, tmp_path, "other", 2, "svc")
            mine, theirs = (agent.open(StreamResume(7).encode()) for agent in modest)
            for one in (mine, theirs):
                assert isinstance(await one.first_frame(), StreamResume)

    run(main(), timeout=30)


def test_a_half_whose_agent_is_gone_goes_at_once(pki: PkiFixture, tmp_path: Path) -> None:
    async def main() -> None:
        async with relay(pki, tmp_path) as running:
            (agent,) = await agents_of(running, pki, tmp_path, "acme", 1)
            halves = [agent.open(StreamResume(1000 + number).encode()) for number in range(20)]
            await eventually(lambda: waiting(running) == 20)
            matcher = running.system.find("/edge/matcher")
            assert matcher is not None
            assert matcher.actor is not None
            described = matcher.actor.describe
            await eventually(lambda: described()["waiting"] == 20)
            halves[0].stream.abort(ResetCode.NONE)
            await eventually(lambda: waiting(running) == 19 and described()["waiting"] == 19)
            agent.connection.close(CloseCode.INTERNAL_ERROR, "gone")
            await eventually(lambda: waiting(running) == 0 and described()["waiting"] == 0)
            assert running.edge.door.quotas.halves.used == 0

    run(main(), timeout=30)


def test_connections_of_one_agent(pki: PkiFixture, tmp_path: Path) -> None:
    """Also such that never say HELLO."""
    settings = replace(SETTINGS, max_connections_per_agent=3, max_agents=10, hello_deadline=1.0)

    async def main() -> None:
        async with relay(pki, tmp_path, rules=TWO_TENANTS, settings=settings) as running:
            leaf = leaf_of(pki, tmp_path, "acme", 1)
            silent = [await dialled(running, pki, leaf) for _ in range(5)]
            await eventually(lambda: sum(one.closed is not None for one in silent) == 2)
            assert refused(running) == {"connections_identity": 2}
            # Others of the tenant take what is theirs of the rest; another tenant gets in.
            for number in range(2, 10):
                await dialled(running, pki, leaf_of(pki, tmp_path, "acme", number))
            await eventually(lambda: refused(running).get("connections_tenant", 0) == 2)
            await agents_of(running, pki, tmp_path, "other", 1)
            # And when the silent ones are gone there is room again.
            await eventually(lambda: running.edge.door.quotas.connections.used == 1)
            await agents_of(running, pki, tmp_path, "acme", 1)

    run(main(), timeout=30)


def test_streams_of_one_consumer(pki: PkiFixture, tmp_path: Path) -> None:
    settings = replace(SETTINGS, max_streams_per_agent=3)
    said: list[str] = []
    sink = logger.add(lambda line: said.append(str(line)), level="INFO", format="{message}")

    async def main() -> None:
        async with relay(pki, tmp_path, settings=settings) as running:
            provider, consumer, *_ = await spliced(running, pki, 1)
            more = [consumer.open(OpenStream("web", "", number).encode()) for number in (2, 3)]
            for count in (2, 3):
                theirs, _ = await provider.next_incoming(count)
                theirs.stream.write(StreamAccept().encode())
            await eventually(lambda: sorted(consumer.ready_streams) == [1, 2, 3])
            over = [
                consumer.open(OpenStream("web", "", number).encode()) for number in range(4, 12)
            ]
            for one in over:
                assert await one.first_frame() == reject.relay_unavailable("too many streams")
            assert refused(running) == {"streams_identity": 8}
            assert len(provider.incoming) == 3
            for one in more:
                one.stream.abort(ResetCode.SOURCE_FAILED)
            await eventually(lambda: running.edge.door.quotas.streams.used == 1)
            consumer.open(OpenStream("web", "", 20).encode())
            await provider.next_incoming(4)

    try:
        run(main(), timeout=30)
    finally:
        logger.remove(sink)
    # Whose log is looked at is told, and not for each of many.
    assert "stream rejected: 503 relay unavailable: too many streams\n" in said


def test_how_fast_one_agent_opens(pki: PkiFixture, tmp_path: Path) -> None:
    settings = replace(SETTINGS, opens_per_second=2.0)

    async def main() -> None:
        async with relay(pki, tmp_path, settings=settings) as running:
            consumer = running.agent(pki, pki.consumer)
            await consumer.connect(running.address)
            opened = [consumer.open(OpenStream("no", "", one).encode()) for one in range(1, 101)]
            answers = [await one.first_frame() for one in opened]
            over = answers.count(reject.relay_unavailable("streams are opened too fast"))
            assert over >= 50
            assert answers.count(StreamReject(404, "service not found")) == 100 - over
            counted = refused(running)
            assert counted.pop("opens_identity") == over
            assert set(counted) == {"log_lines_identity"}  # said of some of them only

    run(main(), timeout=30)


def test_services_of_a_tenant(pki: PkiFixture, tmp_path: Path) -> None:
    settings = replace(SETTINGS, max_services=10, max_services_per_agent=8)

    async def main() -> None:
        async with relay(pki, tmp_path, rules=TWO_TENANTS, settings=settings) as running:
            first, second = await agents_of(running, pki, tmp_path, "acme", 2)
            first.ctrl.write(b"".join(Register(f"s{number}").encode() for number in range(8)))
            await eventually(lambda: running.edge.door.quotas.services.used == 8)
            second.ctrl.write(Register("t0").encode() + Register("t1").encode())
            await eventually(lambda: second.closed is not None)
            assert second.closed is not None
            assert second.closed.code == CloseCode.REGISTER_FAILED
            assert refused(running) == {"services_tenant": 1}
            (other,) = await agents_of(running, pki, tmp_path, "other", 1, "svc")
            assert other.registered == ["other/svc"]
            first.connection.close(0, "")
            await eventually(lambda: running.edge.door.quotas.services.used == 1)

    run(main(), timeout=30)


def test_forward_streams_of_one_consumer(pki: PkiFixture, tmp_path: Path) -> None:
    settings = replace(
        SETTINGS, forward=ForwardSettings(listen=("127.0.0.1", 0)), max_forward_per_agent=2
    )

    async def main() -> None:
        async with relay(pki, tmp_path, rules=FORWARD_ALL, settings=settings) as running:
            provider, consumer = running.agent(pki, pki.provider), running.agent(pki, pki.consumer)
            await provider.connect(running.address, "web")
            await consumer.connect(running.address)
            mine = []
            for number in (1, 2, 3):
                mine.append(consumer.open(OpenStream("web", "", number).encode()))
                theirs, _ = await provider.next_incoming(number)
                theirs.stream.write(StreamAccept().encode())
            assert await mine[2].first_frame() == StreamReject(502, "forward plane unavailable")
            assert refused(running) == {"forward_identity": 1}
            mine[0].stream.abort(ResetCode.SOURCE_FAILED)
            await eventually(lambda: running.edge.door.quotas.forward.used == 1)

    run(main(), timeout=30)


def test_candidates_of_one_agent(pki: PkiFixture, tmp_path: Path) -> None:
    """The other agent dials every address of every list."""
    settings = replace(SETTINGS, candidates_per_second=2.0)

    async def main() -> None:
        async with relay(pki, tmp_path, settings=settings) as running:
            provider, consumer, mine, theirs = await spliced(running, pki)
            for _ in range(50):
                say(consumer, CandidateOffer(7, (HERE,)))
            await eventually(lambda: refused(running).get("candidates_identity", 0) >= 25)
            assert len(heard(provider, CandidateOffer)) <= 25
            assert await _passes(mine, theirs)

    run(main(), timeout=30)


async def _passes(mine: Incoming, theirs: Incoming) -> bool:
    mine.stream.write(b"still here")
    await eventually(lambda: bytes(theirs.data) == b"still here")
    return True


def test_streams_without_a_first_frame(pki: PkiFixture, tmp_path: Path) -> None:
    settings = replace(SETTINGS, max_opening=20, max_opening_per_agent=12)

    async def main() -> None:
        async with relay(pki, tmp_path, rules=TWO_TENANTS, settings=settings) as running:
            greedy = await agents_of(running, pki, tmp_path, "acme", 2)
            streams = [agent.open(b"\x20") for agent in greedy for _ in range(15)]
            await eventually(lambda: sum(one.reset_code is not None for one in streams) == 12)
            assert refused(running) == {"opening_identity": 3, "opening_tenant": 9}
            provider, consumer = await agents_of(running, pki, tmp_path, "other", 2, "web")
            consumer.open(OpenStream("web", "", 5).encode())
            await eventually(lambda: len(provider.incoming) + len(consumer.incoming) == 1)
            for agent in greedy:
                agent.connection.close(0, "")
            await eventually(lambda: running.edge.door.quotas.opening.used == 0)

    run(main(), timeout=30)


def test_an_agent_that_comes_and_goes(pki: PkiFixture, tmp_path: Path) -> None:
    settings = replace(SETTINGS, connects_per_second=1.0)

    async def main() -> None:
        async with relay(pki, tmp_path, rules=TWO_TENANTS, settings=settings) as running:
            leaf = leaf_of(pki, tmp_path, "acme", 1)
            for _ in range(20):
                connection = await dialled(running, pki, leaf)
                connection.close(0, "")
                if refused(running):
                    break
            assert refused(running) == {"connects_identity": 1}
            await agents_of(running, pki, tmp_path, "acme", 3)

    run(main(), timeout=30)


def test_whatever_dies_gives_back_what_it_held(pki: PkiFixture, tmp_path: Path) -> None:
    """Killed at any moment, an actor leaves nothing counted."""
    settings = replace(SETTINGS, hold=0.2, resume_window=0.5)
    rng = random.Random(7)

    async def main() -> None:
        async with relay(pki, tmp_path, settings=settings) as running:
            quotas = running.edge.door.quotas
            provider, consumer = running.agent(pki, pki.provider), running.agent(pki, pki.consumer)
            await provider.connect(running.address, "web")
            await consumer.connect(running.address)
            for number in range(1, 150):
                if consumer.closed or provider.closed:
                    break
                agent = rng.choice((consumer, provider))
                agent.open(
                    rng.choice(
                        (
                            OpenStream("web", "", number).encode(),
                            StreamResume(number // 2 + 1).encode(),
                            b"\x20",
                        )
                    )
                )
                await asyncio.sleep(0)
                for place in ("/edge/streams", "/edge/halves", "/edge/matcher"):
                    cell = running.system.find(place)
                    if cell is not None and rng.random() < 0.1:
                        for child in list((cell.children or {}).values()):
                            running.system.kill(child.ref, initiator="test")
            for place in ("/edge/streams", "/edge/halves", "/edge/agents"):
                running.kill(place)
            held = (
                quotas.connections,
                quotas.opening,
                quotas.streams,
                quotas.halves,
                quotas.services,
            )
            await eventually(lambda: not any(one.used for one in held))

    run(main(), timeout=30)


@pytest.mark.parametrize("kind", ["reset", "finished", "malformed", "unexpected"])
def test_streams_without_a_first_frame_are_limited(
    kind: str, pki: PkiFixture, tmp_path: Path
) -> None:
    """Opened and given up in a loop: the connection ends, whatever was said before; no other."""
    settings = replace(SETTINGS, opens_per_second=20.0)

    def give_up(agent: RawAgent) -> None:
        stream = agent.connection.open_stream()
        if stream is None:
            return
        if kind == "reset":
            stream.write(b"\x00")
            stream.abort(ResetCode.NONE)
            return
        if kind == "malformed":
            stream.write(HEADER.pack(VERSION << 13 | FrameType.OPEN_STREAM, 0, 2) + b"\xff\xff")
        elif kind == "unexpected":
            stream.write(StreamAccept().encode())
        stream.write_eof()

    async def main() -> None:
        async with relay(pki, tmp_path, settings=settings) as running:
            provider, consumer, *_ = await spliced(running, pki, 1)
            for _ in range(60):
                give_up(provider)
            await eventually(lambda: provider.closed is not None)
            assert provider.closed is not None
            assert provider.closed.code == CloseCode.OVERLOADED
            assert provider.closed.text == "too many streams without a first frame"
            assert refused(running) == {"barren_identity": 1}
            assert consumer.closed is None
            # It is the identity that is limited: a new connection gets no second helping.
            again = running.agent(pki, pki.provider)
            await again.connect(running.address)
            for _ in range(30):
                give_up(again)
            await eventually(lambda: again.closed is not None)

    run(main(), timeout=30)


def test_refused_streams_of_one_agent_do_not_fill_the_log(pki: PkiFixture, tmp_path: Path) -> None:
    lines: list[str] = []
    settings = replace(SETTINGS, resume_window=0.2)

    async def main() -> None:
        async with relay(pki, tmp_path, settings=settings) as running:
            consumer = running.agent(pki, pki.consumer)
            await consumer.connect(running.address)
            opened = [consumer.open(OpenStream("no", "", one).encode()) for one in range(1, 201)]
            for one in opened:
                assert await one.first_frame() == StreamReject(404, "service not found")
            halves = [consumer.open(StreamResume(one).encode()) for one in range(201, 401)]
            await eventually(lambda: all(half.reset_code is not None for half in halves))
            assert running.counters["reject_404"] == 200

    sink = logger.add(lambda line: lines.append(str(line)), level="INFO", filter="actors.edge")
    started = time.monotonic()
    try:
        run(main(), timeout=30)
    finally:
        logger.remove(sink)
    said = sum("stream rejected" in line or "resume refused" in line for line in lines)
    assert 1 <= said <= 10 * (2 + time.monotonic() - started)
