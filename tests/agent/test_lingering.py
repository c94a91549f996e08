"""A stream that ended is kept until the other agent said that it has the bytes and the FIN."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.agent.rig import SERVICE, agent_systems, says
from tests.conftest import PkiFixture, eventually, run
from tests.edge.rig import relay
from wire.orp.messages import StreamAccept, StreamCheckpoint, StreamResume


def test_a_fin_is_sent_again_until_it_is_confirmed(pki: PkiFixture, tmp_path: Path) -> None:
    """The bytes arrived, and the pair took the FIN with it."""

    async def main() -> None:
        async with relay(pki, tmp_path) as running:
            provider = running.agent(pki, pki.provider)
            await provider.connect(running.address, SERVICE)
            # A registry that just began keeps questions about streams it does not know for a while.
            await eventually(lambda: not says(running.system, "/control/registry", "in_grace"))
            async with agent_systems(running, pki, 0, only=1) as ((host, port), (consumer,)):
                reader, writer = await asyncio.open_connection(host, port)
                writer.write(b"question")
                theirs, incoming = await provider.next_incoming(1)
                stream_id = incoming.stream_id
                theirs.stream.write(StreamAccept().encode() + b"answer")
                theirs.stream.write_eof()
                assert await reader.read() == b"answer"
                writer.write_eof()
                await eventually(lambda: theirs.eof)
                await eventually(lambda: running.streams() == 0)
                # As if the pair had died before it passed on the FIN.
                running.edge.door.pairs._ended[stream_id].finished = False
                bytes_only = StreamCheckpoint(stream_id, 6, 8)
                provider.ctrl.write(bytes_only.encode())
                await asyncio.sleep(0.2)
                assert says(consumer, "/link", "streams") == 1
                back = provider.open(StreamResume(stream_id, 6, 8).encode())
                await eventually(lambda: back.eof)
                back.stream.write_eof()
                provider.ctrl.write(StreamCheckpoint(stream_id, 6, 8, ended=True).encode())
                await eventually(lambda: says(consumer, "/link", "streams") == 0)
                writer.close()
                await writer.wait_closed()

    run(main())
