"""A dispatcher on clocks of the test, with relays in memory, and clients that sign."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field
from ipaddress import ip_network

from wire.stun import attribute as a
from wire.stun import message as stun
from wire.stun.address import IPV4, Address, encode_xor
from wire.stun.integrity import MD5, long_term_key
from wire.stun.message import Message, parse
from wire.stun.nonce import Nonces
from wire.turn.allocation import Allocation, SocketAddress
from wire.turn.authentication import Authentication
from wire.turn.credentials import Accounts, RestSecrets, StaticUsers
from wire.turn.dispatcher import Dispatcher
from wire.turn.peer_filter import PeerFilter
from wire.turn.reply_limit import ReplyLimit
from wire.turn.settings import TurnRules

REALM = "example.org"
USERS = {"alice": "wonder-land", "bob": "builder"}
PEER = ("198.51.100.7", 3490)
CLIENT = ("192.0.2.1", 40000)
HOSTS = {1: "192.0.2.15", 2: "2001:db8::15"}


@dataclass
class MemoryRelay:
    """A relayed address that exists on paper."""

    family: int
    address: Address
    closed: bool = False

    def close(self) -> None:
        self.closed = True


@dataclass
class MemoryHost:
    """Gives ports away in order, or fails as told.

    Attributes:
        failures: error codes of the next attempts to bind.
        families: it has addresses of.
    """

    families: tuple[int, ...] = (1, 2)
    failures: list[int] = field(default_factory=list)
    port: int = 49152
    relays: list[MemoryRelay] = field(default_factory=list)
    ended: list[tuple[int, str]] = field(default_factory=list)
    dice: random.Random = field(default_factory=lambda: random.Random(1))

    def open_relay(self, family: int, *, even: bool = False) -> MemoryRelay | int:
        if family not in self.families:
            return 440
        if self.failures:
            return self.failures.pop(0)
        if even and self.port % 2:
            self.port += 1
        relay = MemoryRelay(family, (HOSTS[family], self.port))
        self.port += 1
        self.relays.append(relay)
        return relay

    def open_pair(self, family: int) -> tuple[MemoryRelay, MemoryRelay] | int:
        first = self.open_relay(family, even=True)
        if isinstance(first, int):
            return first
        second = self.open_relay(family)
        if isinstance(second, int):
            first.close()
            return second
        return first, second

    def opened(self, allocation: Allocation) -> bool:
        return True

    def closed(self, allocation: Allocation, why: str) -> None:
        self.ended.append((allocation.number, why))

    def random(self, size: int) -> bytes:
        return self.dice.randbytes(size)

    @property
    def open(self) -> int:
        """Relays that are bound."""
        return sum(not one.closed for one in self.relays)


class MemoryEndpoint:
    """What clients get."""

    def __init__(self, *, stream: bool = False) -> None:
        self.stream = stream
        self.clients: dict[SocketAddress, Allocation] = {}
        self.sent: list[tuple[bytes, SocketAddress]] = []

    def send(self, datagram: bytes, address: SocketAddress) -> int:
        self.sent.append((datagram, address))
        return 1

    def send_segments(
        self, segments: list[bytes], segment_size: int, address: SocketAddress
    ) -> int:
        self.sent += [(one, address) for one in segments]
        return len(segments)


class Rig:
    def __init__(
        self, rules: TurnRules | None = None, *, reply_rate: float = 0.0, stream: bool = False
    ) -> None:
        self.now = 1000.0
        self.wall = 1_700_000_000.0
        self.host = MemoryHost()
        self.endpoint = MemoryEndpoint(stream=stream)
        self.nonces = Nonces(b"secret", 600)
        accounts = Accounts(StaticUsers(USERS, REALM), [RestSecrets([b"north", b"south"]).find])
        self.dispatcher = Dispatcher(
            rules or TurnRules(),
            Authentication(REALM, accounts, self.nonces),
            PeerFilter(map(ip_network, ("198.51.100.0/24", "2001:db8::/32"))),
            self.host,
            ReplyLimit(reply_rate),
            Counter(),
        )
        self._serial = 0

    def raw(self, data: bytes, client: SocketAddress = CLIENT) -> Message | None:
        """Send bytes; what came back."""
        answer = self.dispatcher.receive(data, self.endpoint, client, self.now, self.wall)
        return None if answer is None else parse(answer)

    def nonce(self, client: SocketAddress = CLIENT) -> bytes:
        """As this client would have got it."""
        return self.nonces.make(f"{client[0]} {client[1]}", self.wall)

    def ask(
        self,
        method: int,
        *attributes: a.Attribute,
        client: SocketAddress = CLIENT,
        user: str = "alice",
        password: str | None = None,
        tid: bytes | None = None,
        algorithm: int = MD5,
        nonce: bytes | None = None,
    ) -> Message:
        """A signed request and its answer."""
        if tid is None:
            self._serial += 1
            tid = self._serial.to_bytes(12, "big")
        secret = USERS.get(user, "") if password is None else password
        key = long_term_key(user, REALM, secret, algorithm)
        identity = (
            (a.USERNAME, user.encode()),
            (a.REALM, REALM.encode()),
            (a.NONCE, nonce or self.nonce(client)),
        )
        request = stun.encode(method, stun.REQUEST, tid, (*attributes, *identity), key=key)
        answer = self.raw(request, client)
        assert answer is not None
        if code(answer) not in (401, 438):
            assert answer.verify(key), "everything but challenges is signed"
        return answer

    def allocate(self, *attributes: a.Attribute, client: SocketAddress = CLIENT) -> Allocation:
        """One that is granted."""
        answer = self.ask(stun.ALLOCATE, UDP, *attributes, client=client)
        assert code(answer) == 0, code(answer)
        return self.endpoint.clients[client]

    def advance(self, seconds: float) -> None:
        """Time passes, and what is due expires."""
        self.now += seconds
        self.wall += seconds
        while (due := self.dispatcher.deadlines.next()) is not None and due <= self.now:
            self.dispatcher.deadlines.run(self.now)


UDP = (a.REQUESTED_TRANSPORT, b"\x11\0\0\0")


def peer(address: Address = PEER, tid: bytes = b"") -> a.Attribute:
    """XOR-PEER-ADDRESS; IPv6 ones need the transaction id."""
    return a.XOR_PEER_ADDRESS, encode_xor(*address, tid or bytes(12))


def channel(number: int) -> a.Attribute:
    """CHANNEL-NUMBER."""
    return a.CHANNEL_NUMBER, number.to_bytes(2, "big") + bytes(2)


def code(message: Message) -> int:
    """0 of a success, else the error."""
    if message.kind == stun.SUCCESS:
        return 0
    value = message.get(a.ERROR_CODE)
    assert value is not None
    return a.parse_error(value)[0]


__all__ = ["CLIENT", "IPV4", "PEER", "REALM", "UDP", "Rig", "channel", "code", "peer"]
