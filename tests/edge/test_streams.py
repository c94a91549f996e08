"""Streams through the door, as agents see them."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from actors.edge.settings import EdgeSettings
from actors.runtime import ActorRef, ChildSpec
from actors.transport.quic import QuicSettings
from tests.conftest import PkiFixture, eventually, run
from tests.edge.rig import Incoming, RawAgent, Relay, relay
from wire.orp.close_codes import ResetCode
from wire.orp.messages import OpenStream, StreamAccept, StreamReject, StreamResume


async def _pair(running: Relay, pki: PkiFixture) -> tuple[RawAgent, RawAgent]:
    provider = running.agent(pki, pki.provider)
    consumer = running.agent(pki, pki.consumer)
    await provider.connect(running.address, "svc")
    await consumer.connect(running.address)
    return provider, consumer


def test_bytes_pipelined_behind_open_stream_arrive_after_accept(
    pki: PkiFixture, tmp_path: Path
) -> None:
    async def main() -> None:
        async with relay(pki, tmp_path) as running:
            provider, consumer = await _pair(running, pki)
            assert provider.registered == ["acme/svc"]
            mine = consumer.open(OpenStream("svc", "", 7).encode() + b"early")
            theirs, message = await provider.next_incoming(1)
            assert message.source_agent_uri == consumer.uri
            assert message.stream_id == 7
            assert not theirs.data
            theirs.stream.write(StreamAccept().encode() + b"hello")
            await eventually(lambda: bytes(theirs.data) == b"early")
            await eventually(lambda: bytes(mine.data) == b"hello")
            await eventually(lambda: consumer.ready_streams == [7] == provider.ready_streams)
            # Half-close both ways, one after the other.
            mine.stream.write(b" and late")
            mine.stream.write_eof()
            await eventually(lambda: theirs.eof)
            assert bytes(theirs.data) == b"early and late"
            theirs.stream.write(b", goodbye")
            theirs.stream.write_eof()
            await eventually(lambda: mine.eof)
            assert bytes(mine.data) == b"hello, goodbye"
            await eventually(lambda: running.streams() == 0)

    run(main())


def test_stream_id_zero_is_legal_and_gets_no_stream_ready(pki: PkiFixture, tmp_path: Path) -> None:
    async def main() -> None:
        async with relay(pki, tmp_path) as running:
            provider, consumer = await _pair(running, pki)
            mine = consumer.open(OpenStream("svc").encode() + b"ping")
            theirs, _ = await provider.next_incoming(1)
            theirs.stream.write(StreamAccept().encode() + b"pong")
            await eventually(lambda: bytes(mine.data) == b"pong")
            assert consumer.ready_streams == []

    run(main())


def test_rejects_have_the_exact_code_and_reason_and_return_stream_credit(
    pki: PkiFixture, tmp_path: Path
) -> None:
    async def main() -> None:
        settings = EdgeSettings(region="local", accept_deadline=0.3)
        quic = QuicSettings(max_streams=16)
        async with relay(pki, tmp_path, settings=settings, quic=quic) as running:
            provider, consumer = await _pair(running, pki)
            for number in range(200):  # many times the advertised limit
                await eventually(lambda: consumer.connection.statistics().streams < 12)
                mine = consumer.open(OpenStream("nope", "", number + 1000).encode())
                answer = await mine.first_frame()
                assert answer == StreamReject(404, "service not found")
                await eventually(lambda mine=mine: mine.eof)  # type: ignore[misc]
                mine.stream.write_eof()
            mine = consumer.open(OpenStream("svc", "", 99).encode())
            theirs, _ = await provider.next_incoming(1)
            theirs.stream.write(StreamReject(404, "no handler").encode())
            theirs.stream.write_eof()
            assert await mine.first_frame() == StreamReject(503, "provider rejected: no handler")
            mine = consumer.open(OpenStream("svc", "", 100).encode())
            await provider.next_incoming(2)  # and never answers
            assert await mine.first_frame() == StreamReject(503, "provider rejected")
            await eventually(lambda: running.streams() == 0)
            assert running.counters["reject_404"] == 200

    run(main())


def test_both_policy_checks_must_allow(pki: PkiFixture, tmp_path: Path) -> None:
    caller_only = (
        '[[rule]]\nid = "c"\ntenant = "acme"\ncaller = "*"\ntarget = "svc"\ndecision = "allow"\n'
    )

    async def main() -> None:
        async with relay(pki, tmp_path, rules=caller_only) as running:
            _, consumer = await _pair(running, pki)
            mine = consumer.open(OpenStream("other", "", 1).encode())
            assert await mine.first_frame() == StreamReject(403, "denied: no matching rule")
            mine = consumer.open(OpenStream("svc", "", 2).encode())
            assert await mine.first_frame() == StreamReject(
                403, "denied (callee): no matching rule"
            )

    run(main())


def test_a_live_stream_id_of_another_pair_is_a_collision(pki: PkiFixture, tmp_path: Path) -> None:
    async def main() -> None:
        async with relay(pki, tmp_path) as running:
            provider, consumer = await _pair(running, pki)
            mine = consumer.open(OpenStream("svc", "", 5).encode() + b"x")
            theirs, _ = await provider.next_incoming(1)
            theirs.stream.write(StreamAccept().encode())
            await eventually(lambda: bytes(theirs.data) == b"x")
            again = consumer.open(OpenStream("svc", "", 5).encode())
            assert await again.first_frame() == StreamReject(409, "stream id collision")
            mine.stream.write(b"y")
            await eventually(lambda: bytes(theirs.data) == b"xy")

    run(main())


def test_a_reset_resets_both_halves_of_the_other_side_and_is_never_a_fin(
    pki: PkiFixture, tmp_path: Path
) -> None:
    async def main() -> None:
        async with relay(pki, tmp_path) as running:
            provider, consumer = await _pair(running, pki)
            mine = consumer.open(OpenStream("svc", "", 5).encode() + b"x")
            theirs, _ = await provider.next_incoming(1)
            theirs.stream.write(StreamAccept().encode())
            await eventually(lambda: consumer.ready_streams == [5])
            mine.stream.reset(3)
            await eventually(lambda: theirs.reset_code == ResetCode.SOURCE_FAILED)
            assert not theirs.eof
            await eventually(lambda: running.streams() == 0)

    run(main())


def test_killing_one_pair_resets_it_and_leaves_its_sibling_alone(
    pki: PkiFixture, tmp_path: Path
) -> None:
    async def main() -> None:
        async with relay(pki, tmp_path) as running:
            provider, consumer = await _pair(running, pki)
            victim = consumer.open(OpenStream("svc", "", 1).encode())
            one, _ = await provider.next_incoming(1)
            one.stream.write(StreamAccept().encode())
            await eventually(lambda: 1 in consumer.ready_streams)
            path = running.only("/edge/streams")
            other = consumer.open(OpenStream("svc", "", 2).encode())
            two, _ = await provider.next_incoming(2)
            two.stream.write(StreamAccept().encode())
            await eventually(lambda: 2 in consumer.ready_streams)
            running.kill(path)
            await eventually(lambda: victim.reset_code == ResetCode.RELAY_FAULT)
            await eventually(lambda: one.reset_code == ResetCode.RELAY_FAULT)
            assert not victim.eof
            other.stream.write(b"still here")
            await eventually(lambda: bytes(two.data) == b"still here")

    run(main())


def test_control_actors_and_listener_die_without_hurting_a_stream(
    pki: PkiFixture, tmp_path: Path
) -> None:
    async def main() -> None:
        async with relay(pki, tmp_path) as running:
            provider, consumer = await _pair(running, pki)
            mine = consumer.open(OpenStream("svc", "", 1).encode())
            theirs, _ = await provider.next_incoming(1)
            theirs.stream.write(StreamAccept().encode())
            await eventually(lambda: 1 in consumer.ready_streams)
            sent = b""
            for place in (
                "/edge/listeners/quic",
                "/control/audit",
                "/control/policy",
                "/control/registry",
                "/control/store",
                "/edge/listeners",
                "/control",
            ):
                running.kill(place)
                chunk = place.encode()
                mine.stream.write(chunk)
                sent += chunk
                await eventually(lambda sent=sent: bytes(theirs.data) == sent)  # type: ignore[misc]
            # And new streams work, because the agents announced themselves again.
            fresh = consumer.open(OpenStream("svc", "", 2).encode() + b"new")
            again, _ = await provider.next_incoming(2)
            again.stream.write(StreamAccept().encode() + b"ok")
            await eventually(lambda: bytes(fresh.data) == b"ok")
            assert provider.closed is None
            assert consumer.closed is None

    run(main(), timeout=30)


def test_a_stalled_reader_bounds_what_the_relay_holds(pki: PkiFixture, tmp_path: Path) -> None:
    window = 64 * 1024

    async def main() -> None:
        quic = QuicSettings(stream_window=window, connection_window=1 << 20)
        async with relay(pki, tmp_path, quic=quic) as running:
            provider, consumer = await _pair(running, pki)
            mine = consumer.open(OpenStream("svc", "", 1).encode())
            theirs, _ = await provider.next_incoming(1)
            theirs.stream.write(StreamAccept().encode())
            await eventually(lambda: 1 in consumer.ready_streams)
            theirs.stream.pause()  # the provider stops reading
            total = 3 << 20
            payload = bytes(range(256)) * (total // 256)
            sent = 0

            def push(_: int = 0) -> None:
                nonlocal sent
                while sent < total and mine.stream.room > 0:
                    mine.stream.write(payload[sent : sent + 16384])
                    sent += 16384
                if sent >= total and not mine.stream.write_closed:
                    mine.stream.write_eof()

            mine.stream.on_drain = push
            push()
            cell = running.system.find(running.only("/edge/streams"))
            assert cell is not None

            def held() -> int:
                assert cell.actor is not None
                described = cell.actor.describe()
                value = described["held_for_provider"]
                assert isinstance(value, int)
                return value

            await eventually(lambda: held() > 0)
            # A sibling stream of the same connections keeps working meanwhile.
            other = consumer.open(OpenStream("svc", "", 2).encode() + b"sibling")
            second, _ = await provider.next_incoming(2)
            second.stream.write(StreamAccept().encode())
            await eventually(lambda: bytes(second.data) == b"sibling")
            assert held() <= window
            assert not other.eof
            theirs.stream.start()
            await eventually(lambda: theirs.eof, timeout=30)
            assert bytes(theirs.data) == payload

    run(main(), timeout=60)


def test_a_stream_reset_at_the_very_moment_of_the_splice_ends_on_both_sides(
    pki: PkiFixture, tmp_path: Path
) -> None:
    async def main() -> None:
        async with relay(pki, tmp_path) as running:
            provider, consumer = await _pair(running, pki)
            for number in range(1, 41):
                mine = consumer.open(OpenStream("svc", "", number).encode())
                theirs, _ = await provider.next_incoming(number)
                theirs.stream.write(StreamAccept().encode())
                if number % 4:  # both orders, and after a few turns of the loop
                    for _ in range(number % 4 - 1):
                        await asyncio.sleep(0)
                    mine.stream.abort(5)
                    await eventually(lambda theirs=theirs: theirs.reset_code is not None)  # type: ignore[misc]
                else:
                    theirs.stream.reset(5)
                    await eventually(lambda mine=mine: mine.reset_code is not None or mine.eof)  # type: ignore[misc]
            await eventually(lambda: running.streams() == 0)

    run(main(), timeout=60)


def test_an_asker_that_died_leaves_no_stream_behind(pki: PkiFixture, tmp_path: Path) -> None:
    async def main() -> None:
        async with relay(pki, tmp_path) as running:
            provider, consumer = await _pair(running, pki)
            for number in range(1, 31):
                consumer.open(OpenStream("svc", "", number).encode())
                await eventually(lambda: running.streams() > 0)
                for _ in range(number % 7):
                    await asyncio.sleep(0)
                running.kill(running.only("/edge/streams"))
                await eventually(lambda: running.streams() == 0)
            for agent in (provider, consumer):
                await eventually(lambda agent=agent: agent.connection.statistics().streams == 1)  # type: ignore[misc]

    run(main(), timeout=60)


@pytest.mark.parametrize("place", ["/edge/streams", "/edge/halves"])
def test_an_owner_that_dies_before_it_ran_leaves_no_stream_without_one(
    pki: PkiFixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    async def main() -> None:
        async with relay(pki, tmp_path) as running:
            _, consumer = await _pair(running, pki)
            start_child = running.system.start_child

            def still_born(supervisor: ActorRef, spec: ChildSpec) -> ActorRef:
                child = start_child(supervisor, spec)
                if supervisor.path == place:
                    running.system.kill(child, initiator="test")
                return child

            monkeypatch.setattr(running.system, "start_child", still_born)
            first = OpenStream("svc", "", 5) if place == "/edge/streams" else StreamResume(5, 0, 0)
            streams = [consumer.open(first.encode()) for _ in range(20)]
            for stream in streams:
                await eventually(lambda s=stream: s.eof or s.reset_code is not None)  # type: ignore[misc]
            await eventually(lambda: consumer.connection.statistics().streams <= 21)

    run(main())


def test_twenty_streams_of_one_connection_at_once(pki: PkiFixture, tmp_path: Path) -> None:
    async def main() -> None:
        async with relay(pki, tmp_path) as running:
            provider, consumer = await _pair(running, pki)
            opened = {
                number: consumer.open(OpenStream("svc", "", number).encode())
                for number in range(1, 21)
            }
            there: dict[int, Incoming] = {}
            for count in range(1, 21):
                theirs, message = await provider.next_incoming(count)
                theirs.stream.write(StreamAccept().encode())
                there[message.stream_id] = theirs
            await eventually(lambda: len(consumer.ready_streams) == 20)
            for number, mine in opened.items():
                mine.stream.write(b"question %d" % number)
                there[number].stream.write(b"answer %d" % number)
            await eventually(
                lambda: all(
                    bytes(opened[n].data) == b"answer %d" % n
                    and bytes(there[n].data) == b"question %d" % n
                    for n in opened
                )
            )

    run(main())
