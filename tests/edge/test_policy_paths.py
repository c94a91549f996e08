"""No two agents are joined without a decision of policy, on any path that could join them.

One test for each path: opened, opened over two relays, forwarded, returned to a live pair, returned
without one at one relay and at two, with the service known and unknown; each with a policy that
denies, or with p2p forbidden, and with agents that are not of the stream.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from actors.control.operator_messages import ReloadPolicy
from actors.control.tree import control_plane
from actors.edge.forward.settings import ForwardSettings
from actors.edge.settings import EdgeSettings
from tests.conftest import PkiFixture, eventually, run
from tests.edge.forward_rig import FORWARD_ALL
from tests.edge.relay_rig import relays
from tests.edge.rig import ALLOW_ALL, Incoming, RawAgent, Relay, leaf_of, relay
from tests.edge.test_promotion import HERE, heard, say
from wire.orp.close_codes import ResetCode
from wire.orp.messages import (
    AllocGranted,
    CandidateAnswer,
    CandidateOffer,
    IncomingStream,
    MigrateToP2P,
    MigrateToRelay,
    ObservedAddrResp,
    OpenStream,
    StreamAccept,
    StreamReady,
    StreamReject,
    StreamResume,
    StreamTerms,
)

DENY_ALL = ALLOW_ALL.replace('"allow"', '"deny"')
FORBIDDEN = ALLOW_ALL + 'p2p_mode = "forbidden"\n'
#: What the callee's check needs, and nothing for any service.
CALLEES_ONLY = ALLOW_ALL.replace('target = "*"', 'target = "outrelay://*"')
#: Only the service of one name, by anybody.
WEB_ONLY = CALLEES_ONLY + ALLOW_ALL.replace('"all"', '"web"').replace(
    'target = "*"', 'target = "web"'
)
QUICK = EdgeSettings(region="local", resume_window=1.5)


async def enforce(running: Relay, directory: Path, rules: str) -> None:
    """This relay has these rules from now on."""
    file = directory / f"{running.edge.door.relays.settings.relay_id or 'r'}-new.toml"
    file.write_text(rules)
    await control_plane(running.system).policy.ask(ReloadPolicy((file,)), timeout=5)


async def apart(*halves: Incoming) -> None:
    """Each of them is refused, and no byte came through."""
    for half in halves:
        if not half.stream.write_closed:
            half.stream.write(b"secret")
    await eventually(lambda: all(half.reset_code is not None for half in halves))
    assert [bytes(half.data) for half in halves] == [b""] * len(halves)


async def joined(mine: Incoming, theirs: Incoming) -> None:
    """They are the two ends of one stream; the echoes are taken off."""
    for half in (mine, theirs):
        assert isinstance(await half.first_frame(), StreamResume)
    mine.stream.write(b"question")
    theirs.stream.write(b"answer")
    await eventually(lambda: bytes(theirs.data) == b"question")
    await eventually(lambda: bytes(mine.data) == b"answer")


async def spliced(consumer: RawAgent, provider: RawAgent, stream_id: int = 7) -> list[Incoming]:
    mine = consumer.open(OpenStream("web", "", stream_id).encode())
    theirs, message = await provider.next_incoming(len(provider.incoming) + 1)
    assert isinstance(message, IncomingStream)
    theirs.stream.write(StreamAccept().encode())
    await eventually(lambda: stream_id in consumer.ready_streams)
    return [mine, theirs]


async def both(
    pki: PkiFixture, consumer_at: Relay, provider_at: Relay
) -> tuple[RawAgent, RawAgent]:
    """A consumer, and a provider of `web`."""
    provider = provider_at.agent(pki, pki.provider)
    await provider.connect(provider_at.address, "web")
    consumer = consumer_at.agent(pki, pki.consumer)
    await consumer.connect(consumer_at.address)
    return consumer, provider


def resume(agent: RawAgent, stream_id: int = 7) -> Incoming:
    return agent.open(StreamResume(stream_id, 0, 0).encode())


# Opened.


@pytest.mark.parametrize("strict", ["ingress", "egress", "both"])
def test_open_over_two_relays_is_denied_by_either(
    pki: PkiFixture, tmp_path: Path, strict: str
) -> None:
    async def main() -> None:
        async with relays(pki, tmp_path, "r1", "r2") as (first, second):
            consumer, provider = await both(pki, first, second)
            if strict != "egress":
                await enforce(first, tmp_path, DENY_ALL)
            if strict != "ingress":
                # The provider may be reached, but not by the service the consumer asked for.
                await enforce(second, tmp_path, CALLEES_ONLY)
            mine = consumer.open(OpenStream("web", "", 7).encode())
            answer = await mine.first_frame()
            assert isinstance(answer, StreamReject)
            assert (answer.code, answer.reason[:7]) == (403, "denied:")
            assert not provider.incoming

    run(main())


def test_a_forward_only_service_is_not_spliced_for_another_relay(
    pki: PkiFixture, tmp_path: Path
) -> None:
    async def main() -> None:
        async with relays(pki, tmp_path, "r1", "r2") as (first, second):
            consumer, provider = await both(pki, first, second)
            await enforce(second, tmp_path, FORWARD_ALL)
            mine = consumer.open(OpenStream("web", "", 7).encode())
            answer = await mine.first_frame()
            assert answer == StreamReject(502, "forward plane unavailable")
            assert not provider.incoming

    run(main())


# Came back, and nobody knows what it was opened for.


@pytest.mark.parametrize(
    "rules", [DENY_ALL, CALLEES_ONLY, FORWARD_ALL], ids=["deny", "callee", "forward"]
)
@pytest.mark.parametrize("places", ["one relay", "two relays", "two relays, other way"])
@pytest.mark.parametrize("how", ["resume", "migrate"])
def test_unknown_halves_are_not_joined_without_a_decision(
    pki: PkiFixture, tmp_path: Path, places: str, rules: str, how: str
) -> None:
    async def main() -> None:
        async with relays(pki, tmp_path, "r1", "r2", rules=rules, settings=QUICK) as (one, two):
            places_of = {
                "one relay": (one, one),
                "two relays": (one, two),
                "two relays, other way": (two, one),
            }
            consumer, provider = await both(pki, *places_of[places])
            back = (
                MigrateToRelay(99, 0, 0, "peer_close") if how == "migrate" else StreamResume(99)
            ).encode()
            # One of the two must ask the other relay, which only a STREAM_RESUME does.
            asks = provider.open(StreamResume(99).encode())
            await apart(consumer.open(back), asks)
            assert one.streams() == two.streams() == 0

    run(main())


@pytest.mark.parametrize("places", ["one relay", "two relays", "two relays, other way"])
@pytest.mark.parametrize("mode", ["allowed", "forbidden"])
def test_unknown_halves_are_joined_by_what_one_provides(
    pki: PkiFixture, tmp_path: Path, places: str, mode: str
) -> None:
    """And their p2p mode is that of its rules, at both relays."""

    async def main() -> None:
        rules = ALLOW_ALL if mode == "allowed" else FORBIDDEN
        async with relays(pki, tmp_path, "r1", "r2", rules=rules, settings=QUICK) as (one, two):
            places_of = {
                "one relay": (one, one),
                "two relays": (one, two),
                "two relays, other way": (two, one),
            }
            consumer, provider = await both(pki, *places_of[places])
            await joined(resume(consumer), resume(provider))
            await talk(consumer, provider, 7, places_of[places], forbidden=mode == "forbidden")

    run(main())


async def talk(
    consumer: RawAgent,
    provider: RawAgent,
    stream_id: int,
    at: tuple[Relay, Relay],
    *,
    forbidden: bool,
) -> None:
    """Candidates and the promotion pass, or are kept back and counted."""
    offer, answer = CandidateOffer(stream_id, (HERE,)), CandidateAnswer(stream_id, (HERE,))
    if forbidden:
        before = sum(one.counters.get("candidates_forbidden", 0) for one in set(at))
        say(consumer, offer)
        say(provider, answer)
        say(consumer, MigrateToP2P(stream_id))
        await eventually(
            lambda: (
                sum(one.counters.get("candidates_forbidden", 0) for one in set(at)) == before + 2
            )
        )
        await eventually(lambda: at[0].counters.get("migrate_refused", 0) >= 1)
        assert not heard(provider, CandidateOffer)
        assert not heard(consumer, CandidateAnswer)
    else:
        say(consumer, offer)
        await eventually(lambda: heard(provider, CandidateOffer) == [offer])
        say(provider, answer)
        await eventually(lambda: heard(consumer, CandidateAnswer) == [answer])


@pytest.mark.parametrize("service", ["web", "other"])
def test_only_what_the_agent_provides_counts(pki: PkiFixture, tmp_path: Path, service: str) -> None:
    async def main() -> None:
        async with relays(pki, tmp_path, "r1", "r2", rules=WEB_ONLY, settings=QUICK) as relays_:
            provider = relays_[1].agent(pki, pki.provider)
            await provider.connect(relays_[1].address, service)
            consumer = relays_[0].agent(pki, pki.consumer)
            await consumer.connect(relays_[0].address)
            halves = resume(consumer), resume(provider)
            if service == "web":
                await joined(*halves)
            else:
                await apart(*halves)

    run(main())


def test_the_strictest_mode_that_it_could_be(pki: PkiFixture, tmp_path: Path) -> None:
    """Of two services one forbids to leave the relay: nobody knows which one it was."""
    rules = WEB_ONLY + FORBIDDEN.replace('"all"', '"api"').replace('target = "*"', 'target = "api"')

    async def main() -> None:
        async with relay(pki, tmp_path, rules=rules, settings=QUICK) as running:
            provider = running.agent(pki, pki.provider)
            await provider.connect(running.address, "web", "api")
            consumer = running.agent(pki, pki.consumer)
            await consumer.connect(running.address)
            await joined(resume(consumer), resume(provider))
            await talk(consumer, provider, 7, (running, running), forbidden=True)

    run(main())


# Came back to what is known.


async def _change_at_once(running: Relay, directory: Path) -> None:
    await enforce(running, directory, DENY_ALL)


async def _nothing(running: Relay, directory: Path) -> None:
    await asyncio.sleep(2.2)


@pytest.mark.parametrize("change", [_change_at_once, _nothing], ids=["removed", "expired"])
@pytest.mark.parametrize("alive", [True, False], ids=["its pair lives", "its pair died"])
def test_a_stream_comes_back_only_while_a_rule_allows_it(
    pki: PkiFixture,
    tmp_path: Path,
    change: Callable[[Relay, Path], Awaitable[None]],
    alive: bool,
) -> None:
    rules = ALLOW_ALL
    if change is _nothing:
        until = datetime.now(UTC) + timedelta(seconds=2)
        rules += f"expires = {until.isoformat()}\n"

    async def main() -> None:
        async with relay(pki, tmp_path, rules=rules) as running:
            consumer, provider = await both(pki, running, running)
            mine, theirs = await spliced(consumer, provider)
            if not alive:
                running.kill(running.only("/edge/streams"))
                await eventually(lambda: mine.reset_code is not None)
            await change(running, tmp_path)
            halves = [resume(consumer)] + ([] if alive else [resume(provider)])
            await eventually(lambda: halves[0].reset_code == ResetCode.REJECTED)
            await apart(*halves)
            # The other agent is not kept waiting.
            await eventually(lambda: theirs.reset_code is not None)
            await eventually(lambda: running.streams() == 0)

    run(main())


def test_a_returned_stream_gets_the_p2p_mode_of_today(pki: PkiFixture, tmp_path: Path) -> None:
    async def main() -> None:
        async with relay(pki, tmp_path) as running:
            consumer, provider = await both(pki, running, running)
            await spliced(consumer, provider)
            await enforce(running, tmp_path, FORBIDDEN)
            here = resume(consumer)
            assert isinstance(await here.first_frame(), StreamResume)
            await talk(consumer, provider, 7, (running, running), forbidden=True)

    run(main())


def test_forbidden_holds_over_two_relays_whatever_the_other_one_says(
    pki: PkiFixture, tmp_path: Path
) -> None:
    """The rule of the caller is known at the relay of the callee, too."""
    rules = CALLEES_ONLY + FORBIDDEN.replace('"all"', '"web"').replace(
        'target = "*"', 'target = "web"'
    )

    async def main() -> None:
        async with relays(pki, tmp_path, "r1", "r2", rules=rules) as (first, second):
            consumer, provider = await both(pki, first, second)
            await spliced(consumer, provider)
            await enforce(first, tmp_path, ALLOW_ALL)
            await talk(consumer, provider, 7, (first, second), forbidden=True)

    run(main())


# Strangers that know a stream's id.


@pytest.mark.parametrize("alive", [True, False], ids=["its pair lives", "its pair died"])
def test_a_stranger_does_not_get_the_stream(pki: PkiFixture, tmp_path: Path, alive: bool) -> None:
    async def main() -> None:
        async with relay(pki, tmp_path) as running:
            stranger = running.agent(pki, leaf_of(pki, tmp_path, "acme", 99))
            await stranger.connect(running.address, "web2")
            consumer, provider = await both(pki, running, running)
            mine, theirs = await spliced(consumer, provider)
            if alive:
                await apart(resume(stranger))
                mine.stream.write(b"ours")
                await eventually(lambda: bytes(theirs.data) == b"ours")
            else:
                running.kill(running.only("/edge/streams"))
                await eventually(lambda: theirs.reset_code is not None)
                intruder = resume(stranger)
                await joined(resume(consumer), resume(provider))
                await apart(intruder)

    run(main())


def test_a_stranger_at_another_relay_keeps_nobody_from_the_stream(
    pki: PkiFixture, tmp_path: Path
) -> None:
    """It waits where the agent will come back, with an id that only the other relay knows."""

    async def main() -> None:
        async with relays(pki, tmp_path, "r1", "r2") as (first, second):
            consumer, provider = await both(pki, second, second)
            _, theirs = await spliced(consumer, provider)
            stranger = first.agent(pki, leaf_of(pki, tmp_path, "acme", 99))
            await stranger.connect(first.address)
            intruder = resume(stranger)
            await eventually(lambda: first.counters.get("resume_asked") == 1)
            consumer.connection.close(0x10F, "lost")
            fresh = first.agent(pki, pki.consumer)
            await eventually(lambda: second.counters.get("offers_answered", 0) >= 0)
            await eventually(lambda: second.counters.get("halves_offered", 0) >= 1)
            await fresh.connect(first.address)
            here = resume(fresh)
            assert isinstance(await here.first_frame(), StreamResume)
            here.stream.write(b"I am back")
            await eventually(lambda: bytes(theirs.data) == b"I am back")
            assert not intruder.data

    run(main())


@pytest.mark.parametrize("places", ["one relay", "two relays", "two relays, other way"])
def test_a_stranger_policy_keeps_out_keeps_nobody_from_a_stream_nobody_knows(
    pki: PkiFixture, tmp_path: Path, places: str
) -> None:
    """It came first, with the right id, to a relay that lost its memory."""
    outsider = '[[rule]]\nid = "out"\ntenant = "acme"\ncaller = "{uri}"\ntarget = "*"\n' + (
        'decision = "deny"\n'
    )
    leaf = leaf_of(pki, tmp_path, "acme", 99)
    rules = outsider.format(uri=leaf.identity) + ALLOW_ALL

    async def main() -> None:
        async with relays(pki, tmp_path, "r1", "r2", rules=rules, settings=QUICK) as (one, two):
            places_of = {
                "one relay": (one, one),
                "two relays": (one, two),
                "two relays, other way": (two, one),
            }
            consumer, provider = await both(pki, *places_of[places])
            running = places_of[places][0]
            stranger = running.agent(pki, leaf)
            await stranger.connect(running.address)
            intruder = resume(stranger)
            await eventually(lambda: running.counters.get("resume_asked") == 1)
            await joined(resume(consumer), resume(provider))
            await apart(intruder)

    run(main())


def test_the_id_of_a_stream_that_may_come_back_cannot_be_opened(
    pki: PkiFixture, tmp_path: Path
) -> None:
    """Else whoever opens it takes the name its own agents would come back to."""

    async def main() -> None:
        async with relay(pki, tmp_path) as running:
            consumer, provider = await both(pki, running, running)
            mine, _ = await spliced(consumer, provider)
            running.kill(running.only("/edge/streams"))
            await eventually(lambda: mine.reset_code is not None)
            stranger = running.agent(pki, leaf_of(pki, tmp_path, "acme", 99))
            await stranger.connect(running.address)
            opened = stranger.open(OpenStream("web", "", 7).encode())
            assert await opened.first_frame() == StreamReject(409, "stream id collision")
            assert len(provider.incoming) == 1
            await joined(resume(consumer), resume(provider))

    run(main())


# Agents that say what a stream was opened for.


def claims(agent: RawAgent, stream_id: int, consumer: str, provider: str, service: str) -> Incoming:
    terms = StreamTerms(consumer, provider, service)
    return agent.open(StreamResume(stream_id, 0, 0, terms).encode())


@pytest.mark.parametrize("places", ["one relay", "two relays", "two relays, other way"])
@pytest.mark.parametrize("victim", ["consumer", "provider"])
def test_a_stranger_does_not_pose_as_the_other_agent(
    pki: PkiFixture, tmp_path: Path, places: str, victim: str
) -> None:
    """At relays that lost their memory, with every rule in its favour; it even claims the part."""

    async def main() -> None:
        async with relays(pki, tmp_path, "r1", "r2", settings=QUICK) as (one, two):
            places_of = {
                "one relay": (one, one),
                "two relays": (one, two),
                "two relays, other way": (two, one),
            }
            consumer, provider = await both(pki, *places_of[places])
            at = places_of[places][0]
            stranger = at.agent(pki, leaf_of(pki, tmp_path, "acme", 99))
            await stranger.connect(at.address, "web")
            if victim == "consumer":
                intruder = claims(stranger, 7, consumer.uri, "", "web")
            else:
                intruder = claims(stranger, 7, "", provider.uri, "web")
            await eventually(lambda: at.counters.get("resume_asked") == 1)
            mine = claims(consumer, 7, "", provider.uri, "web")
            theirs = claims(provider, 7, consumer.uri, "", "web")
            await joined(mine, theirs)
            await apart(intruder)

    run(main())


def test_a_claim_opens_nothing(pki: PkiFixture, tmp_path: Path) -> None:
    """Two agents that name a service which is allowed, but not theirs."""

    async def main() -> None:
        async with relay(pki, tmp_path, rules=WEB_ONLY, settings=QUICK) as running:
            provider = running.agent(pki, pki.provider)
            await provider.connect(running.address, "other")
            consumer = running.agent(pki, pki.consumer)
            await consumer.connect(running.address)
            await apart(
                claims(consumer, 7, "", provider.uri, "web"),
                claims(provider, 7, consumer.uri, "", "web"),
            )

    run(main())


def test_a_claim_says_which_service_it_was(pki: PkiFixture, tmp_path: Path) -> None:
    """Of two, one of which forbids to leave the relay: no guess is needed."""
    rules = WEB_ONLY + FORBIDDEN.replace('"all"', '"api"').replace('target = "*"', 'target = "api"')

    async def main() -> None:
        async with relay(pki, tmp_path, rules=rules, settings=QUICK) as running:
            provider = running.agent(pki, pki.provider)
            await provider.connect(running.address, "web", "api")
            consumer = running.agent(pki, pki.consumer)
            await consumer.connect(running.address)
            for stream_id, service in ((7, "web"), (8, "api")):
                await joined(
                    claims(consumer, stream_id, "", provider.uri, service),
                    claims(provider, stream_id, consumer.uri, "", service),
                )
                forbidden = service == "api"
                for agent in (consumer, provider):
                    agent.events.clear()
                at = (running, running)
                await talk(consumer, provider, stream_id, at, forbidden=forbidden)

    run(main())


# Candidates outside the life of a spliced stream.


@pytest.mark.parametrize("rules", [FORBIDDEN, FORWARD_ALL], ids=["forbidden", "forward"])
def test_candidates_do_not_travel_before_a_stream_is_spliced(
    pki: PkiFixture, tmp_path: Path, rules: str
) -> None:
    """The id is claimed by then, and both decisions were made: only the mode is not known yet."""
    settings = EdgeSettings(region="local", forward=ForwardSettings(listen=("127.0.0.1", 0)))

    async def main() -> None:
        async with relay(pki, tmp_path, rules=rules, settings=settings) as running:
            consumer, provider = await both(pki, running, running)
            consumer.open(OpenStream("web", "", 7).encode())
            theirs, _ = await provider.next_incoming(1)
            say(consumer, CandidateOffer(7, (HERE,)))
            say(provider, CandidateAnswer(7, (HERE,)))
            say(provider, MigrateToP2P(7))
            await eventually(lambda: running.counters.get("migrate_refused", 0) == 1)
            theirs.stream.write(StreamAccept().encode())
            heard_of = StreamReady if rules is FORBIDDEN else AllocGranted
            await eventually(lambda: heard(consumer, heard_of))
            # And of a stream that the forward plane carries they never do.
            say(consumer, CandidateOffer(7, (HERE,)))
            say(provider, CandidateAnswer(7, (HERE,)))
            say(consumer, MigrateToP2P(7))
            await eventually(lambda: running.counters.get("migrate_refused", 0) == 2)
            for agent in (consumer, provider):
                agent.session.query_observed_address(asyncio.get_running_loop().time())
                agent.flush()
                await eventually(lambda one=agent: heard(one, ObservedAddrResp))  # type: ignore[misc]
            assert not heard(provider, CandidateOffer)
            assert not heard(consumer, CandidateAnswer)

    run(main())
