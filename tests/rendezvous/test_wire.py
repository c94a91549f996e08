"""What the wire must look like for services and users of today (sheet 5.1)."""

from __future__ import annotations

import asyncio
import re
import socket

import pytest

from tests.conftest import eventually, run
from tests.rendezvous.rig import Peer, Relay, free_base, relay
from tests.wire.yamux.peer import ACK, DATA, FIN, GO_AWAY, PING, RST, SYN, WINDOW, Frame

SYN_1 = bytes.fromhex("000100010000000100000000")


def test_w1_ports_are_given_in_turn_above_the_base() -> None:
    async def main() -> None:
        base = free_base()
        async with relay(port=base) as it:
            _, first = await it.multiplex()
            _, second, _ = await it.pool()
            _, third = await it.event()
            _, fourth = await it.multiplex()
            assert [first, second, third, fourth] == [base + 1, base + 2, base + 3, base + 4]

    run(main())


def test_w2_the_first_lines_may_come_as_they_like() -> None:
    async def main() -> None:
        async with relay() as it:
            for data in (b"multiplex\r\n", b"  \tmultiplex  \n", b"multiplex"):
                service = await it.say(data)
                if data == b"multiplex":
                    service.finish()
                assert int(await service.line()) > 0
            bytewise = await it.connect()
            for i in range(len(b"pool\nnew\n")):
                await bytewise.send(b"pool\nnew\n"[i : i + 1])
            assert int(await bytewise.line()) > 0
            assert re.fullmatch("[0-9A-F]{10}", await bytewise.line())

    run(main())


def test_w3_and_w4_users_are_streams_with_odd_ids_whatever_the_service_acknowledges() -> None:
    async def main() -> None:
        async with relay() as it:
            service, port = await it.multiplex()
            user = await it.connect(port)
            assert await service.exactly(12) == SYN_1
            # Its data does not wait for an ACK, and the service's needs none.
            await user.send(b"hello")
            assert await service.frame() == Frame(DATA, 0, 1, 5, b"hello")
            await service.send(Frame(DATA, 0, 1, payload=b"reply").encode())
            assert await user.exactly(5) == b"reply"
            for stream_id, answer in (
                (3, Frame(WINDOW, ACK, 3)),
                (5, Frame(WINDOW, ACK, 5, 6_029_312)),
            ):
                other = await it.connect(port)
                assert await service.frame() == Frame(WINDOW, SYN, stream_id)
                await service.send(answer.encode())
                await service.send(Frame(DATA, FIN, stream_id, payload=b"bye").encode())
                assert await other.to_end() == b"bye"
            # Pings are answered, whatever stream they name.
            await service.send(Frame(PING, SYN, 7, 99).encode())
            assert await service.frame() == Frame(PING, ACK, 0, 99)

    run(main())


def test_a_service_that_opens_a_stream_is_told_no() -> None:
    async def main() -> None:
        async with relay() as it:
            service, port = await it.multiplex()
            await service.send(Frame(WINDOW, SYN, 2).encode())
            assert await service.frame() == Frame(WINDOW, RST, 2)
            await it.connect(port)
            assert await service.frame() == Frame(WINDOW, SYN, 1)

    run(main())


def test_as_many_users_wait_unanswered_as_the_protocol_allows_and_the_others_follow() -> None:
    async def main() -> None:
        async with relay(user_wait=10.0) as it:
            service, port = await it.multiplex()
            for _ in range(300):
                await it.connect(port)
            opened = [await service.frame() for _ in range(256)]
            assert opened == [Frame(WINDOW, SYN, 2 * n + 1) for n in range(256)]
            assert service.frames == []
            await service.send(b"".join(Frame(WINDOW, ACK, 2 * n + 1).encode() for n in range(44)))
            more = [await service.frame() for _ in range(44)]
            assert [one.stream_id for one in more] == [2 * n + 1 for n in range(256, 300)]

    run(main(), timeout=40)


def test_w5_and_w6_members_of_a_pool_join_by_its_id_and_may_speak_first() -> None:
    async def main() -> None:
        async with relay() as it:
            first, port, known = await it.pool()
            for wrong in ("0000000000", known.lower(), known + " x", "new x"):
                assert await (await it.say(f"pool\n{wrong}\n".encode())).end() in ("eof", "reset")
            assert await (await it.say(f"event\n{known}\n".encode())).end() == "eof"
            second = await it.say(f"pool\n {known}\r\nSSH-2.0\r\n".encode())
            await first.send(b"220 ")
            await first.send(b"ready\r\n")
            await asyncio.sleep(0.05)
            one = await it.connect(port)
            assert await one.exactly(11) == b"220 ready\r\n"
            other = await it.connect(port)
            assert await other.exactly(9) == b"SSH-2.0\r\n"
            await one.send(b"1")
            await other.send(b"2")
            assert (await first.exactly(1), await second.exactly(1)) == (b"1", b"2")

    run(main())


def test_w7_an_event_is_answered_once_and_no_byte_of_either_side_is_lost() -> None:
    async def main() -> None:
        async with relay() as it:
            control, port = await it.event()
            user = await it.connect(port)
            await user.send(b"early ")
            known = await control.line()
            assert re.fullmatch("[0-9A-F]{10}", known)
            await user.send(b"bird")
            answer = await it.say(f"event\n{known}\nbanner".encode())
            assert await user.exactly(6) == b"banner"
            assert await answer.exactly(10) == b"early bird"
            assert await (await it.say(f"event\n{known}\n".encode())).end() == "eof"
            assert await (await it.say(f"pool\n{known}\n".encode())).end() == "eof"
            # What the service writes on its control connection is nobody's.
            await control.send(b"noise" * 1000)
            await it.connect(port)
            assert await control.line() != known

    run(main())


def test_any_connection_may_answer_and_of_two_exactly_one_does() -> None:
    async def main() -> None:
        async with relay() as it:
            control, port = await it.event()
            user = await it.connect(port)
            known = await control.line()
            answers = [await it.say(f"event\n{known}\n".encode()) for _ in range(2)]
            await user.send(b"x")
            heard = await asyncio.gather(
                *(one.exactly(1) for one in answers), return_exceptions=True
            )
            assert sorted(map(repr, heard))[-1] == repr(b"x")
            assert sum(one == b"x" for one in heard) == 1

    run(main())


def test_w8_busy_neighbours_are_skipped_and_freed_ports_given_again() -> None:
    async def main() -> None:
        base = free_base()
        with socket.socket() as one, socket.socket(socket.AF_INET6) as two:
            one.bind(("127.0.0.1", base + 1))
            one.listen()
            two.bind(("::1", base + 2))
            two.listen()
            with socket.socket(type=socket.SOCK_DGRAM) as udp:
                udp.bind(("127.0.0.1", base + 3))
                async with relay(host="::", port=base) as it:
                    third, port = await it.multiplex()
                    assert port == base + 3
                    assert (await it.multiplex())[1] == base + 4
                    third.close()
                    await eventually(lambda: len(it.door.services) == 1)
                    assert (await it.multiplex())[1] == base + 3
                    user = await it.connect(base + 3, host="::1")
                    user.close()

    run(main())


def test_w8_all_ports_busy_is_said_to_the_service_and_to_nobody_else() -> None:
    async def main() -> None:
        base = free_base()
        async with relay(port=base, ports=frozenset({base + 1, base + 2})) as it:
            service, port = await it.multiplex()
            await it.pool()
            for word in (b"multiplex\n", b"pool\nnew\n", b"event\nnew\n"):
                assert await (await it.say(word)).end() == "eof"
            assert it.refused("ports_exhausted") == 3
            asked = await it.say(b"relay/1 name=x\nmultiplex\n")
            assert await asked.to_end() == b"ok\nerror ports_exhausted\n"
            await it.connect(port)
            assert await service.exactly(12) == SYN_1

    run(main())


@pytest.mark.parametrize("code", [1, 2, 99])
def test_a_session_that_goes_away_in_anger_is_over(code: int) -> None:
    async def main() -> None:
        async with relay() as it:
            service, port = await it.multiplex()
            user = await it.connect(port)
            await service.frame()
            await service.send(Frame(GO_AWAY, length=code).encode())
            assert await user.end() == "reset"
            assert await service.end() == "eof"
            await it.deserted()
            assert not await it.listens(port)

    run(main())


def test_a_service_that_drains_keeps_its_users_and_gets_no_more() -> None:
    async def main() -> None:
        async with relay() as it:
            service, port = await it.multiplex()
            user = await it.connect(port)
            await service.frame()
            await service.send(Frame(GO_AWAY).encode())
            await eventually(lambda: next(iter(it.door.services.values())).refusing)
            assert await it.turned_away(port) == "reset"
            await user.send(b"x")
            assert (await service.frame()).payload == b"x"
            await service.send(Frame(DATA, FIN, 1, payload=b"y").encode())
            assert await user.to_end() == b"y"
            user.close()
            await it.deserted()

    run(main())


def test_half_closing_works_in_both_directions_of_every_protocol() -> None:
    async def main() -> None:
        async with relay() as it:
            service, port = await it.multiplex()
            user = await it.connect(port)
            await service.frame()
            await service.send(Frame(WINDOW, ACK, 1).encode())
            await user.send(b"q")
            user.finish()
            assert [await service.frame() for _ in range(2)] == [
                Frame(DATA, 0, 1, 1, b"q"),
                Frame(WINDOW, FIN, 1),
            ]
            await service.send(Frame(DATA, FIN, 1, payload=b"a").encode())
            assert await user.to_end() == b"a"
            for make in (_of_pool, _of_event):
                user, end = await make(it)
                await user.send(b"q")
                user.finish()
                assert await end.to_end() == b"q"
                await end.send(b"a")
                end.finish()
                assert await user.to_end() == b"a"

    run(main())


async def _of_pool(it: Relay) -> tuple[Peer, Peer]:
    member, port, _ = await it.pool()
    return await it.connect(port), member


async def _of_event(it: Relay) -> tuple[Peer, Peer]:
    control, port = await it.event()
    user = await it.connect(port)
    return user, await it.say(f"event\n{await control.line()}\n".encode())
