"""The batched UDP socket against plain sockets of the kernel: order, content, refusals, bounds."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import time
from contextlib import ExitStack
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.runtime import Actor, ActorSystem, ChildSpec, Restart, Supervisor
from actors.transport.udp import Address, PrefixedSocket, UdpSocket, bind_udp
from actors.transport.udp import udp_socket as module
from actors.transport.udp.segmentation import Segmentation
from actors.transport.udp.udp_socket import RECEIVE_SECONDS
from tests.conftest import eventually, run


class Received:
    """What a socket under test received, datagram by datagram."""

    def __init__(self) -> None:
        self.datagrams: list[bytes] = []
        self.sources: set[Address] = set()
        self.runs = 0

    def take(self, buffer: memoryview, segment_size: int, address: Address) -> None:
        self.runs += 1
        self.sources.add(address)
        size = len(buffer)
        self.datagrams += [
            bytes(buffer[at : at + segment_size]) for at in range(0, size or 1, segment_size)
        ]


def numbered(count: int, size: int, last: int | None = None) -> list[bytes]:
    """Distinct datagrams, the last one of another size."""
    datagrams = [index.to_bytes(4, "big") * (size // 4) for index in range(count)]
    if last is not None:
        datagrams[-1] = datagrams[-1][:last]
    return datagrams


def pair(
    host: str = "127.0.0.1", *, send_offload: bool = True, receive_offload: bool = True
) -> tuple[UdpSocket, UdpSocket, Received]:
    """A sender, a receiver, and what the receiver gets."""
    received = Received()
    receiver = UdpSocket(bind_udp(host, 0), received.take, offload=receive_offload)
    sender = UdpSocket(bind_udp(host, 0), lambda *_: None, offload=send_offload)
    return sender, receiver, received


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
@pytest.mark.parametrize("send_offload", [True, False])
@pytest.mark.parametrize("receive_offload", [True, False])
@pytest.mark.parametrize(
    "count, size, last", [(1, 1200, None), (3, 1200, 300), (40, 1200, 4), (200, 100, None)]
)
def test_a_run_arrives_complete_and_in_order(
    host: str,
    send_offload: bool,
    receive_offload: bool,
    count: int,
    size: int,
    last: int | None,
) -> None:
    async def scenario() -> None:
        sender, receiver, received = pair(
            host, send_offload=send_offload, receive_offload=receive_offload
        )
        datagrams = numbered(count, size, last)
        assert sender.send_segments(datagrams, size, receiver.address) == count
        await eventually(lambda: len(received.datagrams) >= count)
        assert received.datagrams == datagrams
        assert received.sources == {sender.address}
        assert receiver.statistics().datagrams_in == count
        assert sender.statistics().bytes_out == sum(map(len, datagrams))
        sender.abort()
        receiver.abort()

    run(scenario())


def test_offload_takes_fewer_calls_than_datagrams() -> None:
    async def scenario() -> None:
        sender, receiver, received = pair()
        statistics = sender.statistics()
        if not (statistics.send_offload and receiver.statistics().receive_offload):
            sender.abort()
            receiver.abort()
            return  # this kernel has none; the other tests cover the way without
        sender.send_segments(numbered(50, 1200), 1200, receiver.address)
        await eventually(lambda: len(received.datagrams) == 50)
        assert sender.statistics().send_calls == 1
        assert received.runs < 50
        sender.abort()
        receiver.abort()

    run(scenario())


@pytest.mark.parametrize("offload", [True, False])
def test_single_datagrams_of_one_sender_become_a_run(offload: bool) -> None:
    async def scenario() -> None:
        received = Received()
        receiver = UdpSocket(bind_udp("127.0.0.1", 0), received.take, offload=offload)
        datagrams = numbered(50, 1200, 300)
        with bind_udp("127.0.0.1", 0) as plain:
            for datagram in datagrams:
                plain.sendto(datagram, receiver.address)
        await eventually(lambda: len(received.datagrams) == 50)
        assert received.datagrams == datagrams
        assert received.runs == 1
        receiver.abort()

    run(scenario())


@settings(max_examples=60)
@given(
    flights=st.lists(
        st.tuples(st.integers(0, 2), st.sampled_from([0, 1, 40, 40, 1200, 1200, 1200])),
        min_size=1,
        max_size=100,
    ),
    offload=st.booleans(),
)
def test_runs_keep_every_datagram_and_the_order_of_each_sender(
    flights: list[tuple[int, int]], offload: bool
) -> None:
    async def scenario() -> None:
        taken: dict[Address, list[bytes]] = {}

        def take(buffer: memoryview, segment_size: int, address: Address) -> None:
            assert segment_size >= 1
            one = Received()
            one.take(buffer, segment_size, address)
            taken.setdefault(address, []).extend(one.datagrams)

        receiver = UdpSocket(bind_udp("127.0.0.1", 0), take, offload=offload)
        senders = [bind_udp("127.0.0.1", 0) for _ in range(3)]
        sent: dict[Address, list[bytes]] = {}
        for number, (who, size) in enumerate(flights):
            datagram = number.to_bytes(4, "big").ljust(size, b".")[:size]
            senders[who].sendto(datagram, receiver.address)
            sent.setdefault(senders[who].getsockname(), []).append(datagram)
        await eventually(lambda: sum(map(len, taken.values())) == len(flights))
        assert taken == sent
        assert receiver.statistics().datagrams_in == len(flights)
        receiver.abort()
        for sender in senders:
            sender.close()

    run(scenario())


def test_an_empty_datagram_is_one_datagram() -> None:
    async def scenario() -> None:
        sender, receiver, received = pair()
        assert sender.send(b"", receiver.address) == 1
        await eventually(lambda: received.runs == 1)
        assert received.datagrams == [b""]
        sender.abort()
        receiver.abort()

    run(scenario())


class _Refusing(socket.socket):
    """A kernel or device that refuses segmentation with this errno."""

    refusal = errno.EIO

    def sendmsg(self, *_: object) -> int:
        raise OSError(self.refusal, os.strerror(self.refusal))


@pytest.mark.parametrize("refusal", [errno.EIO, errno.EINVAL, errno.ENOPROTOOPT, errno.EMSGSIZE])
def test_a_refused_run_still_arrives(refusal: int) -> None:
    async def scenario() -> None:
        received = Received()
        receiver = UdpSocket(bind_udp("127.0.0.1", 0), received.take)
        plain = bind_udp("127.0.0.1", 0)
        refusing = _Refusing(fileno=plain.detach())
        refusing.refusal = refusal
        sender = UdpSocket(refusing, lambda *_: None)
        datagrams = numbered(100, 1000)
        assert sender.send_segments(datagrams, 1000, receiver.address) == 100
        await eventually(lambda: len(received.datagrams) == 100)
        assert received.datagrams == datagrams
        assert not sender.statistics().send_offload
        sender.abort()
        receiver.abort()

    run(scenario())


def test_segmentation_learns_the_limits_of_its_socket() -> None:
    with bind_udp("127.0.0.1", 0) as sock:
        limits = Segmentation(sock)
        assert limits.enabled
        assert limits.per_call(1200) == 54
        assert limits.per_call(100) == 128
        assert limits.per_call(0) == 1
        assert limits.refused(OSError(errno.EINVAL, ""), 128, 100)
        assert limits.per_call(100) == 64  # an older kernel
        assert limits.refused(OSError(errno.EINVAL, ""), 7, 8000)
        assert limits.per_call(8000) == 1  # above the path's MTU
        assert limits.per_call(1400) == 46
        assert not limits.refused(OSError(errno.ENETUNREACH, ""), 7, 1200)
        assert limits.per_call(1200) == 54
        assert limits.refused(OSError(errno.EIO, ""), 7, 1200)
        assert limits.per_call(1200) == 1


@pytest.mark.parametrize(
    "address", [("127.0.0.1", 0), ("255.255.255.255", 9)], ids=["port zero", "broadcast"]
)
def test_an_address_nobody_can_reach_costs_only_its_datagrams(address: Address) -> None:
    async def scenario() -> None:
        sender, receiver, received = pair()
        offload = sender.statistics().send_offload
        assert sender.send_segments(numbered(10, 1200), 1200, address) == 0
        assert sender.send(b"x", address) == 0
        assert sender.statistics().errors
        assert sender.statistics().send_offload == offload
        assert sender.send(b"after", receiver.address) == 1
        await eventually(lambda: received.datagrams == [b"after"])
        sender.abort()
        receiver.abort()

    run(scenario())


def _full_wire() -> tuple[UdpSocket, socket.socket]:
    """A datagram socket whose peer reads nothing, so that the kernel soon takes nothing."""
    name = f"\0trunkline-udp-{os.getpid()}"
    peer = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    peer.bind(name)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    sock.connect(name)
    return UdpSocket(sock, lambda *_: None), peer


def test_what_the_kernel_does_not_take_is_held_in_order_and_sent_later() -> None:
    async def scenario() -> None:
        sender, peer = _full_wire()
        address = cast("Address", peer.getsockname())
        datagrams = numbered(600, 400)
        taken = sender.send_segments(datagrams[:500], 400, address)
        taken += sender.send_segments(datagrams[500:], 400, address)
        assert taken == 600
        assert 0 < sender.statistics().held < 600
        assert sender.statistics().dropped == 0
        arrived: list[bytes] = []

        def readable() -> None:
            arrived.append(peer.recv(65536))

        asyncio.get_running_loop().add_reader(peer, readable)
        await eventually(lambda: len(arrived) == 600)
        assert arrived == datagrams
        assert sender.statistics().held == 0
        assert sender.statistics().held_bytes == 0
        asyncio.get_running_loop().remove_reader(peer)
        peer.close()
        sender.abort()

    run(scenario())


@pytest.mark.parametrize("size", [1000, 1])
def test_the_backlog_is_bounded_and_drops_are_counted(size: int) -> None:
    async def scenario() -> None:
        sender, peer = _full_wire()
        address = cast("Address", peer.getsockname())
        asked, taken = 0, 0
        while asked < 8000:
            taken += sender.send_segments([b"x" * size] * 50, size, address)
            asked += 50
        statistics = sender.statistics()
        assert statistics.held_bytes <= module.MAX_BACKLOG_BYTES
        assert statistics.held <= module.MAX_BACKLOG_DATAGRAMS
        assert statistics.dropped == asked - taken > 0
        sender.abort()
        assert sender.statistics().held == 0
        assert sender.send(b"late", address) == 0
        peer.close()

    run(scenario())


@pytest.mark.parametrize("size", [1200, 60])
def test_datagrams_that_cost_much_leave_the_loop_to_others(size: int) -> None:
    """They are as small and as few as allowed; only their handling takes long."""

    async def scenario() -> None:
        batches, turns, most = 0, 0, 0

        def costly(buffer: memoryview, segment_size: int, address: Address) -> None:
            nonlocal batches
            batches += 1
            time.sleep(RECEIVE_SECONDS / 2)

        receiver = UdpSocket(bind_udp("127.0.0.1", 0), costly, offload=False)
        with ExitStack() as stack:
            # Of many senders, so that none is a run with the one before it.
            for _ in range(40):
                sock = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
                sock.sendto(bytes(size), receiver.address)
            while batches < 40:
                before = batches
                await asyncio.sleep(0)
                most, turns = max(most, batches - before), turns + 1
        receiver.abort()
        assert most <= 4

    run(scenario())


def test_a_failing_callback_is_the_exit_of_its_owner() -> None:
    sockets: list[UdpSocket] = []

    class Owner(Actor):
        def init(self) -> None:
            def broken(*_: object) -> None:
                raise RuntimeError("broken callback")

            sock = UdpSocket(bind_udp("127.0.0.1", 0), broken, guard=self.guard)
            sockets.append(self.own(sock, "socket"))

    async def scenario() -> None:
        system = ActorSystem("test")
        await system.start(
            lambda: Supervisor([ChildSpec("owner", Owner, restart=Restart.PERMANENT)])
        )
        with bind_udp("127.0.0.1", 0) as plain:
            plain.sendto(b"x", sockets[0].address)
        await eventually(lambda: len(sockets) == 2)  # restarted, with a socket of its own
        assert sockets[0].closed
        assert not sockets[1].closed
        await system.stop()
        assert sockets[1].closed

    run(scenario())


def test_abort_in_a_callback_ends_the_batch() -> None:
    async def scenario() -> None:
        seen: list[bytes] = []
        holder: list[UdpSocket] = []

        def take(buffer: memoryview, _: int, __: Address) -> None:
            seen.append(bytes(buffer))
            holder[0].abort()
            holder[0].abort()

        receiver = UdpSocket(bind_udp("127.0.0.1", 0), take, offload=False)
        holder.append(receiver)
        with bind_udp("127.0.0.1", 0) as plain:
            for index in range(5):
                plain.sendto(bytes(index + 1), receiver.address)  # each longer: five runs
        await eventually(lambda: bool(seen))
        assert seen == [b"\0"]

    run(scenario())


def test_the_ipv6_wildcard_takes_ipv4_as_well() -> None:
    async def scenario() -> None:
        received = Received()
        receiver = UdpSocket(bind_udp("::", 0), received.take)
        with bind_udp("127.0.0.1", 0) as plain:
            plain.sendto(b"four", ("127.0.0.1", receiver.address[1]))
        await eventually(lambda: received.datagrams == [b"four"])
        (source,) = received.sources
        assert source[0] == "::ffff:127.0.0.1"
        receiver.abort()

    run(scenario())


def test_a_prefixed_socket_puts_its_prefix_before_every_datagram() -> None:
    async def scenario() -> None:
        received = Received()
        receiver = UdpSocket(bind_udp("127.0.0.1", 0), received.take)
        sender = PrefixedSocket(bind_udp("127.0.0.1", 0), lambda *_: None)
        sender.prefix = b"id: "
        address = receiver.address
        datagrams = numbered(5, 100, 40)
        assert sender.send_segments(datagrams, 100, address) == 5
        assert sender.send(b"one", address) == 1
        assert sender.send_bare(b"bare", address) == 1
        await eventually(lambda: len(received.datagrams) == 7)
        prefixed = [b"id: " + datagram for datagram in datagrams]
        assert received.datagrams == [*prefixed, b"id: one", b"bare"]
        sender.abort()
        receiver.abort()

    run(scenario())
