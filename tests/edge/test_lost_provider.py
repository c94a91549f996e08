"""A provider that is lost while a stream is opened towards it is asked again, or another one."""

from __future__ import annotations

from pathlib import Path

import pytest

from actors.edge.settings import EdgeSettings
from actors.edge.views import service_rows
from tests.conftest import PkiFixture, eventually, run
from tests.edge.rig import Incoming, RawAgent, Relay, leaf_of, relay
from wire.orp import reject
from wire.orp.messages import OpenStream, StreamAccept

#: Who offers the service next.
NEXT = ("the same agent", "another agent")


async def _asked(running: Relay, pki: PkiFixture) -> tuple[RawAgent, Incoming]:
    """A provider that was asked for stream 7, and the consumer's end of it."""
    provider, consumer = running.agent(pki, pki.provider), running.agent(pki, pki.consumer)
    await provider.connect(running.address, "web")
    await consumer.connect(running.address)
    opened = consumer.open(OpenStream("web", "", 7).encode() + b"early")
    await provider.next_incoming(1)
    return provider, opened


def _lose(running: Relay, provider: RawAgent) -> None:
    """Its connection dies at the relay, which says no goodbye that an agent would act on."""
    running.kill(running.edge.door.connections[provider.uri].path)


@pytest.mark.parametrize("who", NEXT)
def test_the_stream_goes_to_whoever_offers_the_service_next(
    pki: PkiFixture, tmp_path: Path, who: str
) -> None:
    async def main() -> None:
        async with relay(pki, tmp_path) as running:
            provider, opened = await _asked(running, pki)
            _lose(running, provider)
            await eventually(lambda: provider.closed is not None)
            leaf = pki.provider if who == NEXT[0] else leaf_of(pki, tmp_path, "acme", 99)
            back = running.agent(pki, leaf)
            await back.connect(running.address, "web")
            theirs, message = await back.next_incoming(1)
            assert message.stream_id == 7
            theirs.stream.write(StreamAccept().encode() + b"answer")
            await eventually(lambda: opened.data.endswith(b"answer"))
            await eventually(lambda: bytes(theirs.data) == b"early")
            assert running.counters.get("reject_503", 0) == 0

    run(main(), timeout=30)


def test_it_is_lost_for_good_when_two_were_lost(pki: PkiFixture, tmp_path: Path) -> None:
    """A stream that kills whoever hears of it does it to two of them."""

    async def main() -> None:
        async with relay(pki, tmp_path) as running:
            provider, opened = await _asked(running, pki)
            _lose(running, provider)
            provider = running.agent(pki, pki.provider)
            await provider.connect(running.address, "web")
            await provider.next_incoming(1)
            _lose(running, provider)
            provider = running.agent(pki, pki.provider)
            await provider.connect(running.address, "web")
            assert await opened.first_frame() == reject.PROVIDER_REJECTED
            assert not provider.incoming

    run(main(), timeout=30)


def test_nobody_comes_back(pki: PkiFixture, tmp_path: Path) -> None:
    async def main() -> None:
        settings = EdgeSettings(region="local", incoming_deadline=0.2)
        async with relay(pki, tmp_path, settings=settings) as running:
            provider, opened = await _asked(running, pki)
            _lose(running, provider)
            assert await opened.first_frame() == reject.SERVICE_NOT_FOUND
            await eventually(lambda: running.streams() == 0)

    run(main(), timeout=30)


def test_a_consumer_that_left_meanwhile_has_nobody_asked(pki: PkiFixture, tmp_path: Path) -> None:
    async def main() -> None:
        async with relay(pki, tmp_path) as running:
            provider, opened = await _asked(running, pki)
            _lose(running, provider)
            opened.stream.abort(1)
            await eventually(lambda: provider.closed is not None)
            back = running.agent(pki, pki.provider)
            await back.connect(running.address, "web")
            await eventually(lambda: running.streams() == 0)
            assert not back.incoming

    run(main(), timeout=30)


def test_what_a_provider_said_last_is_kept_until_it_accepts(
    pki: PkiFixture, tmp_path: Path
) -> None:
    """`ctl explain` and `ctl services` tell it: nobody else knows whether a target answers."""

    async def main() -> None:
        async with relay(pki, tmp_path) as running:
            provider, consumer = (running.agent(pki, x) for x in (pki.provider, pki.consumer))
            await provider.connect(running.address, "web")
            await consumer.connect(running.address)

            def row() -> tuple[object, bool]:
                (one,) = service_rows(running.edge.door)
                return one["refused"], isinstance(one["refused_seconds"], float)

            assert row() == (None, False)
            refused = consumer.open(OpenStream("web", "", 1).encode())
            asked, _ = await provider.next_incoming(1)
            asked.stream.write(reject.backend_dial_failed("target refused 127.0.0.1:9").encode())
            answer = await refused.first_frame()
            assert answer == reject.provider_rejected("target refused 127.0.0.1:9")
            assert row() == ("provider rejected: target refused 127.0.0.1:9", True)
            consumer.open(OpenStream("web", "", 2).encode())
            asked, _ = await provider.next_incoming(2)
            asked.stream.write(StreamAccept().encode())
            await eventually(lambda: 2 in consumer.ready_streams)
            assert row() == (None, False)
            running.edge.door.draining = True
            late = consumer.open(OpenStream("web", "", 3).encode())
            assert await late.first_frame() == reject.relay_unavailable("it is draining")

    run(main())
