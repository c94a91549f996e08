"""Two sockets coupled: every byte, half-close, errors, slow readers, limits."""

from __future__ import annotations

import asyncio
import hashlib
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from actors.transport.tcp.pump import PipePool, QuietLimits, SocketPair, Throttle
from actors.transport.tcp.pump.pipes import PIPE_BYTES
from actors.transport.tcp.pump.reset import close_with_reset
from tests.conftest import eventually, run
from tests.transport.sockets import connected, exactly, read_to_end


def unguarded(_kind: str, function: Any) -> Any:
    return function


class Rig:
    """user = near user end ... pair ... far service end = service."""

    def __init__(self, *, pipes: int = 4, buffers: int = 0, **options: Any) -> None:
        self.user, near = connected(buffers)
        self.service, far = connected(buffers)
        self.pipes = PipePool(pipes)
        self.ends: list[str] = []
        self.pair = SocketPair(
            near, far, pipes=self.pipes, on_end=self.ends.append, guard=unguarded, **options
        )


@contextmanager
def rig(**options: Any) -> Iterator[Rig]:
    made = Rig(**options)
    try:
        yield made
    finally:
        made.pair.abort()
        made.pipes.abort()
        made.user.close()
        made.service.close()
        assert made.pipes.open == 0


@pytest.mark.parametrize("pipes", [4, 0])
def test_bulk_arrives_whole_both_ways_with_and_without_pipes(pipes: int) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        up, down = os.urandom(1 << 20) * 5, os.urandom(1 << 20) * 3
        with rig(pipes=pipes) as r:
            r.pair.start()

            async def send(sock: socket.socket, data: bytes) -> None:
                await loop.sock_sendall(sock, data)
                sock.shutdown(socket.SHUT_WR)

            async with asyncio.TaskGroup() as group:
                group.create_task(send(r.user, up))
                group.create_task(send(r.service, down))
                got_up = group.create_task(read_to_end(r.service))
                got_down = group.create_task(read_to_end(r.user))
            assert got_up.result() == (len(up), hashlib.sha256(up).hexdigest())
            assert got_down.result() == (len(down), hashlib.sha256(down).hexdigest())
            await eventually(lambda: r.ends == [""])
            assert (r.pair.bytes_in, r.pair.bytes_out) == (len(up), len(down))
            assert (r.pipes.dry > 0) == (pipes == 0)

    run(main())


def test_an_end_of_one_side_leaves_the_other_direction_open() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with rig() as r:
            r.pair.start()
            await loop.sock_sendall(r.user, b"request")
            r.user.shutdown(socket.SHUT_WR)
            assert await read_to_end(r.service) == (7, hashlib.sha256(b"request").hexdigest())
            await loop.sock_sendall(r.service, b"answer")
            assert await exactly(r.user, 6) == b"answer"
            r.service.close()
            assert (await read_to_end(r.user))[0] == 0
            await eventually(lambda: r.ends == [""])

    run(main())


@pytest.mark.parametrize("who", ["user", "service"])
def test_a_reset_reaches_the_other_side_as_a_reset(who: str) -> None:
    async def main() -> None:
        with rig() as r:
            r.pair.start()
            await asyncio.get_running_loop().sock_sendall(r.user, b"x")
            assert await exactly(r.service, 1) == b"x"
            close_with_reset(getattr(r, who))
            with pytest.raises(ConnectionResetError):
                await read_to_end(r.service if who == "user" else r.user)
            await eventually(lambda: len(r.ends) == 1 and r.ends != [""])

    run(main())


def test_an_aborted_pair_resets_both() -> None:
    async def main() -> None:
        with rig() as r:
            r.pair.start()
            r.pair.abort()
            for sock in (r.user, r.service):
                with pytest.raises(ConnectionResetError):
                    await read_to_end(sock)
            assert r.ends == []

    run(main())


def test_what_was_read_before_goes_first() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with rig() as r:
            await loop.sock_sendall(r.service, b" world")
            r.pair.start(first=b"request", second=b"hello", first_ended=True)
            assert await exactly(r.user, 11) == b"hello world"
            assert (await read_to_end(r.service))[0] == 7
            r.service.close()
            await eventually(lambda: r.ends == [""])

    run(main())


def test_a_slow_reader_stops_its_writer_and_nothing_piles_up() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        # Sizes of our own: the kernel's grow as they please, up to 32 MiB where it may.
        buffers = 1 << 16
        with rig(pipes=1, buffers=buffers) as slow, rig(pipes=1) as quick:
            # Both have the same pool: the one that does not read may not keep it from the other.
            quick.pair.pipes = slow.pipes
            slow.pair.start()
            quick.pair.start()
            sent = 0
            for _ in range(400):
                try:
                    sent += slow.user.send(bytes(PIPE_BYTES))
                except BlockingIOError:
                    await asyncio.sleep(0.001)
            held = sent - slow.pair.bytes_in
            # Before the pair: the user's buffer and ours, each twice what was asked for.
            assert held <= PIPE_BYTES + 2 * 2 * buffers
            data = os.urandom(1 << 20) * 4
            sending = loop.create_task(loop.sock_sendall(quick.user, data))
            assert await exactly(quick.service, len(data)) == data
            await sending
            # And what was held is all there.
            slow.user.shutdown(socket.SHUT_WR)
            assert (await read_to_end(slow.service))[0] == sent

    run(main())


def test_a_half_closed_pair_that_is_quiet_is_given_up() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with rig(limits=QuietLimits(half_closed=0.2)) as r:
            r.pair.start()
            await asyncio.sleep(0.3)
            r.user.shutdown(socket.SHUT_WR)
            assert (await read_to_end(r.service))[0] == 0
            begin = loop.time()
            for _ in range(4):  # while bytes come it lives
                await loop.sock_sendall(r.service, b"x")
                await asyncio.sleep(0.1)
            with pytest.raises(ConnectionResetError):
                await read_to_end(r.user)
            assert loop.time() - begin >= 0.5
            assert r.ends == ["quiet for too long"]

    run(main())


def test_an_idle_pair_is_given_up_when_that_is_wanted() -> None:
    async def main() -> None:
        with rig(limits=QuietLimits(idle=0.1)) as r:
            r.pair.start()
            await eventually(lambda: r.ends == ["quiet for too long"])

    run(main())


def test_a_limit_of_bytes_per_second_holds_for_both_directions_together() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with rig(throttles=[Throttle(2_000_000)]) as r:
            r.pair.start()
            begin = loop.time()
            sending = [
                loop.create_task(loop.sock_sendall(sock, bytes(1_600_000)))
                for sock in (r.user, r.service)
            ]
            await exactly(r.service, 1_600_000)
            await exactly(r.user, 1_600_000)
            # 3.2 MB, one second's worth at once.
            assert loop.time() - begin > 0.4
            for task in sending:
                await task

    run(main())
