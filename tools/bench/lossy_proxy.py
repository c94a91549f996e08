"""A UDP proxy that loses, doubles and reorders datagrams: a bad network, on purpose and by seed.

For every client it keeps a socket of its own towards the relay, as a NAT does. Both directions are
treated alike.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

Address = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Weather:
    """How bad it is; shares of all datagrams, and seconds.

    Attributes:
        lost, doubled, late: shares.
        delay, jitter: of every datagram: delay + up to jitter.
        lateness: further seconds of late ones, which others overtake.
        mtu: larger UDP payloads are lost, bytes.
    """

    lost: float = 0.01
    doubled: float = 0.005
    late: float = 0.01
    delay: float = 0.005
    jitter: float = 0.0
    lateness: float = 0.02
    mtu: int = 65_535


class _Socket(asyncio.DatagramProtocol):
    def __init__(self, received: Callable[[bytes, Address], None]) -> None:
        self._received = received
        self.transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # The selector loop's datagram transport does not derive from the documented class.
        self.transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: Address) -> None:
        self._received(data, addr)

    def error_received(self, exc: Exception) -> None:
        """The relay is away for a moment: as lost as everything else."""


class LossyProxy:
    """A UDP proxy that loses, doubles and reorders datagrams: a bad network, on purpose and by
    seed.

    Attributes:
        address: where clients send to.
        counters: passed, lost, doubled, late, too_large.
        sizes: datagrams that were passed, by bytes of UDP payload.
        weather: may be changed at any time.
    """

    def __init__(self, relay: Address, weather: Weather, seed: int) -> None:
        self._relay = relay
        self.weather = weather
        self._random = random.Random(seed)
        self._loop = asyncio.get_running_loop()
        self._clients: dict[Address, asyncio.Task[_Socket]] = {}
        self._front: _Socket | None = None
        self.address: Address = ("", 0)
        self.counters: Counter[str] = Counter()
        self.sizes: Counter[int] = Counter()

    async def start(self) -> None:
        """Begin, on a free loopback port."""
        transport, self._front = await self._loop.create_datagram_endpoint(
            lambda: _Socket(self._from_client), local_addr=("127.0.0.1", 0)
        )
        name = transport.get_extra_info("sockname")
        self.address = (name[0], name[1])

    async def stop(self) -> None:
        """Close every socket."""
        for task in self._clients.values():
            made = await task
            if made.transport is not None:
                made.transport.close()
        if self._front is not None and self._front.transport is not None:
            self._front.transport.close()

    def _from_client(self, data: bytes, client: Address) -> None:
        task = self._clients.get(client)
        if task is None:
            task = self._clients[client] = asyncio.create_task(self._open(client))

        def pass_on() -> None:
            if task.done() and not task.cancelled():
                transport = task.result().transport
                if transport is not None and not transport.is_closing():
                    transport.sendto(data)

        self._weathered(len(data), pass_on)

    async def _open(self, client: Address) -> _Socket:
        def back(data: bytes, _: Address) -> None:
            def pass_on() -> None:
                front = self._front
                transport = None if front is None else front.transport
                if transport is not None and not transport.is_closing():
                    transport.sendto(data, client)

            self._weathered(len(data), pass_on)

        _, made = await self._loop.create_datagram_endpoint(
            lambda: _Socket(back), remote_addr=self._relay
        )
        return made

    def _weathered(self, size: int, pass_on: Callable[[], None]) -> None:
        weather, chance = self.weather, self._random.random
        if size > weather.mtu:
            self.counters["too_large"] += 1
            return
        if chance() < weather.lost:
            self.counters["lost"] += 1
            return
        self.sizes[size] += 1
        copies = 1
        if chance() < weather.doubled:
            self.counters["doubled"] += 1
            copies = 2
        for _ in range(copies):
            wait = weather.delay + weather.jitter * chance()
            if chance() < weather.late:
                self.counters["late"] += 1
                wait += weather.lateness * chance()
            self.counters["passed"] += 1
            self._loop.call_later(wait, pass_on)
