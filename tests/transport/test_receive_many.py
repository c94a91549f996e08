"""Single datagrams by one call: nothing is lost, mixed up or out of order, whoever sends what."""

from __future__ import annotations

import asyncio
import socket
from collections import defaultdict

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from actors.transport.udp import AskedAddress, UdpSocket, bind_udp
from actors.transport.udp.receive_many import LARGEST_EXPECTED, SLOTS, many_receiver
from actors.transport.udp.segmentation import Segmentation
from tests.conftest import eventually, run

#: Sizes around those that are expected, and what spills.
SIZES = st.sampled_from([0, 1, 34, 275, 1283, 1284, 1285, 2000, LARGEST_EXPECTED + 1, 9000])
FLOW = st.lists(st.tuples(st.integers(0, 2), SIZES), max_size=90)


class Heard:
    """Datagrams by sender."""

    def __init__(self) -> None:
        self.by: dict[tuple[object, ...], list[bytes]] = defaultdict(list)
        self.runs = 0
        self.asked: set[bool] = set()

    def take(self, buffer: memoryview, size: int, address: tuple[object, ...]) -> None:
        self.runs += 1
        self.asked.add(type(address) is AskedAddress)
        assert size >= 1
        for at in range(0, len(buffer) or 1, size):
            self.by[tuple(address)].append(bytes(buffer[at : at + size]))

    @property
    def count(self) -> int:
        return sum(map(len, self.by.values()))


def datagram(number: int, size: int) -> bytes:
    return (number.to_bytes(4, "big") * (size // 4 + 1))[:size]


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "0.0.0.0", "::"])
@given(flow=FLOW)
@settings(max_examples=25, deadline=None)
@example(flow=[(0, 1284)] * 90)
@example(flow=[(n % 3, 1284) for n in range(90)])
def test_everything_arrives_in_the_order_of_its_sender(
    host: str, flow: list[tuple[int, int]]
) -> None:
    async def main() -> None:
        heard = Heard()
        receiver = UdpSocket(bind_udp(host, 0), heard.take)
        literal = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
        senders = [bind_udp(literal, 0) for _ in range(3)]
        try:
            target = (literal, receiver.address[1])
            # So many that single ones are expected from then on.
            for number in range(8):
                senders[0].sendto(datagram(number, 1284), target)
            await eventually(lambda: heard.count == 8)
            heard.by.clear()
            sent: dict[tuple[object, ...], list[bytes]] = defaultdict(list)
            for number, (which, size) in enumerate(flow):
                data = datagram(number, size)
                senders[which].sendto(data, target)
                sent[tuple(senders[which].getsockname())].append(data)
            await eventually(lambda: heard.count == len(flow))
            assert heard.by == sent
            assert heard.asked == {host in ("0.0.0.0", "::")}
        finally:
            receiver.abort()
            for one in senders:
                one.close()

    run(main())


def test_many_come_by_few_calls_and_as_few_runs() -> None:
    async def main() -> None:
        if many_receiver() is None:
            return  # not on this system
        heard = Heard()
        receiver = UdpSocket(bind_udp("127.0.0.1", 0), heard.take)
        data, acks = bind_udp("127.0.0.1", 0), bind_udp("127.0.0.1", 0)
        try:
            before = receiver.statistics()
            for _ in range(2):
                before, heard.runs = receiver.statistics(), 0
                total = heard.count + SLOTS
                for number in range(SLOTS):  # acknowledgements come between the data
                    one, size = (acks, 34) if number % 8 == 7 else (data, 1284)
                    one.sendto(datagram(number, size), receiver.address)
                await eventually(lambda total=total: heard.count == total)  # type: ignore[misc]
            after = receiver.statistics()
            assert after.receive_calls - before.receive_calls <= 2
            assert heard.runs <= 1 + SLOTS // 8
            assert after.datagrams_in == 2 * SLOTS
            assert after.bytes_in == 2 * (SLOTS // 8) * (7 * 1284 + 34)
        finally:
            receiver.abort()
            data.close()
            acks.close()

    run(main())


def test_runs_are_taken_as_runs_again() -> None:
    """What the kernel has put together is not cut by what was expected before."""

    async def main() -> None:
        heard = Heard()
        receiver = UdpSocket(bind_udp("127.0.0.1", 0), heard.take)
        sender = bind_udp("127.0.0.1", 0)
        sent = []
        try:
            for number in range(8):
                sent.append(datagram(number, 500))
                sender.sendto(sent[-1], receiver.address)
            await eventually(lambda: heard.count == 8)
            for start in (100, 200, 300):
                run_of = [datagram(number, 1000) for number in range(start, start + 40)]
                run_of[-1] = run_of[-1][:77]
                sender.sendmsg(run_of, Segmentation.ancillary(1000), 0, receiver.address)
                sent += run_of
                total = len(sent)
                await eventually(lambda total=total: heard.count == total)  # type: ignore[misc]
            assert heard.by[sender.getsockname()] == sent
            assert receiver.statistics().datagrams_in == len(sent)
        finally:
            receiver.abort()
            sender.close()

    run(main())


def test_a_socket_that_is_closed_in_the_middle_hands_on_nothing_more() -> None:
    async def main() -> None:
        heard = Heard()

        def take(buffer: memoryview, size: int, address: tuple[object, ...]) -> None:
            heard.take(buffer, size, address)
            if heard.count > 8:
                receiver.abort()

        receiver = UdpSocket(bind_udp("127.0.0.1", 0), take)
        senders = [bind_udp("127.0.0.1", 0) for _ in range(2)]
        try:
            for number in range(8):
                senders[0].sendto(datagram(number, 100), receiver.address)
            await eventually(lambda: heard.count == 8)
            target = receiver.address
            for one in senders:
                one.sendto(b"last", target)
            await eventually(lambda: receiver.closed)
            await asyncio.sleep(0)
            assert heard.count == 9
        finally:
            receiver.abort()
            for one in senders:
                one.close()

    run(main())


def test_errors_of_earlier_sends_leave_it_usable() -> None:
    async def main() -> None:
        heard = Heard()
        receiver = UdpSocket(bind_udp("127.0.0.1", 0), heard.take)
        sender, gone = bind_udp("127.0.0.1", 0), bind_udp("127.0.0.1", 0)
        nobody = gone.getsockname()
        gone.close()
        try:
            for number in range(8):
                sender.sendto(datagram(number, 100), receiver.address)
            await eventually(lambda: heard.count == 8)
            receiver._sock.connect(nobody)  # errors are told to connected sockets only
            receiver._sock.send(b"x")
            await eventually(lambda: receiver.errors["receive_ECONNREFUSED"] > 0)
            receiver._sock.connect(sender.getsockname())
            sender.sendto(b"still", receiver.address)
            await eventually(lambda: heard.count == 9)
        finally:
            receiver.abort()
            sender.close()

    run(main())


def test_the_family_of_a_sender_is_as_the_socket_module_says() -> None:
    async def main() -> None:
        heard = Heard()
        receiver = UdpSocket(bind_udp("::", 0), heard.take)
        sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sender.bind(("127.0.0.1", 0))
        try:
            for number in range(16):
                sender.sendto(datagram(number, 100), ("127.0.0.1", receiver.address[1]))
                await asyncio.sleep(0)
            await eventually(lambda: heard.count == 16)
            port = sender.getsockname()[1]
            assert set(heard.by) == {("::ffff:127.0.0.1", port, 0, 0)}
        finally:
            receiver.abort()
            sender.close()

    run(main())
