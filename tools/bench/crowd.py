"""Many idle agents in one process, each with an identity and services of its own.

Run as `python -m tools.bench.crowd` with one JSON line on stdin; answers commands with JSON lines:
`gather` connects so many more agents and waits for them, `again` waits until all are connected and
registered once more after the relay was gone. Agents that lose their relay dial again after a
random pause that doubles, as the real ones do. They never ping; the relay does.
"""

from __future__ import annotations

import asyncio
import random
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

from cryptography.hazmat.primitives.asymmetric import ec

from actors.pki.certificates import KeyPair, agent_identity, create_leaf
from actors.pki.files import PairPaths, read_pair
from actors.transport.connection import DialFailed
from actors.transport.quic import QuicEndpoint, QuicSettings
from actors.transport.stream import CloseReason
from actors.transport.tls import TlsIdentity
from tools.bench.json_lines import hear, say
from tools.bench.load_agent import LoadAgent
from wire.orp.messages import ALPN

FIRST_PAUSE = 0.1
LONGEST_PAUSE = 5.0
DIAL_SECONDS = 10.0


class Member:
    """One agent of the crowd."""

    def __init__(self, crowd: Crowd, number: int) -> None:
        self._crowd = crowd
        self._number = number
        self._endpoint, self._turn = crowd.endpoints[number % len(crowd.endpoints)]
        self.registrations = 0

    async def live(self) -> None:
        """Connect for ever."""
        identity = self._crowd.identity(self._number)
        pause = FIRST_PAUSE
        while True:
            agent = LoadAgent(lambda: self._endpoint)
            try:
                # The endpoint presents the identity it has when the dialling begins.
                async with self._turn:
                    self._endpoint.reload(identity)
                    await agent.connect(
                        self._crowd.address, identity.uri, self._crowd.services(self._number)
                    )
            except (DialFailed, TimeoutError):
                self._crowd.retries += 1
                await asyncio.sleep(pause * random.uniform(0.5, 1.5))  # jitter
                pause = min(LONGEST_PAUSE, 2 * pause)
                continue
            pause = FIRST_PAUSE
            self.registrations += 1
            self._crowd.changed.set()
            lost = asyncio.Event()

            def closed(_: CloseReason, lost: asyncio.Event = lost) -> None:
                lost.set()

            agent.connection.on_closed = closed
            if agent.connection.closed is None:
                await lost.wait()


class Crowd:
    def __init__(
        self, ca: KeyPair, address: tuple[str, int], sockets: int, services: int, first: int
    ) -> None:
        self.address = address
        #: The number of the first member: crowds of one controller do not share agents.
        self._offset = first
        self._services = services
        self.retries = 0
        self.changed = asyncio.Event()
        self._ca = ca
        self._key = ec.generate_private_key(ec.SECP256R1())  # one for all: certificates differ
        settings = QuicSettings(max_datagram=1350, idle_timeout=120.0, keepalive=0)
        identity = self.identity(0)
        #: Endpoints, and whose turn it is to dial from each.
        self.endpoints = [
            (QuicEndpoint(alpn=ALPN, identity=identity, settings=settings), asyncio.Lock())
            for _ in range(sockets)
        ]
        self.members: list[Member] = []
        self._tasks: list[asyncio.Task[None]] = []

    def services(self, number: int) -> list[str]:
        """The names one member registers."""
        first = f"crowd-{number}"
        return [first, *(f"{first}-{more}" for more in range(1, self._services))]

    def identity(self, number: int) -> TlsIdentity:
        """Of one member."""
        pair = create_leaf(
            self._ca,
            agent_identity("acme", UUID(int=1000 + number)),
            lifetime=timedelta(days=1),
            now=datetime.now(UTC),
            key=self._key,
        )
        return TlsIdentity((pair.certificate,), (self._ca.certificate,), pair.key)

    async def gather(self, count: int) -> float:
        """So many more; seconds until all are registered."""
        began = time.perf_counter()
        for _ in range(count):
            member = Member(self, self._offset + len(self.members))
            self.members.append(member)
            self._tasks.append(asyncio.create_task(member.live()))
        await self.registered(1)
        return time.perf_counter() - began

    async def registered(self, times: int) -> None:
        """Wait until everybody registered so often."""
        async with asyncio.timeout(600):
            while any(member.registrations < times for member in self.members):
                self.changed.clear()
                await self.changed.wait()


async def main() -> None:
    """Read the set-up, then commands, one JSON line each."""
    setup = await hear()
    ca = read_pair(PairPaths(Path(setup["ca"]), Path(setup["ca_key"])))
    assert ca is not None
    crowd = Crowd(ca, tuple(setup["address"]), setup["sockets"], setup["services"], setup["first"])
    say({})
    while command := await hear():
        began = time.perf_counter()
        if command["do"] == "gather":
            await crowd.gather(command["count"])
        else:
            await crowd.registered(command["times"])
        say({"seconds": time.perf_counter() - began, "retries": crowd.retries})


if __name__ == "__main__":
    asyncio.run(main())
