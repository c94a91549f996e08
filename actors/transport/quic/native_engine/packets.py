"""1-RTT packets of our own beside those of the packet core.

The core has no way to send MAX_STREAM_DATA, so such a packet is made here, with the core's keys
and between its packet numbers: the number after the last one the core used, read back from the
core's last datagram, which is opened to be sure, and the core is told to go on behind it. No
number is ever used twice, so neither is a nonce. The core takes acknowledgements of such packets
without knowing them; whether they arrived is judged in `flow`.

Source: RFC 9001 sections 5.3, 5.4, 6; RFC 9000 section 17.3.1.
"""

from __future__ import annotations

from collections.abc import Callable

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256, SHA384, HashAlgorithm
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from actors.transport.quic.native_engine.tls import PacketKeys

_SHORT = 0x40
_KEY_PHASE = 0x04
_NUMBER_BYTES = 4
_SAMPLE = 16
_TAG = 16
#: A frame, and padding to what header protection samples.
PING = b"\x01" + bytes(7)
_NUMBER_SPACE = 1 << 32


#: Packet numbers the core may have used beside the datagrams we saw.
_MOST_SKIPPED = 64


class PacketNumberLost(Exception):
    """The core's packet numbers are not what they are believed to be: send nothing."""


class PacketMaker:
    """Makes packets of one connection; made when the 1-RTT send keys are known.

    Args:
        keys: those keys.
        cid: the peer's first connection id; all ids of a peer are of one length.
        advance: tells the core the next packet number to use.
    """

    def __init__(self, keys: PacketKeys, cid: bytes, advance: Callable[[int], None]) -> None:
        self._advance = advance
        self._cid = cid
        self._cid_length = len(cid)
        self._secret = keys.secret
        self._cipher = keys.algorithms[0]
        self._hash: HashAlgorithm = SHA384() if self._cipher == "aes-256-gcm" else SHA256()
        self._phase = 0
        self._aead = _aead(self._cipher, keys.key)
        self._iv = int.from_bytes(keys.iv, "big")
        #: The AEAD and IV of the phase before.
        self._before = self._aead, self._iv
        self._mask = _mask_maker(keys.algorithms[1], keys.hp)
        #: The core's last short header datagram; the last number that is known, of it or of ours;
        #: and how many the core sent since.
        self._last = b""
        self._last_number = -1
        self._followed = 0

    def sent(self, last: bytes, count: int) -> None:
        """The core sent `count` short header datagrams; this was the last of them."""
        self._last = last
        self._followed += count

    def follow_phase(self, phase: int | None) -> None:
        """The core's key phase is this; call after every transmission."""
        if phase is not None and phase != self._phase:
            self._update_keys()

    @property
    def ready(self) -> bool:
        """True once a packet number is known to go on from."""
        return bool(self._last)

    def begin(self, most_sent: int) -> None:
        """Become ready without a packet of the core's that shows its number.

        Args:
            most_sent: it has not sent more than so many.
        """
        if not self.ready:
            self._last = bytes([_SHORT]) + self._cid
            self._last_number = most_sent + _MOST_SKIPPED

    def open_last(self) -> bytes:
        """The frames of the core's last packet; none when it was looked at before.

        Raises:
            PacketNumberLost: it is not what it is believed to be.
        """
        if not self._followed:
            return b""
        self._last_number, frames = self._read_last()
        self._followed = 0
        return frames

    def packet(self, frames: bytes, cid: bytes | None = None) -> bytes:
        """A packet with these frames, to the id that the core's last packet went to.

        Args:
            frames: its payload.
            cid: another id of the peer.

        Raises:
            PacketNumberLost: the core counts otherwise than we believe.
        """
        number = self.next_number
        packet = self._seal(number, self.last_cid if cid is None else cid, frames)
        self._advance(number + 1)
        self._last_number = number
        return packet

    def padded(self, size: int) -> bytes:
        """In place of the core's last packet, which was not sent: a PING of `size` bytes.

        No smaller than header protection needs it. It has the number of that packet, so the core
        takes its acknowledgement for that of its own.

        Raises:
            PacketNumberLost: the core counts otherwise than we believe.
        """
        self.open_last()
        padding = size - 1 - self._cid_length - _NUMBER_BYTES - len(PING) - _TAG
        return self._seal(self._last_number, self.last_cid, PING + bytes(max(0, padding)))

    @property
    def next_number(self) -> int:
        """The number behind the last one that was used.

        Raises:
            PacketNumberLost: the core counts otherwise than we believe.
        """
        self.open_last()
        return self._last_number + 1

    def serve(self, advance: Callable[[int], None]) -> None:
        """Another core goes on, and is told the next packet number by this.

        Raises:
            PacketNumberLost: the core before counts otherwise than we believe.
        """
        self._advance = advance
        advance(self.next_number)

    def _seal(self, number: int, cid: bytes, frames: bytes) -> bytes:
        start = 1 + self._cid_length
        first = _SHORT | (_KEY_PHASE if self._phase else 0) | (_NUMBER_BYTES - 1)
        encoded = (number % _NUMBER_SPACE).to_bytes(_NUMBER_BYTES, "big")
        header = bytes([first]) + cid + encoded
        nonce = (self._iv ^ number).to_bytes(12, "big")
        packet = bytearray(header + self._aead.encrypt(nonce, frames, header))
        mask = self._mask(bytes(packet[start + 4 : start + 4 + _SAMPLE]))
        packet[0] ^= mask[0] & 0x1F
        for index in range(_NUMBER_BYTES):
            packet[start + index] ^= mask[1 + index]
        return bytes(packet)

    @property
    def last_cid(self) -> bytes:
        """The id of the peer that the core's last packet went to."""
        return self._last[1 : 1 + self._cid_length]

    def _read_last(self) -> tuple[int, bytes]:
        """Packet number and frames of the core's last datagram.

        A datagram is one packet, so the number is known but for those coalesced behind the
        handshake and those the core skips; anything else would mean that a nonce is used twice.
        """
        data = self._last
        start = 1 + self._cid_length
        mask = self._mask(data[start + 4 : start + 4 + _SAMPLE])
        first = data[0] ^ (mask[0] & 0x1F)
        length = (first & 0x03) + 1
        encoded = bytes(data[start + index] ^ mask[1 + index] for index in range(length))
        truncated, size = int.from_bytes(encoded, "big"), 1 << (8 * length)
        least = self._last_number + self._followed
        number = least + (truncated - least) % size
        if number > least + _MOST_SKIPPED:
            raise PacketNumberLost(f"{number} read, at least {least} expected")
        same_phase = bool(first & _KEY_PHASE) == bool(self._phase)
        aead, iv = (self._aead, self._iv) if same_phase else self._before
        header = bytes([first]) + data[1:start] + encoded
        nonce = (iv ^ number).to_bytes(12, "big")
        try:
            return number, aead.decrypt(nonce, data[start + length :], header)
        except InvalidTag:
            raise PacketNumberLost(f"a packet does not open as number {number}") from None

    def _update_keys(self) -> None:
        """The core went on to the next key phase (RFC 9001 section 6.1)."""
        self._phase ^= 1
        self._before = self._aead, self._iv
        self._secret = self._expand(b"quic ku", self._hash.digest_size)
        length = 32 if self._cipher != "aes-128-gcm" else 16
        self._aead = _aead(self._cipher, self._expand(b"quic key", length))
        self._iv = int.from_bytes(self._expand(b"quic iv", 12), "big")

    def _expand(self, label: bytes, length: int) -> bytes:
        full = b"tls13 " + label
        info = length.to_bytes(2, "big") + bytes([len(full)]) + full + b"\0"
        return HKDFExpand(algorithm=self._hash, length=length, info=info).derive(self._secret)


def _aead(cipher: str, key: bytes) -> AESGCM | ChaCha20Poly1305:
    return ChaCha20Poly1305(key) if cipher == "chacha20-poly1305" else AESGCM(key)


def _mask_maker(algorithm: str, key: bytes) -> Callable[[bytes], bytes]:
    """Header protection (RFC 9001 sections 5.4.3, 5.4.4)."""
    if algorithm.startswith("aes"):
        # ECB of single blocks is what the RFC asks for.
        context: CipherContext = Cipher(algorithms.AES(key), modes.ECB()).encryptor()
        return context.update

    def chacha(sample: bytes) -> bytes:
        return Cipher(algorithms.ChaCha20(key, sample), None).encryptor().update(bytes(5))

    return chacha
