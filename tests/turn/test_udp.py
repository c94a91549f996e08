"""What UDP clients and their peers see of the door."""

from __future__ import annotations

import errno
import socket

import pytest

from actors.turn.messages import Close
from actors.turn.relay_ports import _bind
from tests.conftest import eventually, run
from tests.turn.rig import REALM, UDP, Client, Door, Plug, code, door
from wire.stun import attribute as a
from wire.stun import message as stun
from wire.stun.message import parse


async def _pair(running: Door) -> tuple[Client, Plug, tuple[str, int]]:
    client, peer = Client(running.address()), Plug()
    relayed = await client.allocate()
    assert await client.bind(0x4001, peer.address) == 0
    return client, peer, relayed


async def _both_ways(client: Client, peer: Plug, relayed: tuple[str, int], text: bytes) -> None:
    client.channel(0x4001, text)
    assert await peer.receive() == (text, relayed)
    peer.send(text[::-1], relayed)
    assert await client.receive() == b"\x40\x01" + len(text).to_bytes(2, "big") + text[::-1]


def test_channels_permissions_and_indications() -> None:
    async def main() -> None:
        async with door() as running:
            client, peer, relayed = await _pair(running)
            await _both_ways(client, peer, relayed, b"hello")
            await _both_ways(client, peer, relayed, b"x" * 1200)
            other = Plug()
            other.send(b"permitted by its host", relayed)
            indication = parse(await client.receive())
            assert indication.get(a.DATA) == b"permitted by its host"
            client.indicate(other.address, b"sent", (a.DONT_FRAGMENT, b""))
            assert await other.receive() == (b"sent", relayed)
            for plug in (client, peer, other):
                plug.close()

    run(main())


def test_ipv6_and_both_families() -> None:
    async def main() -> None:
        async with door(listen=(("127.0.0.1", 0), ("::1", 0))) as running:
            client, peer = Client(running.address()), Plug("::1")
            answer = await client.ask(
                stun.ALLOCATE, UDP, (a.ADDITIONAL_ADDRESS_FAMILY, b"\x02\0\0\0")
            )
            assert len(answer.all(a.XOR_RELAYED_ADDRESS)) == 2
            assert await client.bind(0x4002, peer.address) == 0
            client.channel(0x4002, b"six")
            data, relayed = await peer.receive()
            assert (data, relayed[0]) == (b"six", "::1")
            peer.send(b"back", relayed)
            assert await client.receive() == b"\x40\x02\x00\x04back"
            sixth = Client(running.turn.listening()[1].address or ("", 0))
            assert (await sixth.allocate())[0] == "127.0.0.1"
            for plug in (client, peer, sixth):
                plug.close()

    run(main())


def test_two_clients_of_one_relay() -> None:
    async def main() -> None:
        async with door(allowed=()) as running:
            one, two = Client(running.address()), Client(running.address(), "bob")
            first, second = await one.allocate(), await two.allocate()
            assert await one.bind(0x4001, second) == 0
            assert await two.bind(0x4002, first) == 0
            one.channel(0x4001, b"hairpin")
            assert await two.receive() == b"\x40\x02\x00\x07hairpin"
            assert await one.permit(("127.0.0.2", 1)) == 403
            one.close()
            two.close()

    run(main())


def test_runs_of_one_size_arrive_whole_and_in_order() -> None:
    async def main() -> None:
        async with door() as running:
            client, peer, relayed = await _pair(running)
            texts = [f"{n:04}".encode() * 100 for n in range(200)]
            sent = [b"\x40\x01" + len(one).to_bytes(2, "big") + one for one in texts]
            # With UDP_SEGMENT, as senders of batches do it.
            for start in range(0, len(sent), 50):
                client.plug.sock.sendmsg(
                    sent[start : start + 50], [(17, 103, len(sent[0]).to_bytes(2, "little"))], 0,
                    client.server,
                )  # fmt: skip
                for one in texts[start : start + 50]:
                    assert await peer.receive() == (one, relayed)
            for start in range(0, len(texts), 50):
                peer.sock.sendmsg(
                    texts[start : start + 50], [(17, 103, len(texts[0]).to_bytes(2, "little"))], 0,
                    relayed,
                )  # fmt: skip
                for one in texts[start : start + 50]:
                    assert await client.receive() == b"\x40\x01" + len(one).to_bytes(2, "big") + one
            client.close()
            peer.close()

    run(main())


def test_a_run_of_different_channels_goes_where_each_belongs() -> None:
    async def main() -> None:
        async with door() as running:
            client, peer, _ = await _pair(running)
            other = Plug()
            assert await client.bind(0x4002, other.address) == 0
            run_of = [b"\x40\x01\x00\x04aaaa", b"\x40\x02\x00\x04bbbb", b"\x40\x01\x00\x03ccc\0",
                      b"\x40\x09\x00\x04dddd", b"\x40\x02\x00\x02ee"]  # fmt: skip
            client.plug.sock.sendmsg(
                run_of, [(17, 103, (8).to_bytes(2, "little"))], 0, client.server
            )
            assert [(await peer.receive())[0] for _ in range(2)] == [b"aaaa", b"ccc"]
            assert [(await other.receive())[0] for _ in range(2)] == [b"bbbb", b"ee"]
            for plug in (client, peer, other):
                plug.close()

    run(main())


def test_an_allocation_that_dies_goes_on_with_its_address_and_channels() -> None:
    async def main() -> None:
        async with door() as running:
            client, peer, relayed = await _pair(running)
            other, third, elsewhere = await _pair(running)
            for n in range(8):
                running.kill("allocations/1")
                # What peers send meanwhile waits in the kernel.
                peer.send(b"waits", relayed)
                assert await client.receive() == b"\x40\x01\x00\x05waits"
                await running.up("allocations/1")
                await _both_ways(client, peer, relayed, f"again {n}".encode())
            await eventually(lambda: running.turn.door.restarted == 8, what="the registry is told")
            await _both_ways(other, third, elsewhere, b"untouched")
            for plug in (client, peer, other, third):
                plug.close()

    run(main())


def test_listener_registry_and_supervisor_may_die() -> None:
    async def main() -> None:
        async with door() as running:
            client, peer, relayed = await _pair(running)
            for path in ("listeners/udp", "registry", "allocations"):
                running.kill(path)
                await running.up(path)
                await running.up("allocations/1")
                await _both_ways(client, peer, relayed, path.encode())
            assert code(await client.ask(stun.REFRESH, a.lifetime(0))) == 0
            await eventually(lambda: running.system.find("/turn/allocations/1") is None)
            for plug in (client, peer):
                plug.close()

    run(main())


def test_an_allocation_that_cannot_be_restarted_is_over_and_its_client_hears_437() -> None:
    async def main() -> None:
        async with door() as running:
            client, peer, _ = await _pair(running)
            record = running.turn.door.dispatcher.allocations[1]
            for relay in record.relays.values():
                relay.sock.close()  # type: ignore[attr-defined]  # ours have one
            running.kill("allocations/1")
            await eventually(lambda: not running.turn.door.dispatcher.allocations, timeout=10)
            assert code(await client.ask(stun.REFRESH)) == 437
            assert running.turn.door.ports.open == 0
            client.close()
            peer.close()

    run(main())


@pytest.mark.parametrize("number", [errno.EADDRINUSE, errno.EACCES])
def test_a_port_that_cannot_be_bound_is_another_one(number: int) -> None:
    async def main() -> None:
        async with door() as running:
            ports = running.turn.door.ports
            failures = 5

            def bind(host: str, port: int) -> socket.socket:
                nonlocal failures
                failures -= 1
                if failures >= 0:
                    raise OSError(number, "injected")
                return _bind(host, port)

            ports.bind = bind
            client = Client(running.address())
            await client.allocate()
            assert sum(ports.failures.values()) == 5
            failures = 1000
            another = Client(running.address())
            assert code(await another.ask(stun.ALLOCATE, UDP)) == 508
            assert len(running.turn.door.dispatcher.allocations) == 1
            client.close()
            another.close()

    run(main())


def test_an_operator_closes_an_allocation() -> None:
    async def main() -> None:
        async with door() as running:
            client, peer, _ = await _pair(running)
            registry = running.system.ref("/turn/registry")
            assert registry is not None
            assert await registry.ask(Close(1), timeout=5) is True
            assert await registry.ask(Close(1), timeout=5) is False
            assert code(await client.ask(stun.REFRESH)) == 437
            client.close()
            peer.close()

    run(main())


def test_what_expires_is_freed() -> None:
    async def main() -> None:
        async with door() as running:
            client = Client(running.address())
            await client.allocate()
            dispatcher = running.turn.door.dispatcher
            record = dispatcher.allocations[1]
            dispatcher.close(record, "expired")
            await eventually(lambda: running.system.find("/turn/allocations/1") is None)
            assert running.turn.door.ports.open == 0
            assert running.turn.door.armed is None or running.turn.door.armed > 0
            client.close()

    run(main())


def test_a_drain_waits_for_allocations_and_sends_others_elsewhere() -> None:
    async def main() -> None:
        import asyncio
        from dataclasses import replace

        from tests.turn.rig import SETTINGS

        rules = replace(SETTINGS.rules, alternates=(("127.0.0.9", 3478),))
        async with door(rules=rules) as running:
            client, peer, relayed = await _pair(running)
            draining = asyncio.create_task(running.turn.drain())
            await eventually(lambda: running.turn.draining)
            late = Client(running.address())
            assert code(await late.ask(stun.ALLOCATE, UDP)) == 300
            await _both_ways(client, peer, relayed, b"still here")
            await client.ask(stun.REFRESH, a.lifetime(0))
            async with asyncio.timeout(5):
                await draining
            for plug in (client, peer, late):
                plug.close()

    run(main())


def test_realm_is_what_was_set() -> None:
    async def main() -> None:
        async with door() as running:
            client = Client(running.address())
            client.transmit(stun.encode(stun.ALLOCATE, stun.REQUEST, bytes(12), (UDP,)))
            answer = parse(await client.receive())
            assert code(answer) == 401
            assert answer.get(a.REALM) == REALM.encode()
            client.close()

    run(main())
