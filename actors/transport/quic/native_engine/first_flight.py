"""A server's Initial packets, which do not go to a connection id of ours.

A client makes up the id that its first packets go to: 8 to 20 bytes, of whatever length. The packet
core knows one id for both, that one and the client's own, and would go on writing it to clients
that have no id of their own. So it is made with the client's id, whatever that is, and this module
does what it then cannot do: derive the Initial keys, and hand it the packets that go to the id that
was made up. Those are sealed again with the id that we chose in their header; both seals use the
client's keys, which are public by design (RFC 9001 section 5.2).

It also is the gate before the core. Nothing is made before a packet opened and carried CRYPTO: the
header of a datagram that does not open proves nothing, not even who the client is.
"""

from __future__ import annotations

import hmac
from typing import Any

from aioquic._crypto import AEAD, CryptoError, HeaderProtection
from aioquic.quic.crypto import INITIAL_SALT_VERSION_1, CryptoContext

from actors.transport.quic.first_packet import begins_with_crypto
from actors.transport.quic.native_engine.tls import VERSION_1, PacketKeys

#: The packet type of `qh3._hazmat.pull_quic_header`.
INITIAL = 0
_INITIAL_EPOCH = 0
_ALGORITHMS = ("aes-128-gcm", "aes-128")
#: First byte and version, in front of the destination id.
_BEFORE_CID = 5


class FirstFlight:
    """Opens and readdresses them, for one connection.

    Args:
        chosen: the destination id of the client's first packets; after a Retry, ours in that.
        ours: the connection id that the core has.
    """

    __slots__ = ("_chosen", "_client", "_expected", "_keys", "_ours", "_server_secret")

    def __init__(self, chosen: bytes, ours: bytes) -> None:
        secret = hmac.digest(INITIAL_SALT_VERSION_1, chosen, "sha256")
        self._keys = _keys("receive", _expand(secret, b"client in", 32))
        self._server_secret = _expand(secret, b"server in", 32)
        self._client = CryptoContext()
        self._client.aead = AEAD(b"aes-128-gcm", self._keys.key, self._keys.iv)
        self._client.hp = HeaderProtection(b"aes-128-ecb", self._keys.hp)
        self._chosen, self._ours = chosen, ours
        self._expected = 0

    def initial_keys(self) -> tuple[PacketKeys, PacketKeys]:
        """The Initial keys, for the core."""
        return self._keys, _keys("send", self._server_secret)

    def readdress(self, packet: bytes, header: tuple[Any, ...], *, first: bool) -> bytes | None:
        """The packet, as if it had been sent to our id. None: it is to be dropped.

        Args:
            packet: one QUIC packet.
            header: what `pull_quic_header` found in it.
            first: none was taken before: it has to be an Initial packet with CRYPTO.
        """
        version, kind, destination = header[0], header[1], header[3]
        if version != VERSION_1 or kind != INITIAL or destination != self._chosen:
            return None if first else packet
        try:
            plain, payload, number, _ = self._client.decrypt_packet(
                packet, header[8], self._expected
            )
        except CryptoError:
            return None
        if first and not begins_with_crypto(payload):
            return None
        self._expected = max(self._expected, number + 1)
        rest = plain[_BEFORE_CID + 1 + len(destination) :]
        plain = plain[:_BEFORE_CID] + bytes([len(self._ours)]) + self._ours + rest
        return self._client.encrypt_packet(plain, payload, number)


def _keys(direction: str, secret: bytes) -> PacketKeys:
    key, iv = _expand(secret, b"quic key", 16), _expand(secret, b"quic iv", 12)
    hp = _expand(secret, b"quic hp", 16)
    return PacketKeys(direction, _INITIAL_EPOCH, _ALGORITHMS, key, iv, hp, secret)


def _expand(secret: bytes, label: bytes, length: int) -> bytes:
    """HKDF-Expand-Label of RFC 8446 section 7.1, up to one block of SHA-256.

    Every handshake needs eight: the library's own takes ten times as long.
    """
    full = b"tls13 " + label
    info = length.to_bytes(2, "big") + bytes([len(full)]) + full + b"\0\x01"
    return hmac.digest(secret, info, "sha256")[:length]
