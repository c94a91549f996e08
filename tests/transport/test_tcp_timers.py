"""What a yamux connection is to do a little later, it does although nothing more happens."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial

import pytest

from actors.transport.tcp import TcpSettings, yamux_connection
from actors.transport.tcp.yamux_connection import YamuxConnection
from actors.transport.tcp.yamux_stream import YamuxStream
from tests.conftest import eventually, run
from tests.transport.sockets import connected
from wire.yamux.events import FinReceived, StreamOpened, StreamReset
from wire.yamux.limits import Limits
from wire.yamux.session import Session


@dataclass
class Peer:
    """The other end, which asks nothing of its own accord."""

    session: Session
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def say(self) -> None:
        buffers, _ = self.session.data_to_send(1 << 20, asyncio.get_running_loop().time())
        self.writer.writelines(bytes(buffer) for buffer in buffers)
        await self.writer.drain()

    async def until(self, kind: type[StreamOpened | FinReceived | StreamReset]) -> int:
        """Read until this event comes; the stream it is about."""
        while True:
            data = await asyncio.wait_for(self.reader.read(1 << 16), 5.0)
            now = asyncio.get_running_loop().time()
            for event in self.session.receive(data, now):
                if isinstance(event, kind):
                    return event.stream_id


@asynccontextmanager
async def met() -> AsyncIterator[tuple[YamuxConnection, Peer]]:
    ours, theirs = connected()
    connection = YamuxConnection(TcpSettings(), client=True, on_ended=lambda _: None)
    loop = asyncio.get_running_loop()
    await loop.create_connection(lambda: connection, sock=ours)
    connection.start()
    reader, writer = await asyncio.open_connection(sock=theirs)
    limits = Limits(ping_interval=60.0, keepalive=0.0)
    try:
        yield (
            connection,
            Peer(Session(client=False, now=loop.time(), limits=limits), reader, writer),
        )
    finally:
        connection.abort()
        writer.close()
        await writer.wait_closed()


async def opened(connection: YamuxConnection, peer: Peer) -> YamuxStream:
    stream = connection.open_stream()
    assert stream is not None
    stream.start()
    peer.session.accept(await peer.until(StreamOpened))
    await peer.say()
    return stream


def test_a_stream_that_ends_soon_after_another_is_asked_about(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        yamux_connection, "Limits", partial(Limits, ping_interval=0.2, fin_hold=20.0)
    )

    async def main() -> None:
        async with met() as (connection, peer):
            for _ in range(2):
                stream = await opened(connection, peer)
                stream.write_eof()
                await peer.until(FinReceived)
                peer.session.finish(stream.stream_id)
                await peer.say()
                answers = asyncio.ensure_future(_answer(peer))
                await eventually(lambda: connection.statistics().streams == 0)
                answers.cancel()

    run(main())


async def _answer(peer: Peer) -> None:
    while data := await peer.reader.read(1 << 16):
        peer.session.receive(data, asyncio.get_running_loop().time())
        await peer.say()


def test_who_goes_on_sending_what_is_unwanted_is_reset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yamux_connection, "Limits", partial(Limits, linger=0.2, fin_hold=20.0))

    async def main() -> None:
        async with met() as (connection, peer):
            stream = await opened(connection, peer)
            stream.write_eof()
            await peer.until(FinReceived)  # nothing more is to be sent
            stream.stop_sending(7)
            await peer.until(StreamReset)

    run(main())
