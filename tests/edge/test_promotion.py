"""What a relay lets agents that want to leave it do, and what it makes of their word."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

import pytest

from actors.edge.settings import EdgeSettings
from tests.conftest import PkiFixture, eventually, run
from tests.edge.rig import Incoming, RawAgent, Relay, leaf_of, relay
from wire.orp.close_codes import ResetCode
from wire.orp.messages import (
    Candidate,
    CandidateAnswer,
    CandidateOffer,
    MigrateToP2P,
    OpenStream,
    StreamAccept,
)

RULES = """
[[rule]]
id = "all"
tenant = "acme"
caller = "*"
target = "*"
decision = "allow"
p2p_mode = "{mode}"
"""
HERE = Candidate("host", "192.0.2.1", 4000, 70)


async def spliced(
    running: Relay, pki: PkiFixture, stream_id: int = 7
) -> tuple[RawAgent, RawAgent, Incoming, Incoming]:
    """Provider, consumer, and their ends of a stream."""
    provider, consumer = running.agent(pki, pki.provider), running.agent(pki, pki.consumer)
    await provider.connect(running.address, "web")
    await consumer.connect(running.address)
    mine = consumer.open(OpenStream("web", "", stream_id).encode())
    theirs, _ = await provider.next_incoming(1)
    theirs.stream.write(StreamAccept().encode())
    await eventually(lambda: consumer.ready_streams == [stream_id])
    return provider, consumer, mine, theirs


def heard(agent: RawAgent, kind: type) -> list[object]:
    return [event for event in agent.events if isinstance(event, kind)]


def say(agent: RawAgent, message: CandidateOffer | CandidateAnswer | MigrateToP2P) -> None:
    agent.session.send(message)
    agent.flush()


def test_candidates_reach_the_other_agent_of_the_stream(pki: PkiFixture, tmp_path: Path) -> None:
    async def main() -> None:
        async with relay(pki, tmp_path, rules=RULES.format(mode="allowed")) as running:
            provider, consumer, _, _ = await spliced(running, pki)
            offer, answer = CandidateOffer(7, (HERE,)), CandidateAnswer(7, (HERE,))
            say(consumer, offer)
            await eventually(lambda: heard(provider, CandidateOffer) == [offer])
            say(provider, answer)
            await eventually(lambda: heard(consumer, CandidateAnswer) == [answer])

    run(main())


def test_forbidden_keeps_addresses_apart(pki: PkiFixture, tmp_path: Path) -> None:
    async def main() -> None:
        async with relay(pki, tmp_path, rules=RULES.format(mode="forbidden")) as running:
            provider, consumer, mine, theirs = await spliced(running, pki)
            say(consumer, CandidateOffer(7, (HERE,)))
            say(provider, CandidateAnswer(7, (HERE,)))
            say(consumer, MigrateToP2P(7))
            await eventually(lambda: running.counters.get("candidates_forbidden") == 2)
            await eventually(lambda: running.counters.get("migrate_refused") == 1)
            mine.stream.write(b"still here")
            await eventually(lambda: bytes(theirs.data) == b"still here")
            assert not heard(provider, CandidateOffer)
            assert not heard(consumer, CandidateAnswer)

    run(main())


@pytest.mark.parametrize("mode", ["allowed", "forbidden"])
def test_addresses_do_not_travel_for_a_stream_that_ended(
    pki: PkiFixture, tmp_path: Path, mode: str
) -> None:
    """Agents of the reference offer theirs a second after the start of a stream, dead or alive."""

    async def main() -> None:
        async with relay(pki, tmp_path, rules=RULES.format(mode=mode)) as running:
            provider, consumer, mine, theirs = await spliced(running, pki)
            mine.stream.write_eof()
            theirs.stream.write_eof()
            await eventually(lambda: running.streams() == 0)
            say(consumer, CandidateOffer(7, (HERE,)))
            say(provider, CandidateAnswer(7, (HERE,)))
            await eventually(lambda: running.counters.get("candidates_stray") == 2)
            # What was taken in order is said in order: this comes behind what must not come.
            again = consumer.open(OpenStream("web", "", 8).encode())
            further, _ = await provider.next_incoming(2)
            further.stream.write(StreamAccept().encode())
            await eventually(lambda: consumer.ready_streams == [7, 8] == provider.ready_streams)
            assert again.reset_code is None
            assert not heard(provider, CandidateOffer)
            assert not heard(consumer, CandidateAnswer)

    run(main())


@pytest.mark.parametrize("who", ["nobody", "a stranger", "a member"])
def test_required_ends_both_directions_unless_a_member_left(
    pki: PkiFixture, tmp_path: Path, who: str
) -> None:
    async def main() -> None:
        settings = EdgeSettings(region="local", p2p_deadline=0.5)
        rules = RULES.format(mode="required")
        async with relay(pki, tmp_path, rules=rules, settings=settings) as running:
            _, consumer, mine, theirs = await spliced(running, pki)
            mine.stream.write(b"hello")
            await eventually(lambda: bytes(theirs.data) == b"hello")
            if who == "a stranger":
                stranger = running.agent(pki, leaf_of(pki, tmp_path, "acme", 99))
                await stranger.connect(running.address)
                say(stranger, MigrateToP2P(7))
                await eventually(lambda: running.counters.get("migrate_refused") == 1)
            elif who == "a member":
                say(consumer, MigrateToP2P(7, selected=HERE))
                await asyncio.sleep(0.8)
                assert mine.reset_code is None
                mine.stream.write(b" again")
                await eventually(lambda: bytes(theirs.data) == b"hello again")
                return
            await eventually(lambda: mine.reset_code is not None and theirs.reset_code is not None)
            assert not mine.eof
            assert not theirs.eof
            assert running.counters["p2p_required_missed"] == 1

    run(main())


def test_agents_that_left_get_their_stream_credit_back(pki: PkiFixture, tmp_path: Path) -> None:
    """As agents of the reference leave: STOP_SENDING on the old stream, and no FIN ever."""

    async def main() -> None:
        async with relay(pki, tmp_path, rules=RULES.format(mode="allowed")) as running:
            _, consumer, mine, theirs = await spliced(running, pki)
            say(consumer, MigrateToP2P(7, selected=HERE))
            meters = running.edge.door.meters.counters
            await eventually(lambda: meters["stream_migrated_p2p_total"] == 1)
            mine.stream.stop_sending(0)
            await asyncio.sleep(0.1)
            assert running.streams() == 1
            theirs.stream.stop_sending(0)
            await eventually(lambda: running.streams() == 0)
            assert not mine.eof
            assert not theirs.eof
            ended = running.edge.door.meters.families["streams_ended_total"]
            assert +Counter(ended) == {"migrated": 1}

    run(main())


def test_a_path_that_one_agent_left_still_carries_what_it_sent(
    pki: PkiFixture, tmp_path: Path
) -> None:
    """Its STOP_SENDING concerns its own path: the other agent hears nothing of it."""

    async def main() -> None:
        async with relay(pki, tmp_path, rules=RULES.format(mode="allowed")) as running:
            provider, consumer, mine, theirs = await spliced(running, pki)
            say(consumer, MigrateToP2P(7, selected=HERE))
            mine.stream.stop_sending(0)
            await asyncio.sleep(0.1)
            mine.stream.write(b"late")
            theirs.stream.write(b"for nobody")
            await eventually(lambda: bytes(theirs.data) == b"late")
            assert theirs.stopped_code is theirs.reset_code is None
            assert not theirs.eof
            theirs.stream.abort(0)
            await eventually(lambda: running.streams() == 0)
            assert provider.closed is consumer.closed is None

    run(main())


@pytest.mark.parametrize("half", ["reading", "both"])
def test_a_path_left_without_a_word_is_waited_for(
    pki: PkiFixture, tmp_path: Path, half: str
) -> None:
    """MIGRATE_TO_P2P travels on another stream, and may come later."""

    async def main() -> None:
        settings = EdgeSettings(region="local", resume_window=0.6, hold=0.6)
        rules = RULES.format(mode="allowed")
        async with relay(pki, tmp_path, rules=rules, settings=settings) as running:
            _, consumer, mine, theirs = await spliced(running, pki)
            if half == "reading":
                mine.stream.stop_sending(0)
            else:
                mine.stream.abort(0)
            await asyncio.sleep(0.2)
            assert theirs.stopped_code is theirs.reset_code is None
            # Nobody comes, and nobody says why: the other agent is told.
            await eventually(lambda: theirs.stopped_code or theirs.reset_code)
            assert theirs.stopped_code != 0
            assert consumer.closed is None

    run(main())


def test_where_nobody_may_leave_unwanted_bytes_are_refused_at_once(
    pki: PkiFixture, tmp_path: Path
) -> None:
    async def main() -> None:
        async with relay(pki, tmp_path, rules=RULES.format(mode="forbidden")) as running:
            _, _, mine, theirs = await spliced(running, pki)
            mine.stream.stop_sending(0)
            await eventually(lambda: theirs.stopped_code == ResetCode.UNWANTED)
            mine.stream.write(b"still mine")
            await eventually(lambda: bytes(theirs.data) == b"still mine")

    run(main())
