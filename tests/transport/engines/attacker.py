"""A client that completes the handshake and then sends whatever frames a test wants."""

from __future__ import annotations

from pathlib import Path

from aioquic.quic.crypto import CryptoPair
from aioquic.quic.packet import QuicProtocolVersion
from aioquic.tls import Epoch

from actors.transport.quic.engine import Address
from tests.conftest import PkiFixture
from tests.transport.engines.rig import join
from tests.transport.engines.stock import StockClient
from tests.transport.engines.virtual_link import CLIENT, Link

_PN_BYTES = 4
_TAG_BYTES = 16
#: Spaces of packet numbers.
HANDSHAKE, ONE_RTT = Epoch.HANDSHAKE, Epoch.ONE_RTT


def varint(value: int) -> bytes:
    """RFC 9000 section 16."""
    for prefix, size in ((0, 1), (1, 2), (2, 4), (3, 8)):
        if value < 1 << (8 * size - 2):
            return (value | prefix << (8 * size - 2)).to_bytes(size, "big")
    raise ValueError(value)


def frame(kind: int, *fields: int | bytes) -> bytes:
    """A frame of varints and literal bytes."""
    parts = [field if isinstance(field, bytes) else varint(field) for field in fields]
    return varint(kind) + b"".join(parts)


def resident() -> int:
    """Bytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


class Attacker:
    """Crafts packets with the keys of an established client; the server's answers are not read."""

    def __init__(self, pki: PkiFixture, server: str, *, establish: bool = True) -> None:
        self.link: Link = join(pki, "stock", server)
        client = self.link.client.engine
        assert isinstance(client, StockClient)
        self.quic = client.quic
        if establish:
            self.link.establish()
            self.link.wait(0.2)
        self._number = self.quic._packet_number + 1000
        #: What the server sent since the attack began, by address.
        self.answers: dict[Address, list[bytes]] = {}
        self.sent = 0
        self._cid = self.quic._peer_cid.cid

    def follow(self) -> None:
        """Take over from the client as it is now, in the middle of its handshake."""
        self._number = self.quic._packet_number + 1000
        self._cid = self.quic._peer_cid.cid

    @property
    def now(self) -> float:
        return self.link.now

    def packet(self, payload: bytes, epoch: Epoch = ONE_RTT) -> bytes:
        """A protected packet with these frames."""
        self._number += 1
        number = self._number.to_bytes(_PN_BYTES, "big")
        payload = payload.ljust(4, b"\0")
        pair: CryptoPair = self.quic._cryptos[epoch]
        if epoch is ONE_RTT:
            header = bytes([0x43]) + self._cid + number
        else:
            own = self.quic.host_cid
            length = len(payload) + _PN_BYTES + _TAG_BYTES
            header = (
                bytes([0xE3])
                + int(QuicProtocolVersion.VERSION_1).to_bytes(4, "big")
                + bytes([len(self._cid)])
                + self._cid
                + bytes([len(own)])
                + own
                + (length | 0x4000).to_bytes(2, "big")
                + number
            )
        result: bytes = pair.encrypt_packet(header, payload, self._number)
        return result

    def send(self, *frames: bytes, epoch: Epoch = ONE_RTT, address: Address = CLIENT) -> None:
        """One packet with these frames; the server answers as it likes."""
        data = self.packet(b"".join(frames), epoch)
        self.sent += len(data)
        self.link.server.engine.receive(data, address, self.now)
        self.turn()

    def turn(self, seconds: float = 0.0) -> None:
        """Let the server do what it wants, and so much time pass."""
        self.link.now += seconds
        server = self.link.server
        timer = server.engine.next_timer()
        if timer is not None and timer <= self.now:
            server.engine.handle_timer(self.now)
        server.take()
        for data, address in server.engine.transmit(self.now):
            self.answers.setdefault(address, []).append(data)
        server.take()

    @property
    def answered(self) -> int:
        """Bytes of the server's answers."""
        return sum(len(data) for answers in self.answers.values() for data in answers)

    @property
    def closed(self) -> int | None:
        """The transport error with which the server ended it."""
        closed = self.link.server.closed
        return None if closed is None else closed.code
