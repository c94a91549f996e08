"""Streams that outlive their connections, their pair and their matcher."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path

import pytest

from actors.control.operator_messages import ReloadPolicy
from actors.control.tree import control_plane
from actors.edge.connection import agent_connection
from actors.edge.resume import absences
from actors.edge.settings import EdgeSettings
from tests.conftest import PkiFixture, eventually, run
from tests.edge.rig import ALLOW_ALL, Incoming, RawAgent, Relay, relay
from wire.orp.close_codes import ResetCode
from wire.orp.messages import (
    MigrateToRelay,
    OpenStream,
    StreamAccept,
    StreamCheckpoint,
    StreamResume,
)

DOWN = hashlib.shake_256(b"down").digest(300_000)
UP = hashlib.shake_256(b"up").digest(200_000)


class Pair:
    """A consumer and a provider with one spliced stream, and their own counts."""

    def __init__(self, running: Relay, pki: PkiFixture, stream_id: int = 7) -> None:
        self.running = running
        self.pki = pki
        self.stream_id = stream_id
        self.consumer = running.agent(pki, pki.consumer)
        self.provider = running.agent(pki, pki.provider)
        self.mine: Incoming
        self.theirs: Incoming

    async def open(self) -> Pair:
        await self.provider.connect(self.running.address, "svc")
        await self.consumer.connect(self.running.address)
        self.mine = self.consumer.open(OpenStream("svc", "", self.stream_id).encode())
        self.theirs, _ = await self.provider.next_incoming(1)
        self.theirs.stream.write(StreamAccept().encode())
        await eventually(lambda: self.stream_id in self.consumer.ready_streams)
        return self

    def cut(self, agent: RawAgent) -> None:
        """The network between this agent and the relay is gone: nobody says goodbye."""
        agent.endpoint.detach()

    async def lose(self, agent: RawAgent) -> None:
        """The relay gives the agent's connection up."""
        place = self.connection_of(agent)
        self.running.kill(place)
        await eventually(lambda: agent.closed is not None)

    def connection_of(self, agent: RawAgent) -> str:
        cell = self.running.system.find("/edge/agents")
        assert cell is not None
        assert cell.children is not None
        for child in cell.children.values():
            if child.actor is not None and child.actor.describe()["agent_uri"] == agent.uri:
                return child.path
        raise AssertionError("not connected")

    async def back(self, agent: RawAgent, sent: int, received: int) -> Incoming:
        """The agent connects again and resumes; checks nothing."""
        leaf = self.pki.consumer if agent is self.consumer else self.pki.provider
        fresh = self.running.agent(self.pki, leaf)
        await fresh.connect(self.running.address, *(["svc"] if agent is self.provider else []))
        if agent is self.consumer:
            self.consumer = fresh
        else:
            self.provider = fresh
        return fresh.open(StreamResume(self.stream_id, sent, received).encode())


async def echo_of(stream: Incoming) -> StreamResume:
    message = await stream.first_frame()
    assert isinstance(message, StreamResume)
    return message


@pytest.mark.parametrize("who", ["consumer", "provider"])
def test_one_lost_connection_costs_no_byte_and_the_other_agent_nothing(
    pki: PkiFixture, tmp_path: Path, who: str
) -> None:
    async def main() -> None:
        async with relay(pki, tmp_path) as running:
            pair = await Pair(running, pki).open()
            pair.mine.stream.write(UP[:50_000])
            pair.theirs.stream.write(DOWN[:80_000])
            await eventually(lambda: len(pair.theirs.data) == 50_000)
            await eventually(lambda: len(pair.mine.data) == 80_000)
            lost = pair.consumer if who == "consumer" else pair.provider
            await pair.lose(lost)
            here, there = (pair.mine, pair.theirs)
            # The other side goes on writing: it is kept waiting, not reset.
            if who == "consumer":
                pair.theirs.stream.write(DOWN[80_000:])
                # Of what arrived the application got less: the rest comes again.
                here = await pair.back(lost, sent=len(UP), received=70_000)
                echo = await echo_of(here)
                assert echo.stream_id == 7
                assert echo.peer_ack_position == 50_000
                assert echo.my_position >= 80_000
                here.stream.write(UP[50_000:])
                here.stream.write_eof()
                pair.theirs.stream.write_eof()
                await eventually(lambda: here.eof and there.eof)
                assert bytes(here.data) == DOWN[70_000:]
                assert bytes(there.data) == UP
                assert there.reset_code is None
            else:
                pair.mine.stream.write(UP[50_000:])
                there = await pair.back(lost, sent=len(DOWN), received=20_000)
                echo = await echo_of(there)
                assert echo.peer_ack_position == 80_000
                there.stream.write(DOWN[80_000:])
                there.stream.write_eof()
                pair.mine.stream.write_eof()
                await eventually(lambda: here.eof and there.eof)
                assert bytes(there.data) == UP[20_000:]
                assert bytes(here.data) == DOWN
                assert here.reset_code is None
            await eventually(lambda: running.streams() == 0)
            assert running.edge.door.ring_budget.used == 0

    run(main())


def test_an_agent_that_comes_back_before_its_loss_is_noticed(
    pki: PkiFixture, tmp_path: Path
) -> None:
    async def main() -> None:
        async with relay(pki, tmp_path) as running:
            pair = await Pair(running, pki).open()
            pair.mine.stream.write(b"before")
            await eventually(lambda: bytes(pair.theirs.data) == b"before")
            pair.cut(pair.consumer)
            here = await pair.back(pair.consumer, sent=6, received=0)
            assert await echo_of(here) == StreamResume(7, 0, 6)
            here.stream.write(b" after")
            await eventually(lambda: bytes(pair.theirs.data) == b"before after")
            pair.theirs.stream.write(b"down")
            await eventually(lambda: bytes(here.data) == b"down")
            assert running.streams() == 1

    run(main())


def test_both_connections_lost_at_once(pki: PkiFixture, tmp_path: Path) -> None:
    async def main() -> None:
        async with relay(pki, tmp_path) as running:
            pair = await Pair(running, pki).open()
            pair.mine.stream.write(UP[:1000])
            pair.theirs.stream.write(DOWN[:2000])
            await eventually(lambda: len(pair.theirs.data) == 1000 and len(pair.mine.data) == 2000)
            await pair.lose(pair.consumer)
            await pair.lose(pair.provider)
            there = await pair.back(pair.provider, sent=2500, received=900)
            assert await echo_of(there) == StreamResume(7, 1000, 2000)
            there.stream.write(DOWN[2000:2500])
            here = await pair.back(pair.consumer, sent=1000, received=2000)
            assert (await echo_of(here)).peer_ack_position == 1000
            await eventually(lambda: bytes(here.data) == DOWN[2000:2500])
            await eventually(lambda: bytes(there.data) == UP[900:1000])

    run(main())


def test_ends_that_were_passed_on_before_the_loss_are_repeated(
    pki: PkiFixture, tmp_path: Path
) -> None:
    async def main() -> None:
        async with relay(pki, tmp_path) as running:
            pair = await Pair(running, pki).open()
            pair.theirs.stream.write(b"all of it")
            pair.theirs.stream.write_eof()
            await eventually(lambda: pair.mine.eof)
            await pair.lose(pair.consumer)
            here = await pair.back(pair.consumer, sent=0, received=4)
            assert await echo_of(here) == StreamResume(7, 9, 0)
            await eventually(lambda: here.eof)
            assert bytes(here.data) == b"of it"
            here.stream.write(b"thanks")
            here.stream.write_eof()
            await eventually(lambda: pair.theirs.eof)
            assert bytes(pair.theirs.data) == b"thanks"
            await eventually(lambda: running.streams() == 0)

    run(main())


def test_who_does_not_come_back_in_time_costs_the_other_a_reset(
    pki: PkiFixture, tmp_path: Path
) -> None:
    async def main() -> None:
        settings = EdgeSettings(region="local", hold=0.3)
        async with relay(pki, tmp_path, settings=settings) as running:
            pair = await Pair(running, pki).open()
            await pair.lose(pair.provider)
            assert pair.mine.reset_code is None
            await eventually(lambda: pair.mine.reset_code == ResetCode.SOURCE_FAILED)
            assert not pair.mine.eof
            await eventually(lambda: running.streams() == 0)
            assert running.counters["hold_expired"] == 1

    run(main())


#: Instead of three.
ASK_SECONDS = 0.7


@pytest.mark.parametrize("who", ["consumer", "provider"])
def test_a_new_process_of_an_agent_has_no_streams_to_wait_for(
    pki: PkiFixture, tmp_path: Path, who: str
) -> None:
    """Killed and started again, it is there at once, and asks for nothing: nor do others wait."""

    async def main() -> None:
        async with relay(pki, tmp_path) as running:
            pair = await Pair(running, pki).open()
            lost = pair.consumer if who == "consumer" else pair.provider
            leaf = pki.consumer if who == "consumer" else pki.provider
            there = pair.theirs if who == "consumer" else pair.mine
            pair.cut(lost)  # the relay hears of it from the new one
            fresh = running.agent(pki, leaf)
            await fresh.connect(running.address, "svc")
            await eventually(
                lambda: there.reset_code == ResetCode.SOURCE_FAILED,
                timeout=4 * absences.ASK_SECONDS,
                what="a reset, long before the hold is over",
            )
            assert not there.eof
            assert running.counters["came_without_stream"] == 1
            assert fresh.closed is None
            await eventually(lambda: running.streams() == 0)

    run(main())


def test_an_agent_that_asks_for_one_of_its_streams_is_given_time_for_the_others(
    pki: PkiFixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agent_connection, "ASK_SECONDS", ASK_SECONDS)

    async def main() -> None:
        async with relay(pki, tmp_path) as running:
            pair = await Pair(running, pki).open()
            second = pair.consumer.open(OpenStream("svc", "", 8).encode())
            theirs, _ = await pair.provider.next_incoming(2)
            theirs.stream.write(StreamAccept().encode())
            await eventually(lambda: 8 in pair.consumer.ready_streams)
            await pair.lose(pair.provider)
            back = asyncio.get_running_loop().time()
            there = await pair.back(pair.provider, sent=0, received=0)
            assert await echo_of(there) == StreamResume(7, 0, 0)

            def late() -> bool:
                return asyncio.get_running_loop().time() > back + 2 * ASK_SECONDS

            await eventually(late, timeout=5 * ASK_SECONDS)
            assert second.reset_code is None
            other = pair.provider.open(StreamResume(8, 0, 0).encode())
            assert await echo_of(other) == StreamResume(8, 0, 0)
            second.stream.write(b"still here")
            await eventually(lambda: bytes(other.data) == b"still here")

    run(main())


def test_an_agent_that_leaves_on_purpose_is_not_waited_for(pki: PkiFixture, tmp_path: Path) -> None:
    async def main() -> None:
        async with relay(pki, tmp_path) as running:
            pair = await Pair(running, pki).open()
            pair.provider.connection.close(0, "bye")
            await eventually(lambda: pair.mine.reset_code == ResetCode.SOURCE_FAILED)
            assert "streams_held" not in running.counters

    run(main())


async def _both_resume(
    pair: Pair, sent: tuple[int, int], received: tuple[int, int]
) -> tuple[Incoming, Incoming]:
    """Consumer and provider resume over the connections they still have."""
    here = pair.consumer.open(StreamResume(pair.stream_id, sent[0], received[0]).encode())
    there = pair.provider.open(StreamResume(pair.stream_id, sent[1], received[1]).encode())
    return here, there


def test_a_killed_pair_is_joined_again_by_the_matcher(pki: PkiFixture, tmp_path: Path) -> None:
    async def main() -> None:
        async with relay(pki, tmp_path) as running:
            pair = await Pair(running, pki).open()
            pair.mine.stream.write(UP[:3000])
            pair.theirs.stream.write(DOWN[:4000])
            await eventually(lambda: len(pair.theirs.data) == 3000 and len(pair.mine.data) == 4000)
            for turn in range(3):
                running.kill(running.only("/edge/streams"))
                mine, theirs = pair.mine, pair.theirs
                await eventually(lambda mine=mine: mine.reset_code == ResetCode.RELAY_FAULT)  # type: ignore[misc]
                await eventually(lambda theirs=theirs: theirs.reset_code == ResetCode.RELAY_FAULT)  # type: ignore[misc]
                # Each sent a little that the other did not get.
                up, down = 3000 + 10 * turn, 4000 + 20 * turn
                here, there = await _both_resume(pair, (up + 10, down + 20), (down, up))
                assert await echo_of(here) == StreamResume(7, down + 20, up)
                assert await echo_of(there) == StreamResume(7, up + 10, down)
                here.stream.write(UP[up : up + 10])
                there.stream.write(DOWN[down : down + 20])
                await eventually(lambda there=there: len(there.data) == 10)  # type: ignore[misc]
                await eventually(lambda here=here: len(here.data) == 20)  # type: ignore[misc]
                assert bytes(there.data) == UP[up : up + 10]
                assert bytes(here.data) == DOWN[down : down + 20]
                pair.mine, pair.theirs = here, there
            # The row is there again: frames between the agents find their way.
            pair.consumer.session.send(StreamCheckpoint(7, 1, 2))
            pair.consumer.flush()
            await eventually(lambda: StreamCheckpoint(7, 1, 2) in pair.provider.events)

    run(main())


def test_the_matcher_dies_and_no_half_is_lost(pki: PkiFixture, tmp_path: Path) -> None:
    async def main() -> None:
        async with relay(pki, tmp_path) as running:
            pair = await Pair(running, pki).open()
            running.kill(running.only("/edge/streams"))
            await eventually(lambda: pair.theirs.reset_code is not None)
            here = pair.consumer.open(StreamResume(7, 0, 0).encode())
            await eventually(lambda: running.counters.get("resume_asked") == 1)
            for _ in range(3):
                running.kill("/edge/matcher")
                await asyncio.sleep(0.05)
            there = pair.provider.open(StreamResume(7, 0, 0).encode())
            await echo_of(here)
            await echo_of(there)
            here.stream.write(b"still one stream")
            await eventually(lambda: bytes(there.data) == b"still one stream")

    run(main())


def test_a_known_stream_is_resumed_by_its_own_agents_only(pki: PkiFixture, tmp_path: Path) -> None:
    async def main() -> None:
        settings = EdgeSettings(region="local", resume_window=2.0)
        async with relay(pki, tmp_path, settings=settings) as running:
            pair = await Pair(running, pki).open()
            stranger = running.agent(pki, pki.provider)
            stranger.uri = pair.provider.uri
            running.kill(running.only("/edge/streams"))
            await eventually(lambda: pair.mine.reset_code is not None)
            # Two halves of one agent are no pair; the newer one is the one it reads.
            first = pair.consumer.open(StreamResume(7, 0, 0).encode())
            await eventually(lambda: running.counters.get("resume_asked") == 1)
            second = pair.consumer.open(StreamResume(7, 0, 0).encode())
            await eventually(lambda: first.reset_code is not None)
            there = pair.provider.open(StreamResume(7, 0, 0).encode())
            await echo_of(second)
            await echo_of(there)
            # An id nobody else comes back with.
            lonely = pair.consumer.open(StreamResume(99, 0, 0).encode())
            await eventually(lambda: lonely.reset_code == ResetCode.DEADLINE)
            assert not lonely.eof

    run(main())


def test_positions_that_cannot_be_true_are_refused(pki: PkiFixture, tmp_path: Path) -> None:
    async def main() -> None:
        async with relay(pki, tmp_path) as running:
            pair = await Pair(running, pki).open()
            running.kill(running.only("/edge/streams"))
            await eventually(lambda: pair.mine.reset_code is not None)
            # The consumer received more than the provider ever sent.
            here, there = await _both_resume(pair, (10, 5), (6, 10))
            await eventually(lambda: here.reset_code is not None and there.reset_code is not None)
            assert running.counters["resume_inconsistent"] == 1
            await eventually(lambda: running.streams() == 0)

    run(main())


def test_a_ring_too_short_sends_both_agents_to_the_matcher(pki: PkiFixture, tmp_path: Path) -> None:
    async def main() -> None:
        settings = EdgeSettings(region="local", replay_bytes=1000)
        async with relay(pki, tmp_path, settings=settings) as running:
            pair = await Pair(running, pki).open()
            for start in range(0, 5000, 500):
                pair.theirs.stream.write(DOWN[start : start + 500])
                await eventually(lambda start=start: len(pair.mine.data) == start + 500)  # type: ignore[misc]
            await pair.lose(pair.consumer)
            first = await pair.back(pair.consumer, sent=0, received=2000)
            await eventually(lambda: pair.theirs.reset_code == ResetCode.RELAY_FAULT)
            there = pair.provider.open(StreamResume(7, 5000, 0).encode())
            # The half that asked first goes on waiting for it.
            assert await echo_of(first) == StreamResume(7, 5000, 0)
            assert await echo_of(there) == StreamResume(7, 0, 2000)
            there.stream.write(DOWN[2000:5000])
            await eventually(lambda: bytes(first.data) == DOWN[2000:5000])

    run(main())


def test_checkpoints_shorten_what_is_kept(pki: PkiFixture, tmp_path: Path) -> None:
    async def main() -> None:
        async with relay(pki, tmp_path) as running:
            pair = await Pair(running, pki).open()
            pair.theirs.stream.write(DOWN[:50_000])
            await eventually(lambda: len(pair.mine.data) == 50_000)
            assert running.edge.door.ring_budget.used == 50_000
            pair.consumer.session.send(StreamCheckpoint(7, 0, 50_000))
            pair.consumer.flush()
            await eventually(lambda: running.edge.door.ring_budget.used == 0)
            # Nobody can checkpoint another one's stream.
            pair.theirs.stream.write(DOWN[50_000:60_000])
            await eventually(lambda: len(pair.mine.data) == 60_000)
            assert running.edge.door.ring_budget.used == 10_000

    run(main())


def test_migrate_to_relay_halves_get_no_echo(pki: PkiFixture, tmp_path: Path) -> None:
    async def main() -> None:
        async with relay(pki, tmp_path) as running:
            pair = await Pair(running, pki).open()
            running.kill(running.only("/edge/streams"))
            await eventually(lambda: pair.mine.reset_code is not None)
            here = pair.consumer.open(MigrateToRelay(7, 5, 3, "rtt_timeout").encode() + b"up")
            there = pair.provider.open(MigrateToRelay(7, 3, 5, "peer_close").encode())
            await eventually(lambda: bytes(there.data) == b"up")
            there.stream.write(b"down")
            await eventually(lambda: bytes(here.data) == b"down")

    run(main())


def test_half_open_streams_end_with_the_policy_that_allowed_them(
    pki: PkiFixture, tmp_path: Path
) -> None:
    rules = tmp_path / "rules.toml"

    async def main() -> None:
        async with relay(pki, tmp_path) as running:
            pair = await Pair(running, pki).open()
            running.kill(running.only("/edge/streams"))
            await eventually(lambda: pair.mine.reset_code is not None)
            rules.write_text(ALLOW_ALL.replace('"allow"', '"deny"'))
            await control_plane(running.system).policy.ask(ReloadPolicy(), timeout=5)
            here, there = await _both_resume(pair, (0, 0), (0, 0))
            await eventually(lambda: here.reset_code is not None and there.reset_code is not None)
            assert running.counters["resume_denied"] == 1

    run(main())
