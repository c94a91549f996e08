"""A peer door in one loop, and raw clients on plain sockets."""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from actors.peer.peer_tls import PeerTls
from actors.peer.settings import PeerSettings
from actors.peer.tree import PeerDoor
from actors.runtime import ActorSystem, Supervisor
from tests.conftest import eventually
from wire.peer.messages import Auth, encode_auth, peer_id
from wire.peer.token import key_of, make_token

URL = "rel://127.0.0.1:8080"
SECRET = "secret"
REQUEST = (
    b"GET /relay HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
MASK = bytes.fromhex("37fa213d")
QUICK = PeerSettings(drain_spread=0.05)


def masked(payload: bytes, first: int = 0x82) -> bytes:
    """A frame of a client."""
    size = len(payload)
    head = bytes((first, 0x80 | size)) if size < 126 else struct.pack(">BBH", first, 0xFE, size)
    body = bytes(byte ^ MASK[at % 4] for at, byte in enumerate(payload))
    return head + MASK + body


def token(secret: str = SECRET, expiry: str = "4102444800") -> bytes:
    return make_token(key_of(secret), expiry.encode())


class Client:
    """One end of a TCP connection, as a test uses it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def write(self, data: bytes) -> None:
        self.writer.write(data)

    async def head(self) -> bytes:
        """An HTTP head, and its body if it says that there is one."""
        async with asyncio.timeout(5):
            head = await self.reader.readuntil(b"\r\n\r\n")
            for line in head.lower().split(b"\r\n"):
                if line.startswith(b"content-length:"):
                    head += await self.reader.readexactly(int(line.partition(b":")[2]))
            return head

    async def upgrade(self) -> None:
        self.write(REQUEST)
        assert (await self.head()).startswith(b"HTTP/1.1 101 ")

    async def frame(self) -> bytes:
        """The next frame, whole."""
        async with asyncio.timeout(5):
            head = await self.reader.readexactly(2)
            size = head[1]
            if size == 126:
                more = await self.reader.readexactly(2)
                head, size = head + more, int.from_bytes(more, "big")
            return head + await self.reader.readexactly(size)

    async def message(self) -> bytes:
        """The next message."""
        frame = await self.frame()
        assert frame[0] == 0x82, frame
        return frame[4:] if frame[1] == 126 else frame[2:]

    def say(self, message: bytes) -> None:
        self.write(masked(message))

    async def ended(self) -> bool:
        """True when the next thing is the end, in either way."""
        async with asyncio.timeout(5):
            try:
                return not await self.reader.read(1)
            except ConnectionResetError:
                return True

    async def silent(self, seconds: float = 0.05) -> bool:
        """True when nothing comes for a while."""
        try:
            async with asyncio.timeout(seconds):
                await self.reader.read(1)
        except TimeoutError:
            return True
        return False

    def close(self) -> None:
        self.writer.transport.abort()


class Relay:
    """A door, and who came to it."""

    def __init__(self, system: ActorSystem, peer: PeerDoor, tls: ssl.SSLContext | None) -> None:
        self.system = system
        self.peer = peer
        self.door = peer.door
        self.clients: list[Client] = []
        self._tls = tls

    @property
    def port(self) -> int:
        address = self.peer.listening()[0].address
        assert address is not None
        return address[1]

    async def connect(self) -> Client:
        """Somebody comes, and says nothing."""
        options: dict[str, Any] = {}
        if self._tls is not None:
            options = {"ssl": self._tls, "server_hostname": "relay"}
        async with asyncio.timeout(5):
            client = Client(*await asyncio.open_connection("127.0.0.1", self.port, **options))
        sock: socket.socket = client.writer.get_extra_info("socket")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.clients.append(client)
        return client

    async def open(self) -> Client:
        """A WebSocket that sent no message yet."""
        client = await self.connect()
        await client.upgrade()
        return client

    async def join(self, name: str) -> Client:
        """A peer."""
        client = await self.open()
        client.say(encode_auth(Auth(peer_id(name), token())))
        assert await client.message() == b"\x01\x07" + self.door.url.encode()
        return client

    async def gone(self, name: str) -> None:
        await eventually(lambda: peer_id(name) not in self.door.registry.peers, what="no peer")


@asynccontextmanager
async def relay(
    settings: PeerSettings = QUICK,
    *,
    url: str = URL,
    secrets: tuple[str, ...] = (SECRET,),
    tls: PeerTls | None = None,
    trust: ssl.SSLContext | None = None,
    log: list[Any] | None = None,
    **changes: Any,
) -> AsyncIterator[Relay]:
    """A door on loopback. Whoever came is closed in the end, and then nobody may be left."""
    system = ActorSystem("test")
    peer = PeerDoor(
        system,
        listen=[("127.0.0.1", 0)],
        url=url,
        secrets=secrets,
        settings=replace(settings, **changes),
        tls=tls,
    )
    if log is not None:
        peer.door.access_log = log.append
    spec = peer.spec()
    await system.start(lambda: Supervisor([spec]))
    running = Relay(system, peer, trust)
    try:
        yield running
    finally:
        for client in running.clients:
            client.close()
        await system.stop()
        peer.abort()
        await eventually(lambda: not peer.door.lingering, what="no goodbye")
        assert not peer.door.registry.peers
        assert not peer.door.registry.subscriptions
        assert not +peer.door.sources
