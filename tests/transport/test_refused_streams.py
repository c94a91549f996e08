"""A stream that nobody here wants leaves nothing behind."""

from __future__ import annotations

import pytest

from actors.transport.connection import Connection
from actors.transport.quic import QuicEndpoint, QuicSettings
from actors.transport.stream import Stream
from tests.conftest import PkiFixture, eventually, run
from tests.transport.engines.rig import identity


@pytest.mark.parametrize("engine", ["native", "aioquic"])
def test_a_stream_that_ended_before_it_was_refused_is_forgotten(
    pki: PkiFixture, engine: str
) -> None:
    async def main() -> None:
        settings = QuicSettings(engine=engine)
        waiting: list[Stream] = []
        accepted: list[Connection] = []

        def on_connection(connection: Connection) -> None:
            accepted.append(connection)
            connection.on_stream = waiting.append
            connection.start()

        server = QuicEndpoint(
            alpn=("orp/1",),
            identity=identity(pki, pki.relay),
            settings=settings,
            on_connection=on_connection,
        )
        client = QuicEndpoint(
            alpn=("orp/1",), identity=identity(pki, pki.provider), settings=settings
        )
        try:
            address = server.attach(("127.0.0.1", 0))
            connection = await client.connect(address)
            connection.start()
            stream = connection.open_stream()
            assert stream is not None
            stream.start()
            stream.write(b"a request")
            stream.write_eof()
            await eventually(lambda: bool(waiting) and waiting[0].read_closed)
            # Not started, so its bytes and its end are held; now it is refused.
            waiting[0].write(b"no")
            waiting[0].write_eof()
            waiting[0].stop_sending(1)
            await eventually(lambda: accepted[0].statistics().streams == 0)
        finally:
            client.abort()
            server.abort()

    run(main())
