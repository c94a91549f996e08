"""A rendezvous door in one loop, and raw services and users on plain sockets."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from actors.rendezvous.access import Access
from actors.rendezvous.settings import RendezvousSettings
from actors.rendezvous.tree import Rendezvous
from actors.runtime import ActorSystem, Supervisor
from actors.transport.tcp.pump import QuietLimits
from actors.transport.tcp.pump.reset import close_with_reset
from tests.conftest import eventually
from tests.wire.yamux.peer import Frame, frames_of

#: Waits are short, so that tests are; no port is kept for anybody unless a test is about that.
QUICK = RendezvousSettings(
    handshake=0.5,
    user_wait=0.5,
    pool_grace=0.5,
    keepalive=5.0,
    keepalive_deadline=2.0,
    quiet=QuietLimits(half_closed=5.0),
    quarantine=0.0,
    max_pending=64,
    max_pending_per_source=64,
)


class Peer:
    """One end of a TCP connection, as a test uses it."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.frames: list[Frame] = []
        self._held = b""

    @classmethod
    async def connect(cls, port: int, host: str = "127.0.0.1") -> Peer:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_STREAM)
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            async with asyncio.timeout(5):
                await asyncio.get_running_loop().sock_connect(sock, (host, port))
        except BaseException:
            sock.close()
            raise
        return cls(sock)

    async def send(self, data: bytes) -> None:
        async with asyncio.timeout(20):
            await asyncio.get_running_loop().sock_sendall(self.sock, data)

    async def line(self) -> str:
        """One line, without its end."""
        data = b""
        while not data.endswith(b"\n"):
            data += await self.exactly(1)
        return data[:-1].decode()

    async def exactly(self, count: int) -> bytes:
        data = b""
        async with asyncio.timeout(20):
            while len(data) < count:
                more = await asyncio.get_running_loop().sock_recv(self.sock, count - len(data))
                assert more, f"the end after {data!r}"
                data += more
        return data

    async def to_end(self) -> bytes:
        """All there is before the FIN.

        Raises:
            ConnectionResetError: RST instead.
        """
        data = b""
        async with asyncio.timeout(20):
            while more := await asyncio.get_running_loop().sock_recv(self.sock, 1 << 18):
                data += more
        return data

    async def end(self) -> str:
        """`eof` or `reset`: how it ends, whatever comes before."""
        try:
            await self.to_end()
        except ConnectionResetError:
            return "reset"
        return "eof"

    async def frame(self) -> Frame:
        """The next yamux frame."""
        async with asyncio.timeout(5):
            while not self.frames:
                more = await asyncio.get_running_loop().sock_recv(self.sock, 1 << 16)
                assert more, "the end"
                whole, self._held = frames_of(self._held + more)
                self.frames += whole
        return self.frames.pop(0)

    def finish(self) -> None:
        self.sock.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        close_with_reset(self.sock)

    def close(self) -> None:
        self.sock.close()

    async def quiet(self, seconds: float = 0.05) -> bool:
        """True when nothing comes for a while."""
        try:
            async with asyncio.timeout(seconds):
                await asyncio.get_running_loop().sock_recv(self.sock, 1)
        except TimeoutError:
            return True
        return False


class Relay:
    """A door, and who came to it."""

    def __init__(self, system: ActorSystem, door: Rendezvous) -> None:
        self.system = system
        self.rendezvous = door
        self.door = door.door
        self.peers: list[Peer] = []

    @property
    def port(self) -> int:
        address = self.rendezvous.listening()[0].address
        assert address is not None
        return address[1]

    async def connect(self, port: int = 0, host: str = "127.0.0.1") -> Peer:
        """Somebody comes; to the door's own port unless another is given."""
        peer = await Peer.connect(port or self.port, host)
        self.peers.append(peer)
        return peer

    async def turned_away(self, port: int) -> str:
        """How somebody who comes is turned away: `eof` or `reset`."""
        try:
            return await (await self.connect(port)).end()
        except ConnectionResetError:
            return "reset"  # before it was told that it is connected

    async def say(self, data: bytes) -> Peer:
        peer = await self.connect()
        await peer.send(data)
        return peer

    async def multiplex(self) -> tuple[Peer, int]:
        service = await self.say(b"multiplex\n")
        return service, int(await service.line())

    async def pool(self) -> tuple[Peer, int, str]:
        member = await self.say(b"pool\nnew\n")
        return member, int(await member.line()), await member.line()

    async def event(self) -> tuple[Peer, int]:
        control = await self.say(b"event\nnew\n")
        return control, int(await control.line())

    async def listens(self, port: int) -> bool:
        try:
            (await Peer.connect(port)).close()
        except ConnectionResetError:
            return True  # and whoever comes is turned away
        except OSError:
            return False
        return True

    def refused(self, reason: str) -> int:
        return self.door.refused.get(reason, 0)

    def actors(self, below: str = "") -> list[str]:
        """Places below the services."""
        found: list[str] = []

        def walk(path: str) -> None:
            cell = self.system.find(path)
            for child in list(cell.children or ()) if cell is not None else ():
                found.append(f"{path}/{child}")
                walk(f"{path}/{child}")

        walk(f"/rendezvous/services{below}")
        return found

    async def deserted(self) -> None:
        """Nobody is served and nothing is held."""
        await eventually(lambda: not self.actors(), what="an empty door")
        assert not self.door.services
        assert len(self.door.ports) == 0
        assert not +self.door.pairs


@asynccontextmanager
async def relay(
    settings: RendezvousSettings = QUICK,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    tokens: Path | None = None,
    log: list[Any] | None = None,
    **changes: Any,
) -> AsyncIterator[Relay]:
    """A door on loopback. Whoever came is closed in the end, and then nobody may be left."""
    system = ActorSystem("test")
    door = Rendezvous(
        system,
        listen=[(host, port)],
        settings=replace(settings, **changes),
        access=Access(tokens),
    )
    if log is not None:
        door.door.access_log = log.append
    spec = door.spec()
    await system.start(lambda: Supervisor([spec]))
    running = Relay(system, door)
    try:
        yield running
    finally:
        for peer in running.peers:
            peer.close()
        await system.stop()
        door.abort()


def free_base(count: int = 8) -> int:
    """A port whose neighbours above are free too, as far as one can tell."""
    for base in range(23_000, 60_000, 64):
        socks: list[socket.socket] = []
        try:
            for port in range(base, base + count):
                sock = socket.socket()
                socks.append(sock)
                sock.bind(("127.0.0.1", port))
        except OSError:
            continue
        finally:
            for sock in socks:
                sock.close()
        return base
    raise AssertionError("no free ports")
