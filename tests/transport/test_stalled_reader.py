"""A writer that never stops and a reader that never reads: what the process in between holds."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from actors.transport.quic import QuicEndpoint, QuicSettings
from tests.conftest import PkiFixture, eventually, run
from tests.edge.rig import identity

MEBIBYTE = 1 << 20
STREAMS = 4
WINDOW = MEBIBYTE
#: What a process may need beside the windows: the library's own buffers, and allocator slack.
SLACK = 12 * MEBIBYTE

SERVER = """
import asyncio, sys
from pathlib import Path
from actors.transport.quic import QuicEndpoint, QuicSettings
from actors.transport.tls import TlsIdentity
def rss():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096
streams = []
def take(connection):
    connection.on_stream = streams.append  # paused, and never read
    connection.start()
async def main():
    certificate, key, ca = map(Path, sys.argv[1:4])
    endpoint = QuicEndpoint(alpn=("orp/1",), identity=TlsIdentity.load(certificate, key, ca),
        settings=QuicSettings(engine=sys.argv[4], stream_window=1 << 20), on_connection=take)
    print(endpoint.attach(("127.0.0.1", 0))[1], flush=True)
    loop = asyncio.get_running_loop()
    while command := (await loop.run_in_executor(None, sys.stdin.readline)).strip():
        if command == "read":
            totals = [0] * len(streams)
            for number, stream in enumerate(streams):
                def data(chunk, number=number, stream=stream):
                    totals[number] += len(chunk)
                    stream.consume(len(chunk))
                stream.on_data = data
                stream.start()
            while sum(totals) < int(sys.argv[5]):
                await asyncio.sleep(0.01)
        print(rss(), max((s.unconsumed for s in streams), default=0), flush=True)
    endpoint.abort()
asyncio.run(main())
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")
@pytest.mark.parametrize("engine", ["aioquic", "native"])
def test_memory_is_bounded_by_the_windows_and_nothing_is_lost(pki: PkiFixture, engine: str) -> None:
    total = 24 * MEBIBYTE
    child = subprocess.Popen(
        [
            *(sys.executable, "-c", SERVER),
            *(pki.relay.certificate, pki.relay.key, pki.ca, engine, str(total * STREAMS)),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )

    def ask(command: str) -> tuple[int, int]:
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write(f"{command}\n")
        child.stdin.flush()
        size, unconsumed = child.stdout.readline().split()
        return int(size), int(unconsumed)

    async def main() -> None:
        assert child.stdout is not None
        port = int(await asyncio.to_thread(child.stdout.readline))
        endpoint = QuicEndpoint(
            alpn=("orp/1",),
            identity=identity(pki, pki.consumer),
            settings=QuicSettings(engine=engine),
        )
        try:
            connection = await endpoint.connect(("127.0.0.1", port))
            connection.start()
            chunk = bytes(64 * 1024)
            before, _ = await asyncio.to_thread(ask, "look")
            sent = [0] * STREAMS
            streams = []
            for number in range(STREAMS):
                stream = connection.open_stream()
                assert stream is not None
                streams.append(stream)

                def push(_: int = 0, number: int = number) -> None:
                    stream = streams[number]
                    while sent[number] < total and stream.room > 0:
                        stream.write(chunk)
                        sent[number] += len(chunk)

                stream.on_drain = push
                stream.start()
                push()
            # The writers stop, all of them, far from their end.
            stalled = 0.0
            last = -1
            while stalled < 0.5:
                await asyncio.sleep(0.1)
                stalled = stalled + 0.1 if sum(sent) == last else 0.0
                last = sum(sent)
            assert max(sent) < 4 * MEBIBYTE
            size, unconsumed = await asyncio.to_thread(ask, "look")
            assert 0 < unconsumed <= WINDOW
            assert size - before < STREAMS * WINDOW + SLACK
            # Read again, everything arrives, and not much more is held on the way.
            size, _ = await asyncio.wait_for(asyncio.to_thread(ask, "read"), 100)
            await eventually(lambda: sum(sent) == total * STREAMS)
            assert size - before < STREAMS * WINDOW + 2 * SLACK
        finally:
            endpoint.abort()

    try:
        run(main(), timeout=110)
    finally:
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.close()
        child.wait(10)
        child.stdout.close()
