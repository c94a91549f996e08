"""Streams between agents of two relays (sheet 3.11; 6.4 X1 to X6; 7.2 inter-relay)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from actors.edge.relays.signalling import Signalling
from tests.conftest import PkiFixture, eventually
from tests.edge.relay_rig import relays
from tests.edge.rig import Incoming, RawAgent, Relay
from wire.orp.messages import (
    IncomingStream,
    OpenStream,
    StreamAccept,
    StreamCheckpoint,
    StreamReject,
)

SERVICE = "svc"


@asynccontextmanager
async def two(
    pki: PkiFixture, tmp_path: Path, **options: object
) -> AsyncIterator[tuple[Relay, Relay, RawAgent, RawAgent]]:
    """Relay r1 with a consumer, relay r2 with a provider."""
    async with relays(pki, tmp_path, "r1", "r2", **options) as (first, second):  # type: ignore[arg-type]
        provider = second.agent(pki, pki.provider)
        await provider.connect(second.address, SERVICE)
        consumer = first.agent(pki, pki.consumer)
        await consumer.connect(first.address)
        yield first, second, consumer, provider


async def spliced(
    consumer: RawAgent, provider: RawAgent, stream_id: int
) -> tuple[Incoming, Incoming]:
    """An open stream over both relays."""
    mine = consumer.open(OpenStream(SERVICE, "", stream_id).encode())
    theirs, message = await provider.next_incoming(len(provider.incoming) + 1)
    assert message == IncomingStream(SERVICE, "", consumer.uri, stream_id)
    theirs.stream.write(StreamAccept().encode())
    await eventually(lambda: stream_id in consumer.ready_streams)
    return mine, theirs


def test_bytes_cross_both_relays_both_ways(pki: PkiFixture, tmp_path: Path) -> None:
    """And both agents hear STREAM_READY at once, and FIN ends each direction (X1)."""

    async def main() -> None:
        async with two(pki, tmp_path) as (first, second, consumer, provider):
            mine, theirs = await spliced(consumer, provider, 77)
            await eventually(lambda: provider.ready_streams == [77])
            mine.stream.write(b"question")
            mine.stream.write_eof()
            await eventually(lambda: theirs.eof)
            assert bytes(theirs.data) == b"question"
            theirs.stream.write(b"answer")
            theirs.stream.write_eof()
            await eventually(lambda: mine.eof)
            assert bytes(mine.data) == b"answer"
            await eventually(lambda: first.streams() == second.streams() == 0)
            assert second.counters["streams_from_relays"] == 1

    asyncio.run(main())


def test_ten_streams_share_a_connection(pki: PkiFixture, tmp_path: Path) -> None:
    """Each with its own id, which is the consumer's (X2)."""

    async def main() -> None:
        async with two(pki, tmp_path) as (first, second, consumer, provider):
            opened = [
                consumer.open(OpenStream(SERVICE, "", number).encode()) for number in range(1, 11)
            ]
            seen = {}
            for count in range(1, 11):
                theirs, message = await provider.next_incoming(count)
                seen[message.stream_id] = theirs
                theirs.stream.write(StreamAccept().encode())
            assert set(seen) == set(range(1, 11))
            await eventually(lambda: len(consumer.ready_streams) == 10)
            for number, mine in enumerate(opened, 1):
                mine.stream.write(b"%d" % number)
                await eventually(lambda n=number: bytes(seen[n].data) == b"%d" % n)  # type: ignore[misc]
            assert first.counters["relay_connected"] == 1
            assert second.counters["relays_admitted"] == 1

    asyncio.run(main())


def test_a_reject_is_relayed_and_costs_no_other_stream(pki: PkiFixture, tmp_path: Path) -> None:
    """The real code and reason, with the connection still there (X3)."""

    async def main() -> None:
        async with two(pki, tmp_path) as (first, _, consumer, provider):
            mine, theirs = await spliced(consumer, provider, 1)
            refused = consumer.open(OpenStream(SERVICE, "", 2).encode())
            late, _ = await provider.next_incoming(2)
            late.stream.write(StreamReject(404, "no handler").encode())
            late.stream.write_eof()
            assert await refused.first_frame() == StreamReject(503, "provider rejected: no handler")
            await eventually(lambda: refused.eof)
            mine.stream.write(b"still here")
            await eventually(lambda: bytes(theirs.data) == b"still here")
            assert first.counters["relay_connected"] == 1
            assert first.counters.get("relay_lost", 0) == 0

    asyncio.run(main())


CALLEE_DENIED = """
[[rule]]
id = "services"
tenant = "acme"
caller = "*"
target = "svc"
decision = "allow"
"""


def test_the_callee_is_asked(pki: PkiFixture, tmp_path: Path) -> None:
    """A rule for the service alone is not enough (X5)."""

    async def main() -> None:
        async with two(pki, tmp_path, rules=CALLEE_DENIED) as (_, _, consumer, provider):
            mine = consumer.open(OpenStream(SERVICE, "", 5).encode())
            answer = await mine.first_frame()
            assert answer == StreamReject(403, "denied (callee): no matching rule")
            assert not provider.incoming

    asyncio.run(main())


def test_a_relay_nobody_listed_is_refused(pki: PkiFixture, tmp_path: Path) -> None:
    """Its streams are told that the provider's relay cannot be reached."""

    async def main() -> None:
        async with two(pki, tmp_path, accept=frozenset({"r9"})) as (_, second, consumer, _):
            mine = consumer.open(OpenStream(SERVICE, "", 5).encode())
            answer = await mine.first_frame()
            assert isinstance(answer, StreamReject)
            assert answer.code == 502
            await eventually(lambda: second.counters.get("relay_not_accepted", 0) >= 1)

    asyncio.run(main())


def test_a_relay_that_does_not_answer(pki: PkiFixture, tmp_path: Path) -> None:
    """502 within the dial's deadline; later streams are refused at once, and dialled again."""

    async def main() -> None:
        async with two(pki, tmp_path, dial_timeout=0.3) as (first, second, consumer, _):
            second.edge.endpoints[0].detach()  # deaf, and its registrations stay
            for number in (1, 2):
                mine = consumer.open(OpenStream(SERVICE, "", number).encode())
                assert await mine.first_frame() == StreamReject(502, "peer relay unreachable")
            assert first.counters["relay_dial_failed"] >= 1

    asyncio.run(main())


def test_checkpoints_cross_the_link(pki: PkiFixture, tmp_path: Path) -> None:
    """Both ways, verbatim, also a moment after the stream ended (X6)."""

    async def main() -> None:
        async with two(pki, tmp_path) as (first, second, consumer, provider):
            mine, theirs = await spliced(consumer, provider, 9)
            there, back = StreamCheckpoint(9, 10, 20), StreamCheckpoint(9, 30, 40)

            async def exchange() -> None:
                for sender, receiver, frame in (
                    (consumer, provider, there),
                    (provider, consumer, back),
                ):
                    receiver.events.clear()
                    sender.ctrl.write(frame.encode())
                    await eventually(lambda r=receiver, f=frame: f in r.events)  # type: ignore[misc]

            await eventually(lambda: first.system.find("/edge/relays/to-r2") is not None)
            await exchange()
            for one in (mine, theirs):
                one.stream.write_eof()
            await eventually(lambda: first.streams() == second.streams() == 0)
            await exchange()

    asyncio.run(main())


@pytest.mark.parametrize("ended", [False, True], ids=["live", "ended"])
def test_a_checkpoint_that_was_lost_with_the_link_is_said_again(
    pki: PkiFixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ended: bool
) -> None:
    """Else the other relay waits for an agent that has everything."""

    async def main() -> None:
        async with two(pki, tmp_path) as (first, second, consumer, provider):
            mine, theirs = await spliced(consumer, provider, 9)
            if ended:
                for one in (mine, theirs):
                    one.stream.write_eof()
                await eventually(lambda: first.streams() == second.streams() == 0)
            lost: list[object] = []

            def swallow(relay_id: str, frame: object) -> bool:
                lost.append(frame)
                return True

            with monkeypatch.context() as broken:
                broken.setattr(first.edge.door.relays, "tell", swallow)
                words = StreamCheckpoint(9, 10, 20)
                consumer.ctrl.write(words.encode())
                await eventually(lambda: lost)
            assert words not in provider.events
            first.kill("/edge/relays/to-r2")
            await eventually(lambda: words in provider.events)

    asyncio.run(main())


def test_a_relay_that_does_not_know_the_extension_is_not_dialled_for_it(
    pki: PkiFixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ignorant(self: Signalling, *_: object) -> None:
        self.abort()

    monkeypatch.setattr(Signalling, "accept", ignorant)

    async def main() -> None:
        async with two(pki, tmp_path) as (first, second, consumer, provider):
            mine, theirs = await spliced(consumer, provider, 9)
            for one in (mine, theirs):
                one.stream.write_eof()
            await eventually(lambda: first.streams() == second.streams() == 0)
            first.kill("/edge/relays/to-r2")
            dropped = first.counters.get("relay_frame_dropped", 0)
            consumer.ctrl.write(StreamCheckpoint(9, 10, 20).encode())
            await eventually(lambda: first.counters.get("relay_frame_dropped", 0) > dropped)
            assert first.counters["relay_connected"] == 1

    asyncio.run(main())
