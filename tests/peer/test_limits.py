"""What the originals do not bound: each case harms nobody but whoever caused it (sheet 9)."""

from __future__ import annotations

import asyncio
import socket
import ssl
from typing import Any

import pytest

from actors.peer.peer_tls import PeerTls
from actors.transport.tls import TlsIdentity
from tests.conftest import PkiFixture, eventually, run
from tests.peer.rig import SECRET, Client, masked, relay, token
from wire.peer.messages import Auth, encode_auth, encode_transport, peer_id

ALICE, BOB = peer_id("alice"), peer_id("bob")


async def talk(a: Client, b: Client, source: str, destination: str, payload: bytes) -> None:
    a.say(encode_transport(peer_id(destination), payload))
    assert await b.message() == encode_transport(peer_id(source), payload)


def test_a_silent_client_is_closed_and_holds_up_nobody() -> None:
    async def scenario() -> None:
        async with relay(auth_deadline=0.3) as running:
            silent, opened = await running.connect(), await running.open()
            alice, bob = await running.join("alice"), await running.join("bob")
            await talk(alice, bob, "alice", "bob", b"hello")
            assert await silent.ended()
            assert await opened.ended()
            await talk(bob, alice, "bob", "alice", b"hello")

    run(scenario())


@pytest.mark.parametrize("size", [8821, 20_000])
def test_an_oversize_message_reaches_nobody(size: int) -> None:
    async def scenario() -> None:
        async with relay() as running:
            alice, bob = await running.join("alice"), await running.join("bob")
            alice.say((b"\x01\x03" + BOB).ljust(size, b"x"))
            assert (await alice.frame())[2:4] == b"\x03\xf1"
            assert await alice.ended()
            await talk(bob, bob, "bob", "bob", b"still here")
            assert running.door.events["websocket_message_too_big"] == 1

    run(scenario())


def test_a_fragmented_message_reaches_nobody() -> None:
    async def scenario() -> None:
        async with relay() as running:
            alice, bob = await running.join("alice"), await running.join("bob")
            alice.write(masked(encode_transport(BOB, b"half"), 0x02))
            assert await alice.ended()
            await talk(bob, bob, "bob", "bob", b"still here")

    run(scenario())


def test_a_slow_reader_loses_its_own_messages_only() -> None:
    async def scenario() -> None:
        async with relay(write_deadline=30.0) as running:
            alice, slow = await running.join("alice"), await running.join("slow")
            bob = await running.join("bob")
            slow.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
            slow.writer.transport.pause_reading()  # type: ignore[attr-defined]  # a read transport
            payload = bytes(8000)
            door = running.door
            for _ in range(200):
                for _ in range(10):
                    alice.say(encode_transport(peer_id("slow"), payload))
                await alice.writer.drain()
                await talk(alice, bob, "alice", "bob", b"beside")
                if door.drops["queue_full"]:
                    break
            assert door.drops["queue_full"]
            assert door.registry.peers[peer_id("slow")].link.queued < 2_000_000
            await talk(bob, alice, "bob", "alice", b"beside")

    run(scenario())


def test_a_blocked_peer_is_replaced_at_once_and_later_given_up() -> None:
    async def scenario() -> None:
        async with relay(write_deadline=0.3) as running:
            alice, slow = await running.join("alice"), await running.join("slow")
            slow.writer.transport.pause_reading()  # type: ignore[attr-defined]  # a read transport
            while not running.door.drops["queue_full"]:
                for _ in range(20):
                    alice.say(encode_transport(peer_id("slow"), bytes(8000)))
                await alice.writer.drain()
                await asyncio.sleep(0)
            async with asyncio.timeout(1):
                again = await running.join("slow")
            await talk(alice, again, "alice", "slow", b"hello")
            assert running.door.registry.replaced == 1

    run(scenario())


def test_tokens_of_several_secrets_and_none_of_others() -> None:
    async def scenario() -> None:
        async with relay(secrets=("old", SECRET)) as running:
            for secret, good in (("old", True), (SECRET, True), ("other", False)):
                client = await running.open()
                client.say(encode_auth(Auth(ALICE, token(secret))))
                if good:
                    await client.message()
                else:
                    assert await client.ended()
            assert running.door.auth_failures["bad_signature"] == 1

    run(scenario())


def test_a_killed_connection_is_reset_and_its_peer_comes_back() -> None:
    async def scenario() -> None:
        async with relay() as running:
            alice, bob = await running.join("alice"), await running.join("bob")
            alice.say(b"\x01\x08" + BOB)
            assert await alice.message() == b"\x01\x0a" + BOB
            connections = running.system.find("/peer/connections")
            assert connections is not None
            (name,) = [
                child
                for child, cell in (connections.children or {}).items()
                if cell.actor is not None
                and cell.actor.describe()["peer"] == running.door.registry.peers[BOB].text
            ]
            ref = running.system.ref(f"/peer/connections/{name}")
            assert ref is not None
            running.system.kill(ref)
            assert await bob.ended()
            assert await alice.message() == b"\x01\x0b" + BOB
            again = await running.join("bob")
            assert await alice.message() == b"\x01\x0a" + BOB
            await talk(alice, again, "alice", "bob", b"back")

    run(scenario())


def test_a_drain_says_close_to_everybody() -> None:
    async def scenario() -> None:
        async with relay() as running:
            clients = [await running.join(f"n{n}") for n in range(5)]
            await running.peer.drain()
            for client in clients:
                assert await client.message() == b"\x01\x04"
                assert await client.ended()
            late = await running.open()
            late.say(encode_auth(Auth(ALICE, token())))
            assert await late.ended()

    run(scenario())


def test_a_peer_that_answers_nothing_is_gone() -> None:
    async def scenario() -> None:
        log: list[Any] = []
        async with relay(health_interval=0.1, health_timeout=0.1, log=log) as running:
            silent = await running.join("silent")
            assert await silent.message() == b"\x01\x05"
            assert await silent.ended()
            await running.gone("silent")
        assert [record.outcome for record in log] == ["health_timeout"]

    run(scenario())


def test_limits_in_number_and_rate() -> None:
    async def scenario() -> None:
        async with relay(max_peers=2, max_subscriptions=3, bytes_per_second=4096) as running:
            alice, bob = await running.join("alice"), await running.join("bob")
            third = await running.open()
            third.say(encode_auth(Auth(peer_id("third"), token())))
            assert await third.ended()
            alice.say(b"\x01\x08" + b"".join(peer_id(f"n{n}") for n in range(10)))
            for _ in range(20):
                alice.say(encode_transport(BOB, bytes(1000)))
            await bob.message()
            await eventually(lambda: running.door.drops["rate"] >= 10, what="dropped messages")
            assert running.door.registry.subscriptions == 3

    run(scenario())


def test_over_tls(pki: PkiFixture) -> None:
    trust = ssl.create_default_context(cafile=pki.ca)
    trust.check_hostname = False
    identity = TlsIdentity.load(pki.relay.certificate, pki.relay.key)

    async def scenario() -> None:
        async with relay(tls=PeerTls(identity), trust=trust) as running:
            alice, bob = await running.join("alice"), await running.join("bob")
            for size in (0, 1, 1228, 8782):
                await talk(alice, bob, "alice", "bob", bytes(size))
                await talk(bob, alice, "bob", "alice", bytes(size))

    run(scenario())
