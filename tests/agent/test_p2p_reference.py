"""Direct paths with agents of the reference: no echo, nothing sent again (sheet 3.9)."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from actors.transport.connection import Connection
from actors.transport.quic import QuicEndpoint
from tests.agent.rig import agent_systems, says
from tests.conftest import PkiFixture, eventually, run
from tests.edge.rig import Incoming, RawAgent, identity, relay
from wire.orp.messages import (
    Candidate,
    CandidateAnswer,
    CandidateOffer,
    MigrateToP2P,
    OpenStream,
    StreamAccept,
    StreamResume,
)

P2P: dict[str, Any] = {"p2p_listen": ("127.0.0.1", 0), "p2p_after": 0.1}


def heard(agent: RawAgent, kind: type) -> list[object]:
    return [event for event in agent.events if isinstance(event, kind)]


@pytest.mark.parametrize(
    "leaves, said", [("never", 5), ("before", 5), ("after", 5), ("after", 0), ("before", 2)]
)
def test_a_consumer_of_the_reference_moves_to_a_provider_of_ours(
    pki: PkiFixture, tmp_path: Path, leaves: str, said: int
) -> None:
    """It says STOP_SENDING 0 on the relay's stream, which can be there before its direct stream,
    and a position that does not count what it writes until it changes paths.
    """
    got = bytearray()
    writers: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        while chunk := await reader.read(65_536):
            got.extend(chunk)
        writer.transport.abort()

    async def main() -> None:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        async with (
            relay(pki, tmp_path) as running,
            agent_systems(running, pki, port, only=0, **P2P) as (_, systems),
        ):
            consumer = running.agent(pki, pki.consumer)
            await consumer.connect(running.address)
            mine = consumer.open(OpenStream("verified", "", 7).encode() + b"by the relay ")
            await eventually(lambda: bytes(got) == b"by the relay ")
            writers[0].write(b"answer ")
            await eventually(lambda: bytes(mine.data) == b"answer ")
            consumer.session.send(CandidateOffer(7, ()))
            consumer.flush()
            await eventually(lambda: heard(consumer, CandidateAnswer))
            (answer,) = heard(consumer, CandidateAnswer)
            assert isinstance(answer, CandidateAnswer)
            where = answer.candidates[0]
            direct = await consumer.endpoint.connect((where.ip, where.port))
            assert direct.alpn == "orp/1"
            direct.start()
            consumer.session.send(MigrateToP2P(7, selected=where))
            consumer.flush()
            if leaves == "before":
                mine.stream.stop_sending(0)
                writers[0].write(b"lost on the way ")
                await asyncio.sleep(0.2)
            path = direct.open_stream()
            assert path is not None
            there = Incoming(path)
            # What is on the way by the relay comes first, although the direct path is quicker.
            position = len(b"by the relay ") + said
            path.write(StreamResume(7, position, len(b"answer ")).encode())
            path.write(b"and direct")
            if leaves == "after":
                mine.stream.stop_sending(0)
            if said == len(b"late "):
                await asyncio.sleep(0.2)
                assert bytes(got) == b"by the relay "
            mine.stream.write(b"late ")
            await eventually(lambda: bytes(got) == b"by the relay late and direct")
            writers[0].write(b"back")
            sent = b"lost on the way back" if leaves == "before" else b"back"
            await eventually(lambda: bytes(there.data) == sent)  # no echo in front
            assert says(systems[0], "/link", "promoted") == 1
            if leaves != "never":  # nothing is left of it at the relay
                await eventually(lambda: running.streams() == 0)
            path.write_eof()
            await eventually(lambda: there.eof or there.reset_code is not None)
        server.close()

    run(main(), timeout=30)


def test_bytes_by_the_relay_that_come_too_late_end_the_stream(
    pki: PkiFixture, tmp_path: Path
) -> None:
    """They belong before what was delivered: better no stream than one with a hole."""
    got = bytearray()
    failed: list[Exception] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while chunk := await reader.read(65_536):
                got.extend(chunk)
        except ConnectionResetError as error:
            failed.append(error)
        writer.transport.abort()

    async def main() -> None:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        async with (
            relay(pki, tmp_path) as running,
            agent_systems(running, pki, port, only=0, **P2P) as (_, _systems),
        ):
            consumer = running.agent(pki, pki.consumer)
            await consumer.connect(running.address)
            mine = consumer.open(OpenStream("verified", "", 7).encode() + b"early ")
            await eventually(lambda: bytes(got) == b"early ")
            consumer.session.send(CandidateOffer(7, ()))
            consumer.flush()
            await eventually(lambda: heard(consumer, CandidateAnswer))
            (answer,) = heard(consumer, CandidateAnswer)
            assert isinstance(answer, CandidateAnswer)
            where = answer.candidates[0]
            direct = await consumer.endpoint.connect((where.ip, where.port))
            direct.start()
            path = direct.open_stream()
            assert path is not None
            path.write(StreamResume(7, len(b"early "), 0).encode() + b"direct")
            await eventually(lambda: bytes(got) == b"early direct")
            mine.stream.write(b"too late")
            await eventually(lambda: failed)
            assert bytes(got) == b"early direct"
        server.close()

    run(main(), timeout=30)


def test_a_consumer_of_ours_moves_to_a_provider_of_the_reference(
    pki: PkiFixture, tmp_path: Path
) -> None:
    async def main() -> None:
        async with relay(pki, tmp_path) as running:
            provider = running.agent(pki, pki.provider)
            await provider.connect(running.address, "verified")
            arrived: list[Incoming] = []

            def take(connection: Connection) -> None:
                connection.on_stream = lambda stream: arrived.append(Incoming(stream))
                connection.start()

            listening = QuicEndpoint(
                alpn=("orp/1",), identity=identity(pki, pki.provider), on_connection=take
            )
            host, port = listening.attach(("127.0.0.1", 0))
            running.endpoints.append(listening)
            async with agent_systems(running, pki, 0, only=1, **P2P) as (address, systems):
                reader, writer = await asyncio.open_connection(*address)
                theirs, _ = await provider.next_incoming(1)
                theirs.stream.write(StreamAccept().encode())
                writer.write(b"by the relay ")
                await eventually(lambda: bytes(theirs.data) == b"by the relay ")
                theirs.stream.write(b"answer ")
                assert await reader.readexactly(7) == b"answer "
                await eventually(lambda: heard(provider, CandidateOffer))
                (offer,) = heard(provider, CandidateOffer)
                assert isinstance(offer, CandidateOffer)
                here = Candidate("host", host, port, 70)
                provider.session.send(CandidateAnswer(offer.stream_id, (here,)))
                provider.flush()
                await eventually(lambda: arrived, timeout=10)
                resume = await arrived[0].first_frame()
                assert resume == StreamResume(offer.stream_id, 13, 7)
                arrived[0].stream.write(b"direct")  # no echo
                assert await reader.readexactly(6) == b"direct"
                writer.write(b"too")
                await eventually(lambda: bytes(arrived[0].data) == b"too")
                assert says(systems[0], "/link", "promoted") == 1
                writer.close()

    run(main(), timeout=30)
