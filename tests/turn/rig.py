"""A TURN door in one loop, and clients and peers on plain sockets."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from ipaddress import ip_network
from typing import Any

from actors.runtime import ActorSystem, Supervisor
from actors.transport.tls import TlsIdentity
from actors.turn.settings import TurnSettings
from actors.turn.tree import Turn
from tests.conftest import eventually
from wire.stun import attribute as a
from wire.stun import message as stun
from wire.stun.address import decode_xor, encode_xor
from wire.stun.integrity import long_term_key
from wire.stun.message import Message, parse
from wire.turn.frames import Frames

REALM = "example.org"
UDP = (a.REQUESTED_TRANSPORT, b"\x11\0\0\0")

SETTINGS = TurnSettings(
    realm=REALM,
    listen=(("127.0.0.1", 0),),
    relay_hosts=("127.0.0.1", "::1"),
    users={"alice": "wonder-land", "bob": "builder"},
    allowed=tuple(map(ip_network, ("127.0.0.1/32", "::1/128"))),
    quarantine=0.0,
    replies_per_second=0.0,
)


class Door:
    """A running door."""

    def __init__(self, system: ActorSystem, turn: Turn) -> None:
        self.system = system
        self.turn = turn

    def address(self, transport: str = "UDP") -> tuple[str, int]:
        """Where clients come in."""
        for place in self.turn.listening():
            if place.transport.startswith(transport) and place.address is not None:
                return place.address
        raise AssertionError(f"no {transport}")

    def kill(self, path: str) -> None:
        """Kill an actor of the door."""
        ref = self.system.ref(f"/turn/{path}")
        assert ref is not None, path
        self.system.kill(ref, "test")

    async def up(self, path: str) -> None:
        """Wait until it runs."""

        def running() -> bool:
            cell = self.system.find(f"/turn/{path}")
            return cell is not None and cell.open

        await eventually(running, what=f"{path} runs")


@asynccontextmanager
async def door(identity: TlsIdentity | None = None, **changes: Any) -> AsyncIterator[Door]:
    """A door with these settings changed."""
    system = ActorSystem()
    turn = Turn(system, replace(SETTINGS, **changes), identity=identity)
    await system.start(lambda: Supervisor([turn.spec()]))
    running = Door(system, turn)
    try:
        await eventually(
            lambda: all(place.address is not None for place in turn.listening()), what="listening"
        )
        yield running
    finally:
        await system.stop(timeout=5)
        turn.abort()


class Plug:
    """A UDP socket of a peer or client, which keeps what it gets."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.sock = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        self.sock.bind((host, 0))
        self.address: tuple[str, int] = self.sock.getsockname()[:2]
        self.got: asyncio.Queue[tuple[bytes, tuple[str, int]]] = asyncio.Queue()
        asyncio.get_running_loop().add_reader(self.sock, self._readable)

    def _readable(self) -> None:
        while True:
            try:
                data, source = self.sock.recvfrom(65536)
            except (BlockingIOError, ConnectionRefusedError):
                return
            self.got.put_nowait((data, source[:2]))

    def send(self, data: bytes, to: tuple[str, int]) -> None:
        self.sock.sendto(data, to)

    async def receive(self) -> tuple[bytes, tuple[str, int]]:
        async with asyncio.timeout(5):
            return await self.got.get()

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self.sock)
        self.sock.close()


class Client:
    """A TURN client over UDP, or over a stream when `_transmit` is another one."""

    def __init__(self, server: tuple[str, int], user: str = "alice") -> None:
        self.plug = Plug("::1" if ":" in server[0] else "127.0.0.1")
        self.server = server
        self.user = user
        self.realm = REALM
        self.nonce = b""
        self._serial = 0
        self.key = long_term_key(user, REALM, SETTINGS.users.get(user, "?"))

    def transmit(self, data: bytes) -> None:
        self.plug.send(data, self.server)

    async def receive(self) -> bytes:
        return (await self.plug.receive())[0]

    async def ask(self, method: int, *attributes: a.Attribute) -> Message:
        """A signed request; a challenge is answered."""
        for _ in range(3):
            self._serial += 1
            tid = self._serial.to_bytes(12, "big")
            identity = (
                (a.USERNAME, self.user.encode()),
                (a.REALM, self.realm.encode()),
                (a.NONCE, self.nonce or b"?"),
            )
            self.transmit(
                stun.encode(method, stun.REQUEST, tid, (*attributes, *identity), key=self.key)
            )
            answer = parse(await self.receive())
            while answer.transaction_id != tid:
                answer = parse(await self.receive())
            if code(answer) not in (401, 438):
                return answer
            self.nonce = answer.get(a.NONCE) or b""
        raise AssertionError("not let in")

    async def allocate(self, *attributes: a.Attribute) -> tuple[str, int]:
        """The relayed address."""
        answer = await self.ask(stun.ALLOCATE, UDP, *attributes)
        assert code(answer) == 0, code(answer)
        value = answer.get(a.XOR_RELAYED_ADDRESS)
        assert value is not None
        return decode_xor(value, answer.transaction_id)

    async def permit(self, peer: tuple[str, int]) -> int:
        """CreatePermission; the code."""
        return code(await self.ask(stun.CREATE_PERMISSION, self._peer(peer)))

    async def bind(self, number: int, peer: tuple[str, int]) -> int:
        """ChannelBind; the code."""
        channel = (a.CHANNEL_NUMBER, number.to_bytes(2, "big") + bytes(2))
        return code(await self.ask(stun.CHANNEL_BIND, channel, self._peer(peer)))

    def _peer(self, peer: tuple[str, int]) -> a.Attribute:
        tid = (self._serial + 1).to_bytes(12, "big")
        return a.XOR_PEER_ADDRESS, encode_xor(*peer, tid)

    def channel(self, number: int, data: bytes) -> None:
        """Send channel data."""
        self.transmit(number.to_bytes(2, "big") + len(data).to_bytes(2, "big") + data)

    def indicate(self, peer: tuple[str, int], data: bytes, *more: a.Attribute) -> None:
        """Send a Send indication."""
        tid = bytes(12)
        value = encode_xor(*peer, tid)
        self.transmit(
            stun.encode(
                stun.SEND, stun.INDICATION, tid,
                ((a.XOR_PEER_ADDRESS, value), (a.DATA, data), *more),
            )
        )  # fmt: skip

    def close(self) -> None:
        self.plug.close()


class StreamClient(Client):
    """The same over TCP or TLS."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, user: str = "alice"
    ) -> None:
        self.reader, self.writer = reader, writer
        self.user = user
        self.realm = REALM
        self.nonce = b""
        self._serial = 0
        self.key = long_term_key(user, REALM, SETTINGS.users[user])
        self._frames = Frames()
        self._ready: list[bytes] = []

    def transmit(self, data: bytes) -> None:
        self.writer.write(data + (bytes(-len(data) & 3) if data[0] & 0xC0 else b""))

    async def receive(self) -> bytes:
        async with asyncio.timeout(5):
            while not self._ready:
                data = await self.reader.read(65536)
                if not data:
                    raise EOFError
                self._ready += [bytes(one) for one in self._frames.receive(data)]
        return self._ready.pop(0)

    async def leave(self) -> None:
        self.writer.close()
        try:
            await self.writer.wait_closed()
        except (OSError, TimeoutError):
            pass


def code(message: Message) -> int:
    """0 of a success, else the error."""
    if message.kind == stun.SUCCESS:
        return 0
    return a.parse_error(message.get(a.ERROR_CODE) or b"")[0]
