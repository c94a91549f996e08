"""Agents that leak stream credit, as those of the reference do (sheet ORP 6.5 A10)."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from actors.transport.quic import QuicEndpoint, QuicSettings
from actors.transport.quic.quic_connection import QuicConnectionHandle
from tests.conftest import PkiFixture, eventually, run
from tests.edge.rig import Incoming, RawAgent, Relay, identity, relay
from wire.orp.close_codes import CloseCode
from wire.orp.messages import OpenStream, StreamAccept, StreamReject, StreamResume

#: Streams that the agent lets the relay have open; the reference: 100.
CREDIT = 20


def agent(running: Relay, pki: PkiFixture) -> RawAgent:
    """A provider with little credit."""
    settings = QuicSettings(max_streams=CREDIT, engine="aioquic")
    endpoint = QuicEndpoint(
        alpn=("orp/1",), identity=identity(pki, pki.provider), settings=settings
    )
    running.endpoints.append(endpoint)
    return RawAgent(endpoint, pki.provider.identity)


def withhold_credit(provider: RawAgent) -> None:
    """MAX_STREAMS is never said again: what a peer does that reads no stream to its end."""
    connection = provider.connection
    assert isinstance(connection, QuicConnectionHandle)
    quic: Any = connection.engine._quic  # type: ignore[attr-defined]  # the aioquic engine's
    data = quic._local_max_data
    quic._worth_announcing = lambda limit: limit is data and limit.value != limit.sent


def closed_with(provider: RawAgent) -> int | None:
    """The code of the relay's close; None while the connection lives."""
    return None if provider.closed is None else provider.closed.code


async def leak(provider: RawAgent, consumer: RawAgent, count: int) -> None:
    """Refuse streams: over at the relay, and their credit is kept."""
    withhold_credit(provider)
    for _ in range(count):
        before = len(provider.incoming)
        refused = consumer.open(OpenStream("web", "", 1000 + before).encode() + b"never read")
        theirs, _ = await provider.next_incoming(before + 1)
        theirs.stream.write(StreamReject(502, "refused").encode())
        theirs.stream.write_eof()
        await eventually(lambda refused=refused: refused.eof)  # type: ignore[misc]


def test_an_agent_whose_credit_is_used_up_by_ended_streams_gets_a_new_connection(
    pki: PkiFixture, tmp_path: Path
) -> None:
    async def main() -> None:
        async with relay(pki, tmp_path) as running:
            provider, consumer = agent(running, pki), running.agent(pki, pki.consumer)
            await provider.connect(running.address, "web")
            await consumer.connect(running.address)
            kept = consumer.open(OpenStream("web", "", 7).encode() + b"kept")
            theirs, _ = await provider.next_incoming(1)
            theirs.stream.write(StreamAccept().encode() + b"answer")
            await eventually(lambda: bytes(kept.data) == b"answer")
            await leak(provider, consumer, CREDIT - 1)
            assert closed_with(provider) is None
            # The next stream finds no credit. It waits until the agent is back.
            opened = consumer.open(OpenStream("web", "", 8).encode())
            await eventually(lambda: closed_with(provider) == CloseCode.GOING_AWAY)
            back = agent(running, pki)
            await back.connect(running.address, "web")
            resumed = back.open(StreamResume(7, len(b"answer"), len(b"kept")).encode())
            assert await resumed.first_frame() == StreamResume(7, len(b"kept"), len(b"answer"))
            fresh, message = await back.next_incoming(1)
            assert message.stream_id == 8
            fresh.stream.write(StreamAccept().encode() + b"new")
            await eventually(lambda: bytes(opened.data) == b"new")
            resumed.stream.write(b" still")
            await eventually(lambda: bytes(kept.data) == b"answer still")
            assert running.edge.door.meters.counters["agents_recycled_total"] == 1

    run(main(), timeout=40)


def test_an_agent_that_is_busy_is_left_alone(pki: PkiFixture, tmp_path: Path) -> None:
    async def main() -> None:
        async with relay(pki, tmp_path) as running:
            provider, consumer = agent(running, pki), running.agent(pki, pki.consumer)
            await provider.connect(running.address, "web")
            await consumer.connect(running.address)
            busy: list[Incoming] = []
            for number in range(CREDIT):
                consumer.open(OpenStream("web", "", 1 + number).encode())
                theirs, _ = await provider.next_incoming(number + 1)
                theirs.stream.write(StreamAccept().encode())
                busy.append(theirs)
            waiting = consumer.open(OpenStream("web", "", 99).encode())
            await eventually(lambda: running.counters.get("provider_credit_exhausted") == 1)
            await asyncio.sleep(0.6)  # more than twice what is waited for credit
            assert provider.closed is None
            busy[0].stream.write_eof()
            busy[0].stream.stop_sending(10)
            further, message = await provider.next_incoming(CREDIT + 1)
            assert message.stream_id == 99
            further.stream.write(StreamAccept().encode() + b"served")
            await eventually(lambda: bytes(waiting.data) == b"served")
            assert running.edge.door.meters.counters["agents_recycled_total"] == 0

    run(main(), timeout=40)


@pytest.mark.parametrize("engine", ["native", "aioquic"])
def test_credit_that_ended_streams_hold_is_told_from_credit_in_use(
    pki: PkiFixture, tmp_path: Path, engine: str
) -> None:
    async def main() -> None:
        async with relay(pki, tmp_path, quic=QuicSettings(engine=engine)) as running:
            provider, consumer = agent(running, pki), running.agent(pki, pki.consumer)
            await provider.connect(running.address, "web")
            await consumer.connect(running.address)
            await leak(provider, consumer, CREDIT)
            consumer.open(OpenStream("web", "", 8).encode())
            await eventually(lambda: provider.closed is not None)

    run(main(), timeout=40)
