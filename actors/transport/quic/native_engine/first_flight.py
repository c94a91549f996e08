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

from typing import Any

from aioquic._crypto import CryptoError
from aioquic.quic.crypto import CryptoContext, CryptoPair, derive_key_iv_hp

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

    __slots__ = ("_chosen", "_client", "_expected", "_ours", "_server")

    def __init__(self, chosen: bytes, ours: bytes) -> None:
        pair = CryptoPair()
        pair.setup_initial(cid=chosen, is_client=True, version=VERSION_1)
        self._client, self._server = pair.send, pair.recv
        self._chosen, self._ours = chosen, ours
        self._expected = 0

    def initial_keys(self) -> tuple[PacketKeys, PacketKeys]:
        """The Initial keys, for the core."""
        return _keys("receive", self._client), _keys("send", self._server)

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


def _keys(direction: str, context: CryptoContext) -> PacketKeys:
    assert context.secret is not None
    assert context.cipher_suite is not None
    key, iv, hp = derive_key_iv_hp(
        cipher_suite=context.cipher_suite, secret=context.secret, version=VERSION_1
    )
    return PacketKeys(direction, _INITIAL_EPOCH, _ALGORITHMS, key, iv, hp, context.secret)
