"""A consumer at a relay that says nothing of its streams, as the reference of remote services.

Source: protocol sheet ORP 3.3, 3.11; 6.5 A5.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import pytest
from loguru import logger

from actors.runtime import ActorSystem
from actors.transport.connection import Connection
from actors.transport.quic import QuicEndpoint
from actors.transport.stream import Stream
from tests.agent.rig import SERVICE, says
from tests.conftest import PkiFixture, eventually, run
from tests.edge.rig import Incoming, identity
from tools.agent import consumer_bridge, relay_link, silence
from tools.agent.settings import AgentSettings, Mapping
from tools.agent.tree import agent_root
from wire.orp.frame import FrameReader
from wire.orp.messages import (
    AllocGranted,
    Hello,
    HelloAck,
    OpenStream,
    StreamReady,
    StreamReject,
    decode,
)

#: Instead of 10 s.
MODE_SECONDS = 0.4


class SilentRelay:
    """HELLO is answered, streams are taken; nothing else is said."""

    def __init__(self, pki: PkiFixture) -> None:
        self.streams: list[Incoming] = []
        self._ctrl: Stream | None = None
        self._reader = FrameReader(4096)
        self.endpoint = QuicEndpoint(
            alpn=("orp/1",), identity=identity(pki, pki.relay), on_connection=self._take
        )

    def _take(self, connection: Connection) -> None:
        connection.on_stream = self._stream
        connection.start()

    def _stream(self, stream: Stream) -> None:
        if self._ctrl is not None:
            self.streams.append(Incoming(stream))
            return
        self._ctrl = stream
        stream.on_data = self._on_ctrl
        stream.start()

    def _on_ctrl(self, chunk: bytes) -> None:
        assert self._ctrl is not None
        self._ctrl.consume(len(chunk))
        self._reader.feed(chunk)
        while (frame := self._reader.next_frame()) is not None:
            if isinstance(decode(frame), Hello):
                self.say(HelloAck())

    def say(self, message: HelloAck | StreamReady | AllocGranted) -> None:
        """Send a frame on ctrl."""
        assert self._ctrl is not None
        self._ctrl.write(message.encode())


@asynccontextmanager
async def consumer(pki: PkiFixture) -> AsyncIterator[tuple[SilentRelay, tuple[str, int]]]:
    """The relay, and where the service is reached locally."""
    there = SilentRelay(pki)
    address = there.endpoint.attach(("127.0.0.1", 0))
    settings = AgentSettings(
        certificate=str(pki.consumer.certificate),
        key=str(pki.consumer.key),
        ca=str(pki.ca),
        relays=(address,),
        consume=(Mapping(SERVICE, "127.0.0.1", 0),),
    )
    system = ActorSystem("agent")
    await system.start(lambda: agent_root(settings))
    try:
        await eventually(lambda: says(system, "/link", "ready") is True)
        listeners = system.find("/listeners")
        assert listeners is not None
        (listener,) = (listeners.children or {}).values()
        host, _, port = str(says(system, listener.path, "address")).rpartition(":")
        yield there, (host, int(port))
    finally:
        await system.stop(timeout=5.0)
        there.endpoint.abort()


Opened = Callable[
    [SilentRelay, Incoming, int, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]
]


def with_a_stream(pki: PkiFixture, then: Opened) -> None:
    """Open a stream of which the relay says nothing, and write a little to it."""

    async def main() -> None:
        async with consumer(pki) as (there, address):
            reader, writer = await asyncio.open_connection(*address)
            writer.write(b"question")
            await eventually(lambda: there.streams)
            (stream,) = there.streams
            opened = await stream.first_frame()
            assert isinstance(opened, OpenStream)
            assert bytes(stream.data) == b""  # it could be a forward stream
            await eventually(lambda: bytes(stream.data) == b"question")
            await then(there, stream, opened.stream_id, reader, writer)
            writer.close()

    run(main())


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait less than the sheet says."""
    monkeypatch.setattr(consumer_bridge, "MODE_SECONDS", MODE_SECONDS)


def test_a_stream_nobody_announced_is_taken_for_spliced(pki: PkiFixture) -> None:
    async def then(
        there: SilentRelay,
        stream: Incoming,
        stream_id: int,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        stream.stream.write(b" ")  # as a frame begins
        stream.stream.write(b"answer")
        assert await reader.readexactly(7) == b" answer"
        there.say(StreamReady(stream_id))  # late, and of no use
        writer.write(b" and more")
        writer.write_eof()
        await eventually(lambda: bytes(stream.data) == b"question and more" and stream.eof)
        stream.stream.write_eof()
        assert await reader.read() == b""

    with_a_stream(pki, then)


def test_the_bytes_of_a_late_reject_do_not_reach_the_application(pki: PkiFixture) -> None:
    async def then(
        there: SilentRelay,
        stream: Incoming,
        stream_id: int,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        frame = StreamReject(503, "no local provider for forwarded stream").encode()
        stream.stream.write(frame[:1])
        await asyncio.sleep(0.05)
        stream.stream.write(frame[1:])
        stream.stream.write_eof()
        with pytest.raises(ConnectionResetError):
            await reader.read()
        await eventually(lambda: stream.reset_code is not None)

    with_a_stream(pki, then)


def test_an_answer_that_begins_like_a_reject_is_delivered(pki: PkiFixture) -> None:
    async def then(
        there: SilentRelay,
        stream: Incoming,
        stream_id: int,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        stream.stream.write(StreamReject(503, "no").encode()[:5])
        stream.stream.write_eof()
        assert await reader.read() == StreamReject(503, "no").encode()[:5]

    with_a_stream(pki, then)


def test_a_grant_that_comes_too_late_is_a_failure(pki: PkiFixture) -> None:
    """What was written meanwhile was thrown away: nobody may take that for a stream."""

    async def then(
        there: SilentRelay,
        stream: Incoming,
        stream_id: int,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        there.say(AllocGranted(stream_id, 1, 2, "127.0.0.1:9"))
        with pytest.raises(ConnectionResetError):
            await reader.read()

    with_a_stream(pki, then)


def test_it_is_said_that_nothing_is_heard_also_when_nothing_is_asked(
    pki: PkiFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(silence, "LOOK_SECONDS", 0.1)
    monkeypatch.setattr(silence, "IDLE_SAID_AFTER", 4.0)  # keepalives come every three seconds
    lines: list[str] = []
    sink = logger.add(lambda line: lines.append(str(line)), level="WARNING", format="{message}")

    async def main() -> None:
        async with consumer(pki) as (there, _):
            began = asyncio.get_running_loop().time()
            await eventually(lambda: asyncio.get_running_loop().time() > began + 4.5, timeout=10.0)
            assert lines == []
            there.endpoint.detach()
            await eventually(lambda: lines, timeout=8.0)
            assert lines[0].startswith("nothing is heard of the relay for 4 s")

    try:
        run(main())
    finally:
        logger.remove(sink)


def test_a_relay_that_is_gone_is_given_up_long_before_the_idle_timeout(
    pki: PkiFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a relay that is asked for a stream and says nothing at all, somebody is told."""
    monkeypatch.setattr(consumer_bridge, "MODE_SECONDS", 10.0)
    monkeypatch.setattr(silence, "SAID_AFTER", 0.3)
    monkeypatch.setattr(silence, "GIVEN_UP_AFTER", 0.6)
    monkeypatch.setattr(relay_link, "IDLE_PATIENCE", 0.2)
    lines: list[str] = []
    sink = logger.add(lambda line: lines.append(str(line)), level="WARNING", format="{message}")

    async def main() -> None:
        async with consumer(pki) as (there, address):
            # One that acknowledges, and says nothing of the stream, is not meant.
            _, first = await asyncio.open_connection(*address)
            await eventually(lambda: there.streams)
            began = asyncio.get_running_loop().time()
            await eventually(lambda: asyncio.get_running_loop().time() > began + 0.8)
            assert lines == []
            _, third = await asyncio.open_connection(*address)  # it is looked for its answer,
            await eventually(lambda: len(there.streams) == 2)
            there.endpoint.detach()  # no goodbye; and then for that of the next one
            reader, second = await asyncio.open_connection(*address)
            began = asyncio.get_running_loop().time()
            with suppress(ConnectionResetError):
                assert await reader.read() == b""
            assert asyncio.get_running_loop().time() < began + 5.0
            assert any("the relay does not answer for " in line for line in lines)
            assert any("relay connection lost: local" in line for line in lines)
            assert any("nothing heard for " in line for line in lines)
            for writer in (first, second, third):
                writer.close()

    try:
        run(main())
    finally:
        logger.remove(sink)
