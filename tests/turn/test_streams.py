"""What clients over TCP and TLS see of the door."""

from __future__ import annotations

import asyncio
import ssl

import pytest

from actors.transport.tls import TlsIdentity
from tests.conftest import PkiFixture, eventually, run
from tests.turn.rig import Plug, StreamClient, code, door
from wire.proxy_protocol.header import SIGNATURE
from wire.stun import attribute as a
from wire.stun import message as stun
from wire.stun.errors import StunError
from wire.stun.message import parse
from wire.turn.frames import Frames

TCP = (("127.0.0.1", 0),)


async def _client(address: tuple[str, int], context: ssl.SSLContext | None = None) -> StreamClient:
    return StreamClient(*await asyncio.open_connection(*address, ssl=context))


async def _use(client: StreamClient) -> None:
    peer = Plug()
    relayed = await client.allocate()
    assert await client.bind(0x4001, peer.address) == 0
    for text in (b"hello", b"four", b"", b"x" * 1200):
        client.channel(0x4001, text)
        assert await peer.receive() == (text, relayed)
        peer.send(text, relayed)
        assert await client.receive() == b"\x40\x01" + len(text).to_bytes(2, "big") + text
    peer.close()


def test_tcp() -> None:
    async def main() -> None:
        async with door(listen_tcp=TCP) as running:
            client = await _client(running.address("TCP"))
            await _use(client)
            await client.leave()
            await eventually(lambda: not running.turn.door.dispatcher.allocations)
            assert running.turn.door.ports.open == 0

    run(main())


def test_tls_with_and_without_a_protocol_and_a_name(pki: PkiFixture) -> None:
    identity = TlsIdentity.load(pki.relay.certificate, pki.relay.key)

    async def main() -> None:
        async with door(identity, listen_tls=TCP) as running:
            for alpn in ([], ["stun.turn"]):
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
                context.check_hostname = False
                context.verify_mode = ssl.CERT_NONE
                if alpn:
                    context.set_alpn_protocols(alpn)
                client = await _client(running.address("TLS"), context)
                chosen = client.writer.get_extra_info("ssl_object").selected_alpn_protocol()
                assert chosen == (alpn[0] if alpn else None)
                await _use(client)
                await client.leave()

    run(main())


def test_a_balancer_says_where_a_client_is_from() -> None:
    async def main() -> None:
        from ipaddress import ip_network

        async with door(listen_tcp=TCP, proxy_from=(ip_network("127.0.0.0/8"),)) as running:
            client = await _client(running.address("TCP"))
            source = bytes((192, 0, 2, 7, 127, 0, 0, 1)) + (4000).to_bytes(2, "big") + b"\x0d\x96"
            client.writer.write(SIGNATURE + b"\x21\x11\x00\x0c" + source)
            await client.allocate()
            (record,) = running.turn.door.dispatcher.allocations.values()
            assert record.client == ("192.0.2.7", 4000)
            await client.leave()

    run(main())


@pytest.mark.parametrize(
    "garbage", [b"GET / HTTP/1.1\r\n\r\n", b"\x00\x03\x00\x03abcd", b"\x80" * 8, b"\0\1\0\0xxxx"]
)
def test_garbage_ends_its_connection_and_no_other(garbage: bytes) -> None:
    async def main() -> None:
        async with door(listen_tcp=TCP) as running:
            client = await _client(running.address("TCP"))
            await client.allocate()
            reader, writer = await asyncio.open_connection(*running.address("TCP"))
            writer.write(garbage)
            async with asyncio.timeout(5):
                assert await reader.read() == b""
            writer.close()
            assert code(await client.ask(stun.REFRESH)) == 0
            await client.leave()

    run(main())


def test_a_stranger_has_a_deadline() -> None:
    async def main() -> None:
        async with door(listen_tcp=TCP, stream_deadline=0.2) as running:
            settled = await _client(running.address("TCP"))
            await settled.allocate()
            reader, writer = await asyncio.open_connection(*running.address("TCP"))
            async with asyncio.timeout(5):
                with pytest.raises(ConnectionResetError):
                    await reader.read()
            writer.close()
            assert code(await settled.ask(stun.REFRESH)) == 0
            await settled.leave()

    run(main())


def test_a_client_that_does_not_read_costs_itself_data_and_nobody_else() -> None:
    async def main() -> None:
        async with door(listen_tcp=TCP, stream_buffer=65_536) as running:
            slow, quick = [await _client(running.address("TCP")) for _ in range(2)]
            peer = Plug()
            relayed = await slow.allocate()
            await slow.bind(0x4001, peer.address)
            slow.writer.transport.pause_reading()  # type: ignore[attr-defined]  # a socket's has it
            events = running.turn.door.events
            while not events["stream_full"]:
                for _ in range(64):
                    peer.send(b"x" * 1400, relayed)
                await asyncio.sleep(0)
            (waiting,) = (
                one
                for one in running.turn.door.dispatcher.allocations.values()
                if one.bytes_from_peers
            )
            unsent = waiting.endpoint._transport.get_write_buffer_size()  # type: ignore[attr-defined]
            assert unsent < 2 * 65_536
            await _use(quick)
            peer.close()
            slow.writer.transport.abort()
            await quick.leave()

    run(main())


def test_a_client_of_an_allocation_that_dies_keeps_its_connection() -> None:
    async def main() -> None:
        async with door(listen_tcp=TCP) as running:
            client = await _client(running.address("TCP"))
            await _use(client)
            running.kill("allocations/1")
            await running.up("allocations/1")
            assert code(await client.ask(stun.REFRESH)) == 0
            running.kill("clients")
            with pytest.raises((EOFError, ConnectionError)):
                await client.receive()
            await eventually(lambda: not running.turn.door.dispatcher.allocations)
            client.writer.close()

    run(main())


def test_frames_come_out_whatever_pieces_they_came_in() -> None:
    binding = stun.encode(stun.BINDING, stun.REQUEST, bytes(12), ((a.SOFTWARE, b"abc"),))
    stream = binding + b"\x40\x01\x00\x05hello\0\0\0" + b"\x40\x02\x00\x00" + binding
    expected = [binding, b"\x40\x01\x00\x05hello", b"\x40\x02\x00\x00", binding]
    for size in range(1, len(stream) + 1):
        frames = Frames()
        got = [
            bytes(one)
            for at in range(0, len(stream), size)
            for one in frames.receive(stream[at : at + size])
        ]
        assert got == expected
        assert frames.rest == b""
    assert parse(binding).get(a.SOFTWARE) == b"abc"
    for bad in (b"\xff\0\0\0", b"\0\1\0\2", b"\0\1\0\0\x21\x12\xa4\x43"):
        with pytest.raises(StunError):
            Frames().receive(bad)
