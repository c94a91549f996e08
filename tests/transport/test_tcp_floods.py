"""A peer that floods its TCP connection with small frames does not keep the loop from others."""

from __future__ import annotations

import asyncio

from actors.transport.connection import Connection
from actors.transport.stream import Stream
from actors.transport.tcp.yamux_connection import YamuxConnection
from tests.conftest import PkiFixture, eventually, run
from tests.transport.test_tcp import connected, serving
from tests.wire.yamux.peer import DATA, FIN, SYN, Frame
from wire.yamux.limits import Limits

CRUMBS = 4000


def test_small_frames_are_looked_at_in_turns_and_all_of_them_arrive(pki: PkiFixture) -> None:
    async def main() -> None:
        got = bytearray()
        ended: list[Stream] = []
        frames_in_a_turn: list[int] = []
        accepted: list[Connection] = []

        def take(connection: Connection) -> None:
            def on_stream(stream: Stream) -> None:
                def data(chunk: bytes) -> None:
                    got.extend(chunk)
                    stream.consume(len(chunk))

                stream.on_data = data
                stream.on_eof = lambda: ended.append(stream)
                stream.start()

            accepted.append(connection)
            connection.on_stream = on_stream
            connection.start()

        async with serving(pki, then=take) as server, connected(pki, server) as hostile:
            assert isinstance(hostile, YamuxConnection)
            assert hostile._transport is not None
            await eventually(lambda: accepted)
            frames = [Frame(DATA, SYN, 99, payload=b"!")]
            frames += [Frame(DATA, 0, 99, payload=bytes([n % 251])) for n in range(CRUMBS)]
            frames.append(Frame(DATA, FIN, 99, payload=b"."))
            hostile._transport.write(b"".join(frame.encode() for frame in frames))

            async def watch() -> None:
                before = len(got)
                while True:
                    await asyncio.sleep(0)
                    frames_in_a_turn.append(len(got) - before)
                    before = len(got)

            watching = asyncio.create_task(watch())
            await eventually(lambda: ended)
            watching.cancel()
            assert bytes(got) == b"".join(frame.payload for frame in frames)
            assert max(frames_in_a_turn) <= Limits().frames_per_turn
            # And its end right behind a flood does not swallow it.
            got.clear()
            more = [Frame(DATA, SYN if not n else 0, 101, payload=b"x") for n in range(CRUMBS)]
            hostile._transport.write(b"".join(frame.encode() for frame in more))
            hostile._transport.close()
            await eventually(lambda: accepted[0].closed is not None)
            assert len(got) == CRUMBS
            async with connected(pki, server) as other:
                assert other.closed is None

    run(main())
