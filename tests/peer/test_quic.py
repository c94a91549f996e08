"""Clients over QUIC, by a stock library, beside clients over WebSocket with TLS."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aioquic.asyncio.client import connect
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import ConnectionTerminated, DatagramFrameReceived, QuicEvent

from actors.peer.peer_tls import PeerTls
from actors.transport.tls import TlsIdentity
from tests.conftest import PkiFixture, run
from tests.peer.rig import Relay, relay, token
from wire.peer.messages import Auth, encode_auth, encode_transport, peer_id

BOB = peer_id("bob")


class Stock(QuicConnectionProtocol):
    """A stock client that keeps what comes."""

    def quic_event_received(self, event: QuicEvent) -> None:
        if isinstance(event, DatagramFrameReceived):
            self.got.put_nowait(event.data)
        elif isinstance(event, ConnectionTerminated):
            self.over.set_result((event.error_code, event.reason_phrase))

    got: asyncio.Queue[bytes]
    over: asyncio.Future[tuple[int, str]]

    def say(self, message: bytes) -> None:
        self._quic.send_datagram_frame(message)
        self.transmit()

    async def message(self) -> bytes:
        """The next one that was not told before."""
        async with asyncio.timeout(5):
            while (message := await self.got.get())[1] == 7:
                pass  # repeated: it may have been lost
            return message


@asynccontextmanager
async def stock(running: Relay) -> AsyncIterator[Stock]:
    """A QUIC connection that said nothing yet."""
    configuration = QuicConfiguration(
        is_client=True,
        alpn_protocols=["nb-quic"],
        max_datagram_frame_size=16_383,
        max_datagram_size=1452,
        verify_mode=ssl.CERT_NONE,
    )
    place = running.peer.listening()[1].address
    assert place is not None
    async with connect(*place, configuration=configuration, create_protocol=Stock) as client:
        assert isinstance(client, Stock)
        client.got = asyncio.Queue()
        client.over = asyncio.get_running_loop().create_future()
        yield client


def options(pki: PkiFixture) -> dict[str, Any]:
    trust = ssl.create_default_context(cafile=pki.ca)
    trust.check_hostname = False
    identity = TlsIdentity.load(pki.relay.certificate, pki.relay.key)
    return {"tls": PeerTls(identity), "trust": trust}


def test_quic_and_websocket_peers_meet(pki: PkiFixture) -> None:
    async def scenario() -> None:
        async with relay(**options(pki)) as running:
            alice = await running.join("alice")
            async with stock(running) as bob:
                bob.say(encode_auth(Auth(BOB, token())))
                async with asyncio.timeout(5):
                    assert await bob.got.get() == b"\x01\x07" + running.door.url.encode()
                for size in (0, 1, 1150):
                    alice.say(encode_transport(BOB, bytes(size)))
                    assert await bob.message() == encode_transport(peer_id("alice"), bytes(size))
                    bob.say(encode_transport(peer_id("alice"), bytes(size)))
                    assert await alice.message() == encode_transport(BOB, bytes(size))
                alice.say(encode_transport(BOB, bytes(8000)))
                alice.say(encode_transport(BOB, b"after"))
                assert (await bob.message())[38:] == b"after"
                assert running.door.drops["too_large"] == 1
                bob.say(b"\x01\x04")
                async with asyncio.timeout(5):
                    assert await bob.over == (0, "normal closure")
            await running.gone("bob")

    run(scenario())


def test_a_bad_token_is_closed_and_a_silent_client_holds_up_nobody(pki: PkiFixture) -> None:
    async def scenario() -> None:
        settings = options(pki)
        async with (
            relay(auth_deadline=0.5, **settings) as running,
            stock(running) as silent,
            stock(running) as bad,
            stock(running) as good,
        ):
            bad.say(encode_auth(Auth(BOB, token("other"))))
            good.say(encode_auth(Auth(BOB, token())))
            async with asyncio.timeout(5):
                assert await bad.over == (0, "normal closure")
                assert (await good.got.get())[:2] == b"\x01\x07"
                assert await silent.over == (0, "normal closure")

    run(scenario())
