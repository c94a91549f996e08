"""Unread bytes of several TCP connections share a budget."""

from __future__ import annotations

from contextlib import AsyncExitStack

from actors.transport.connection import Connection
from actors.transport.stream import Stream
from actors.transport.tcp import TcpSettings
from actors.transport.tcp.yamux_connection import YamuxConnection
from tests.conftest import PkiFixture, eventually, run
from tests.transport.test_endpoint import Reader
from tests.transport.test_tcp import connected, exchange, serving

WINDOW = 1 << 18
SETTINGS = TcpSettings(stream_window=WINDOW, unread=16 * WINDOW)


class Unread:
    """Takes connections; the streams of all but the last one are not read."""

    def __init__(self, hoarders: int) -> None:
        self.streams: list[list[Stream]] = []
        self._hoarders = hoarders

    def __call__(self, connection: Connection) -> None:
        streams: list[Stream] = []
        hoards = len(self.streams) < self._hoarders
        self.streams.append(streams)

        def on_stream(stream: Stream) -> None:
            streams.append(stream)
            if hoards:
                return
            stream.on_data = stream.write
            stream.on_drain = stream.consume
            stream.on_eof = stream.write_eof
            stream.start()

        connection.on_stream = on_stream
        connection.start()


def _write(connection: Connection, streams: int, windows: int) -> None:
    for _ in range(streams):
        stream = connection.open_stream()
        assert stream is not None
        stream.write(bytes(windows * WINDOW))


def test_who_reads_nothing_holds_no_more_than_the_budget_and_others_go_on(pki: PkiFixture) -> None:
    async def main() -> None:
        taken = Unread(hoarders=1)
        async with (
            serving(pki, SETTINGS, then=taken) as server,
            connected(pki, server, SETTINGS) as hoarder,
            connected(pki, server, SETTINGS) as other,
        ):
            _write(hoarder, 100, 2)
            await eventually(lambda: server.unread.held >= 15 * WINDOW)
            for _ in range(3):
                assert await exchange(other, bytes(1 << 20)) == bytes(1 << 20)
            assert server.unread.held <= 20 * WINDOW
            assert (hoarder.closed, other.closed) == (None, None)
            assert isinstance(hoarder, YamuxConnection)
            assert hoarder._transport is not None
            hoarder._transport.abort()  # says nothing
            await eventually(lambda: server.unread.held == 0)
            assert server.unread.holders == 0

    run(main())


def test_what_was_withheld_is_given_when_another_connection_holds_less(pki: PkiFixture) -> None:
    async def main() -> None:
        taken = Unread(hoarders=2)
        async with AsyncExitStack() as stack:
            server = await stack.enter_async_context(serving(pki, SETTINGS, then=taken))
            more = await stack.enter_async_context(connected(pki, server, SETTINGS))
            less = await stack.enter_async_context(connected(pki, server, SETTINGS))
            _write(more, 5, 2)
            _write(less, 4, 1)
            await eventually(lambda: server.unread.held == 9 * WINDOW)  # more than half
            first = taken.streams[0][0]
            first.on_data = lambda data: None  # held by its reader
            first.start()
            first.consume(WINDOW // 2)
            await eventually(lambda: server.unread.withheld == 1)
            assert first.bytes_in == WINDOW
            for stream in taken.streams[1]:
                Reader(stream)
            await eventually(lambda: first.bytes_in == WINDOW + WINDOW // 2)

    run(main())
