"""What the reference gets wrong, and what becomes of it here (sheet 5.2, 1.7)."""

from __future__ import annotations

import asyncio
import errno
import os
import resource
import socket
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from actors.transport.tcp.pump import QuietLimits
from tests.conftest import eventually, run
from tests.rendezvous.rig import Peer, Relay, relay
from tests.wire.yamux.peer import ACK, DATA, FIN, GO_AWAY, RST, SYN, WINDOW, Frame

PROTOCOLS = ["multiplex", "pool", "event"]


class Served:
    """A user, and the service's end of it in any protocol."""

    def __init__(self, protocol: str, owner: Peer, port: int, user: Peer, end: Peer) -> None:
        self.protocol = protocol
        self.owner = owner  # what registered
        self.port = port
        self.user = user
        self.end = end

    @classmethod
    async def of(cls, it: Relay, protocol: str) -> Served:
        if protocol == "multiplex":
            owner, port = await it.multiplex()
            user = await it.connect(port)
            assert (await owner.frame()).flags == SYN
            await owner.send(Frame(WINDOW, ACK, 1).encode())
            return cls(protocol, owner, port, user, owner)
        if protocol == "pool":
            owner, port, _ = await it.pool()
            pairs = it.door.pairs["pool"]
            user = await it.connect(port)
            await eventually(lambda: it.door.pairs["pool"] > pairs)
            return cls(protocol, owner, port, user, owner)
        owner, port = await it.event()
        user = await it.connect(port)
        pairs = it.door.pairs["event"]
        end = await it.say(f"event\n{await owner.line()}\n".encode())
        await eventually(lambda: it.door.pairs["event"] > pairs)
        return cls(protocol, owner, port, user, end)

    async def say(self, data: bytes) -> None:
        """The service says something to the user."""
        if self.protocol == "multiplex":
            data = Frame(DATA, 0, 1, payload=data).encode()
        await self.end.send(data)

    async def finish(self) -> None:
        if self.protocol == "multiplex":
            await self.end.send(Frame(WINDOW, FIN, 1).encode())
        else:
            self.end.finish()

    async def reset(self) -> None:
        if self.protocol == "multiplex":
            await self.end.send(Frame(WINDOW, RST, 1).encode())
        else:
            self.end.reset()

    async def hears(self, what: str) -> None:
        """The service hears `eof` or `reset` of its user."""
        if self.protocol == "multiplex":
            frame = await self.end.frame()
            assert frame == Frame(WINDOW, FIN if what == "eof" else RST, 1)
        else:
            assert await self.end.end() == what


def of_each(test: Callable[[str], Coroutine[Any, Any, None]]) -> Callable[[str], None]:
    def all_of_them(protocol: str) -> None:
        run(test(protocol), timeout=40)

    return pytest.mark.parametrize("protocol", PROTOCOLS)(all_of_them)


def test_r1_bad_clients_are_closed_counted_and_seen_by_nobody_else() -> None:
    async def main() -> None:
        async with relay(max_pending=400, max_pending_per_source=5000) as it:
            served = await Served.of(it, "pool")
            before = len(os.listdir("/proc/self/fd"))
            for data, reason in (
                (b"", "closed"),
                (b"\n", "empty"),
                (b"GET / HTTP/1.1\r\n\r\n", "http"),
                (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "tls_not_served"),
                (b"bogus\n", "unknown_word"),
                (b"multiplex x\n", "several_words"),
                (b"event\n\n", "empty"),
                (b"x" * 9_000_000, "line_too_long"),
            ):
                counted = it.refused(reason)
                peer = await it.connect()
                try:
                    await peer.send(data)
                    if not data:
                        peer.finish()
                except ConnectionError:
                    pass  # it is closed before all is said
                assert await peer.end() in ("eof", "reset"), data[:20]
                assert it.refused(reason) == counted + 1
                peer.close()
            word = await it.say(b"multiplex\n")
            word.reset()
            silent = [await it.connect() for _ in range(300)]
            # 600 more, than which there are places: those who wait longest give way.
            more = [await it.connect() for _ in range(600)]
            await served.say(b"still here")
            assert await served.user.exactly(10) == b"still here"
            assert (await it.multiplex())[1] > 0
            for peer in (*silent, *more):
                assert await peer.end() in ("eof", "reset")
                peer.close()
            assert it.door.events["handshake_failed_timeout"] + it.door.events["gave_way"] >= 1
            it.peers[-1].close()
            await eventually(lambda: len(os.listdir("/proc/self/fd")) <= before + 8)

    run(main(), timeout=60)


def test_r2_many_event_users_at_once_and_no_id_is_lost() -> None:
    async def main() -> None:
        async with relay(user_wait=20.0) as it:
            control, port = await it.event()

            async def user(n: int) -> None:
                for round_ in range(6):
                    peer = await Peer.connect(port)
                    await peer.send(f"{n}.{round_}\n".encode())
                    assert await peer.to_end() == f"{n}.{round_}\n".encode()
                    peer.close()

            async def answer(known: str) -> None:
                end = await Peer.connect(it.port)
                await end.send(f"event\n{known}\n".encode())
                line = await end.line()
                await end.send(f"{line}\n".encode())
                end.close()

            async def serve() -> None:
                async with asyncio.TaskGroup() as group:
                    for _ in range(16 * 6):
                        group.create_task(answer(await control.line()))

            async with asyncio.TaskGroup() as group:
                group.create_task(serve())
                for n in range(16):
                    group.create_task(user(n))

    run(main(), timeout=60)


@of_each
async def test_r3_a_service_that_ends_takes_its_port_along(protocol: str) -> None:
    for how in ("close", "reset"):
        async with relay() as it:
            served = await Served.of(it, protocol)
            idle = await it.connect(served.port)
            if protocol == "pool":
                # The pair is the only member's: the pool lives as long as its grace.
                getattr(served.owner, how)()
                served.user.close()
            elif protocol == "event":
                getattr(served.owner, how)()
                # Whom it serves it goes on serving.
                await served.say(b"x")
                assert await served.user.exactly(1) == b"x"
                assert await idle.end() == "reset"
                served.user.close()
                served.end.close()
            else:
                getattr(served.owner, how)()
                assert await served.user.end() == "reset"
            await it.deserted()
            assert not await it.listens(served.port)


def test_r3_a_service_that_vanishes_without_a_word_is_noticed() -> None:
    async def main() -> None:
        async with relay(keepalive=0.2, keepalive_deadline=0.2) as it:
            service, port = await it.multiplex()
            user = await it.connect(port)
            await service.frame()
            assert (await service.frame()).kind == 2  # and it is not answered
            assert await user.end() == "reset"
            await it.deserted()

    run(main())


def test_r4_an_idle_pool_keeps_its_port_and_serves_at_once() -> None:
    async def main() -> None:
        async with relay(pool_grace=0.05) as it:
            pools = [await it.pool() for _ in range(20)]
            await asyncio.sleep(0.4)
            for member, port, _ in pools:
                user = await it.connect(port)
                await user.send(b"x")
                assert await member.exactly(1) == b"x"

    run(main())


def test_r5_a_busy_pool_is_no_dead_pool() -> None:
    async def main() -> None:
        async with relay(pool_grace=0.1, user_wait=10.0) as it:
            member, port, known = await it.pool()
            first = await it.connect(port)
            await first.send(b"1")
            assert await member.exactly(1) == b"1"
            waits = await it.connect(port)
            await waits.send(b"2")
            await asyncio.sleep(0.4)
            late = await it.say(f"pool\n{known}\n".encode())
            assert await late.exactly(1) == b"2"
            # And with nobody left it goes after its grace.
            for peer in (member, first, late, waits):
                peer.close()
            await it.deserted()

    run(main())


@pytest.mark.parametrize("how", ["close", "reset"])
def test_r6_a_member_that_died_while_idle_is_given_to_nobody(how: str) -> None:
    async def main() -> None:
        async with relay() as it:
            dead, port, known = await it.pool()
            alive = await it.say(f"pool\n{known}\n".encode())
            await eventually(lambda: _members(it) == 2)
            getattr(dead, how)()
            await eventually(lambda: _members(it) == 1)
            user = await it.connect(port)
            await user.send(b"x")
            assert await alive.exactly(1) == b"x"

    run(main())


def _members(it: Relay) -> int:
    (service,) = it.door.services
    cell = it.system.find(f"/rendezvous/services/{service}/service")
    assert cell is not None
    assert cell.actor is not None
    members = cell.actor.describe()["members"]
    assert isinstance(members, int)
    return members


def test_r7_a_user_waits_for_a_bounded_time() -> None:
    async def main() -> None:
        async with relay(user_wait=0.3, max_waiting=1) as it:
            control, port = await it.event()
            begin = asyncio.get_running_loop().time()
            user = await it.connect(port)
            known = await control.line()
            assert await it.turned_away(port) == "reset"
            assert await user.end() == "reset"
            assert 0.25 < asyncio.get_running_loop().time() - begin < 1.3
            assert it.refused("too_many_waiting") == 1
            assert it.refused("user_wait_over") == 1
            assert await (await it.say(f"event\n{known}\n".encode())).end() == "eof"

    run(main())


def test_r7_a_waiting_user_that_resets_waits_no_more_and_one_that_finished_does() -> None:
    async def main() -> None:
        async with relay(user_wait=5.0) as it:
            control, port = await it.event()
            user = await it.connect(port)
            known = await control.line()
            user.reset()
            await eventually(lambda: it.door.events["users_left"] == 1)
            assert await (await it.say(f"event\n{known}\n".encode())).end() == "eof"
            complete = await it.connect(port)
            await complete.send(b"request")
            complete.finish()
            answer = await it.say(f"event\n{await control.line()}\n".encode())
            assert await answer.to_end() == b"request"
            await answer.send(b"answer")
            answer.close()
            assert await complete.to_end() == b"answer"

    run(main())


@of_each
async def test_r8_the_service_hears_at_once_how_its_user_ended(protocol: str) -> None:
    async with relay() as it:
        for how, heard in (("finish", "eof"), ("close", "eof"), ("reset", "reset")):
            served = await Served.of(it, protocol)
            async with asyncio.timeout(2):
                await asyncio.sleep(0.02)
                getattr(served.user, how)()
                await served.hears(heard)
            if protocol != "pool":
                served.owner.close()
            served.end.close()
            served.user.close()
        await it.deserted()


@of_each
async def test_r8_no_user_leaves_anything_behind(protocol: str) -> None:
    async with relay(user_wait=10.0) as it:
        known = ""
        if protocol == "multiplex":
            owner, port = await it.multiplex()
        elif protocol == "event":
            owner, port = await it.event()
        else:
            owner, port, known = await it.pool()
        before = len(os.listdir("/proc/self/fd"))
        for n in range(150):
            ends: list[Peer] = []
            if protocol == "pool" and n:
                ends.append(await Peer.connect(it.port))
                await ends[0].send(f"pool\n{known}\n".encode())
            user = await Peer.connect(port)
            if protocol == "event":
                ends.append(await Peer.connect(it.port))
                await ends[0].send(f"event\n{await owner.line()}\n".encode())
                await user.send(b"x")
                assert await ends[0].exactly(1) == b"x"
            if n % 3 or not n:
                user.reset()
            else:
                user.close()
            for end in ends:
                end.close()
        users = f"/{next(iter(it.door.services))}/users"
        if protocol == "multiplex":
            for n in range(150):
                await owner.send(Frame(WINDOW, RST, 2 * n + 1).encode())
        await eventually(lambda: not it.actors(users), what="no user")
        assert len(os.listdir("/proc/self/fd")) <= before


@of_each
async def test_r9_a_user_gets_everything_and_the_end_or_an_error(protocol: str) -> None:
    async with relay() as it:
        served = await Served.of(it, protocol)
        await served.say(b"all of it")
        await served.finish()
        assert await served.user.to_end() == b"all of it"
        served.owner.close()
        served.end.close()
        served.user.close()
        await it.deserted()
        served = await Served.of(it, protocol)
        await served.say(b"a part")
        assert await served.user.exactly(6) == b"a part"
        await served.reset()
        assert await served.user.end() == "reset"


@of_each
async def test_r9_a_pair_that_is_killed_resets_both_and_nobody_else(protocol: str) -> None:
    async with relay() as it:
        served, other = await Served.of(it, protocol), await Served.of(it, protocol)
        victim = next(place for place in it.actors() if "/users/" in place)
        ref = it.system.ref(victim)
        assert ref is not None
        assert it.system.kill(ref)
        assert await served.user.end() == "reset"
        await served.hears("reset")
        await other.say(b"x")
        assert await other.user.exactly(1) == b"x"


@of_each
async def test_a_service_that_is_killed_costs_its_own_users_only(protocol: str) -> None:
    async with relay() as it:
        served, other = await Served.of(it, protocol), await Served.of(it, protocol)
        (victim,) = (one for one in it.door.services.values() if one.port == served.port)
        ref = it.system.ref(f"/rendezvous/services/{victim.id}/service")
        assert ref is not None
        assert it.system.kill(ref)
        assert await served.user.end() == "reset"
        assert await served.owner.end() in ("reset", "eof")
        await eventually(lambda: len(it.door.services) == 1)
        assert not await it.listens(served.port)
        await other.say(b"x")
        assert await other.user.exactly(1) == b"x"


@of_each
async def test_a_port_listener_that_is_killed_loses_nobody(protocol: str) -> None:
    async with relay() as it:
        served = await Served.of(it, protocol)
        (service,) = it.door.services
        for _ in range(3):
            ref = it.system.ref(f"/rendezvous/services/{service}/port")
            assert ref is not None
            it.system.kill(ref)
            await it.connect(served.port)
        await served.say(b"x")
        assert await served.user.exactly(1) == b"x"


@of_each
async def test_r10_a_request_piped_through_netcat_gets_its_whole_answer(protocol: str) -> None:
    async with relay() as it:
        served = await Served.of(it, protocol)
        await served.user.send(b"request")
        served.user.finish()
        if protocol == "multiplex":
            assert [(await served.end.frame()).flags for _ in range(2)] == [0, FIN]
        else:
            assert await served.end.to_end() == b"request"
        answer = os.urandom(1 << 20) * 2

        async def say() -> None:
            if protocol != "multiplex":
                await served.end.send(answer)
                served.end.finish()
                return
            credit, sent = 262_144, 0
            while sent < len(answer):
                size = min(credit, len(answer) - sent, 65_536)
                if size:
                    await served.end.send(Frame(DATA, 0, 1, payload=answer[sent:sent + size])
                                          .encode())  # fmt: skip
                    sent, credit = sent + size, credit - size
                else:
                    credit += (await served.end.frame()).length
            await served.finish()

        saying = asyncio.create_task(say())
        assert await served.user.to_end() == answer
        await saying


def test_r11_without_descriptors_nothing_is_lost() -> None:
    async def main() -> None:
        async with relay() as it:
            service, port = await it.multiplex()
            user = await it.connect(port)
            await service.frame()
            late = [socket.socket() for _ in range(2)]
            soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
            free = os.dup(0)
            os.close(free)
            resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
            try:
                for sock in late:
                    sock.setblocking(False)
                    assert sock.connect_ex(("127.0.0.1", port)) in (0, errno.EINPROGRESS)
                await eventually(lambda: it.door.events["out_of_descriptors"])
                await user.send(b"x")
                assert (await service.frame()).payload == b"x"
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            assert [(await service.frame()).stream_id for _ in late] == [3, 5]
            for sock in late:
                sock.close()

    run(main())


@of_each
async def test_r13_a_half_closed_silent_pair_is_freed(protocol: str) -> None:
    async with relay(quiet=QuietLimits(half_closed=0.2)) as it:
        served = await Served.of(it, protocol)
        await served.say(b"x")
        await served.finish()
        assert await served.user.to_end() == b"x"
        await eventually(lambda: not +it.door.pairs)
        assert await _writes_fail(served.user)


async def _writes_fail(peer: Peer) -> bool:
    for _ in range(100):
        try:
            await peer.send(b"into the void")
        except ConnectionError:
            return True
        await asyncio.sleep(0.01)
    return False


def test_r14_quotas_hold_and_are_counted() -> None:
    async def main() -> None:
        async with relay(max_services_per_source=2, max_users=2, max_pending_per_source=3) as it:
            service, port = await it.multiplex()
            await it.event()
            assert await (await it.say(b"multiplex\n")).end() == "eof"
            assert it.refused("too_many_services") == 1
            for _ in range(2):
                await it.connect(port)
                await service.frame()
            assert await it.turned_away(port) == "reset"
            assert it.door.events["refused_pending_limit"] == 1
            for _ in range(3):
                await it.connect()
            assert await it.turned_away(0) == "eof"
            assert it.door.events["refused_pending_per_source_limit"] == 1
            # What is given back can be had again.
            service.close()
            await eventually(lambda: len(it.door.services) == 1)
            await eventually(lambda: it.door.events["handshake_failed_timeout"] == 3)
            assert (await it.multiplex())[1]

    run(main())


def test_r15_drain_refuses_newcomers_and_waits_for_who_is_here() -> None:
    async def main() -> None:
        async with relay() as it:
            served = [await Served.of(it, protocol) for protocol in PROTOCOLS]
            draining = asyncio.create_task(it.rendezvous.drain())
            assert await served[0].owner.frame() == Frame(GO_AWAY)
            for one in served:
                await one.say(b"x")
                assert await one.user.exactly(1) == b"x"
                assert not await it.listens(one.port) or (await it.turned_away(one.port) == "reset")
            assert await (await it.say(b"multiplex\n")).end() == "eof"
            assert it.refused("draining") == 1
            assert not draining.done()
            for one in served:
                await one.finish()
                assert await one.user.to_end() == b""
                one.user.close()
            async with asyncio.timeout(5):
                await draining

    run(main())


def test_a_user_that_does_not_read_stalls_its_own_stream_and_no_other() -> None:
    async def main() -> None:
        async with relay() as it:
            service, port = await it.multiplex()
            slow, quick = await it.connect(port), await it.connect(port)
            assert [(await service.frame()).stream_id for _ in range(2)] == [1, 3]
            slow.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            credit, sent, stalled = 262_144, 0, False
            while not stalled and sent < 32 << 20:
                while credit:
                    data = Frame(DATA, 0, 1, payload=bytes(min(credit, 65_536)))
                    await service.send(data.encode())
                    sent, credit = sent + len(data.payload), credit - len(data.payload)
                try:
                    async with asyncio.timeout(0.3):
                        credit += (await service.frame()).length
                except TimeoutError:
                    stalled = True
            assert stalled, "a slow reader bounds its writer"
            for turn in range(20):
                await quick.send(bytes([turn]))
                while (frame := await service.frame()).stream_id != 3:
                    pass
                assert frame.payload == bytes([turn])
                await service.send(Frame(DATA, 0, 3, payload=bytes([turn])).encode())
                assert await quick.exactly(1) == bytes([turn])

    run(main(), timeout=40)
