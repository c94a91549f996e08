"""Too many Initials: how many the kernel lets through, and that nobody else notices."""

from __future__ import annotations

import socket
import sys
import time

import pytest

from actors.transport.connection import DialFailed
from actors.transport.quic import QuicSettings
from actors.transport.quic.flood_guard import FLOOD, INTERVAL, WANTED, FloodGuard
from actors.transport.udp import bind_udp
from actors.transport.udp.shedding import shed
from tests.conftest import PkiFixture, run
from tests.transport.test_endpoint import dialler, exchange, reach, serving

linux = pytest.mark.skipif(sys.platform != "linux", reason="the filter is Linux's")


class Flooded:
    """A guard behind a kernel that does as it is told."""

    def __init__(self) -> None:
        self.guard = FloodGuard()
        self.now = 100.0
        self.guard.look(self.now)
        self._owed = 0.0

    def step(self, rate: float) -> float:
        """An interval in which so many a second arrive; how many of them a second pass."""
        self._owed += rate * INTERVAL * self.guard.share
        passed = int(self._owed)
        self._owed -= passed
        for _ in range(passed):
            self.guard.seen()
        self.now += INTERVAL * 1.0001
        self.guard.look(self.now)
        return passed / INTERVAL


def test_a_flood_is_cut_to_what_is_wanted_and_ends() -> None:
    kernel = Flooded()
    passing = 0.0
    for _ in range(20):
        passing = kernel.step(700_000)
    assert WANTED / 4 <= passing <= 2 * WANTED
    for _ in range(40):
        kernel.step(50)
    assert kernel.guard.share == 1.0


def test_a_storm_of_agents_is_no_flood() -> None:
    kernel = Flooded()
    kernel.step(2 * FLOOD)
    for _ in range(20):
        kernel.step(0.9 * FLOOD)
    assert kernel.guard.share == 1.0


def test_a_flood_that_grows_is_followed() -> None:
    kernel = Flooded()
    passing = 0.0
    for rate in (20_000, 200_000, 2_000_000):
        for _ in range(30):
            passing = kernel.step(rate)
        assert passing <= 2 * WANTED


@linux
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_the_kernel_drops_by_first_byte_and_by_chance(host: str) -> None:
    receiver = bind_udp(host, 0)
    sender = socket.socket(receiver.family, socket.SOCK_DGRAM)

    def passed(first: int, count: int) -> int:
        for _ in range(count):
            sender.sendto(bytes([first]) + bytes(40), receiver.getsockname())
        found = 0
        deadline = time.monotonic() + 0.2
        while time.monotonic() < deadline:
            try:
                found += receiver.recv(100)[0] == first
            except BlockingIOError:
                if found == count:
                    break
                time.sleep(0.001)
        return found

    try:
        assert shed(receiver, 0xF0, 0xC0, 0.0)
        assert passed(0xC3, 100) == 0
        assert passed(0xE3, 100) == 100
        assert passed(0x43, 100) == 100
        assert shed(receiver, 0xF0, 0xC0, 0.5)
        assert 50 <= passed(0xC0, 300) <= 250
        assert shed(receiver, 0xF0, 0xC0, 1.0)
        assert passed(0xC3, 100) == 100
    finally:
        sender.close()
        receiver.close()


@linux
@pytest.mark.parametrize("engine", ["native", "aioquic"])
def test_connections_go_on_while_initials_are_dropped(pki: PkiFixture, engine: str) -> None:
    async def main() -> None:
        settings = QuicSettings(engine=engine)
        async with serving(pki, settings) as server, dialler(pki, settings) as client:
            connection = await client.connect(reach(server))
            connection.start()
            server._admission.flood.share = 1e-6
            server._shedding.apply()
            assert await exchange(connection, bytes(300_000)) == bytes(300_000)
            with pytest.raises(DialFailed):
                await client.connect(reach(server), timeout=0.3)
            # The flood is over, so nothing arrives: the share grows by the clock.
            later = await client.connect(reach(server), timeout=10.0)
            later.start()
            assert await exchange(later, b"hello") == b"hello"
            assert server.counters["flood_share_changed"] > 1

    run(main(), timeout=40)
