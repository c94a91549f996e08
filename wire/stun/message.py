"""STUN messages: read from one datagram or frame, built into one.

::

    0                   1                   2                   3
    |0 0|  method and class |            length             |
    |                     magic cookie                      |
    |                  transaction id (96 bits)             |
    |  type                 |  length    | value, padded to 4 bytes ...

Of attributes behind MESSAGE-INTEGRITY only MESSAGE-INTEGRITY-SHA256 and FINGERPRINT count, and
behind that one only FINGERPRINT, which is the last. Of attributes of one type the first counts.

Source: RFC 8489 sections 5, 14; protocol sheet TURN 3.1.
"""

from __future__ import annotations

from collections.abc import Iterable
from struct import Struct
from typing import Final
from zlib import crc32

from wire.stun import integrity
from wire.stun.address import COOKIE, Address, decode_xor
from wire.stun.attribute import (
    FINGERPRINT,
    MESSAGE_INTEGRITY,
    MESSAGE_INTEGRITY_SHA256,
    Attribute,
)
from wire.stun.errors import BadValue, StunError

HEADER_BYTES: Final = 20
#: Attributes of one message; more is no honest message.
MAX_ATTRIBUTES: Final = 64

# Methods.
BINDING: Final = 0x001
ALLOCATE: Final = 0x003
REFRESH: Final = 0x004
SEND: Final = 0x006
DATA: Final = 0x007
CREATE_PERMISSION: Final = 0x008
CHANNEL_BIND: Final = 0x009
CONNECT: Final = 0x00A
CONNECTION_BIND: Final = 0x00B
CONNECTION_ATTEMPT: Final = 0x00C

# Classes, as bits of the type.
REQUEST: Final = 0x000
INDICATION: Final = 0x010
SUCCESS: Final = 0x100
ERROR: Final = 0x110

_HEAD: Final = Struct(">HH4s12s")
_ATTRIBUTE: Final = Struct(">HH")
_FINGERPRINT_XOR: Final = 0x5354554E
_ZEROS: Final = (b"", b"\x00\x00\x00", b"\x00\x00", b"\x00")


def type_of(method: int, kind: int) -> int:
    """The first field of the header."""
    return (method & 0xF80) << 2 | (method & 0x070) << 1 | method & 0x00F | kind


class Message:
    """One message that was read.

    Attributes:
        method, kind: such as `ALLOCATE` and `REQUEST`.
        transaction_id: 12 bytes.
        attributes: type and value in the order of the message, integrity and fingerprint left out.
        raw: all of it.
    """

    __slots__ = ("_at", "attributes", "kind", "method", "raw", "transaction_id")

    def __init__(
        self,
        kind: int,
        raw: bytes,
        attributes: list[Attribute],
        at: dict[int, tuple[int, bytes]],
    ) -> None:
        first = raw[0] << 8 | raw[1]
        self.kind = kind
        self.method = first & 0xF | (first >> 1) & 0x70 | (first >> 2) & 0xF80
        self.transaction_id = raw[8:20]
        self.raw = raw
        self.attributes = attributes
        #: Offset and value of those that cover what is in front of them.
        self._at = at

    def get(self, kind: int) -> bytes | None:
        """The value of the first attribute of a type; None: there is none."""
        for one, value in self.attributes:
            if one == kind:
                return value
        return None

    def all(self, kind: int) -> list[bytes]:
        """The values of all attributes of a type."""
        return [value for one, value in self.attributes if one == kind]

    def number(self, kind: int, size: int, *, padded_to: int = 0) -> int | None:
        """A value of `size` bytes as a number, and reserved bytes up to `padded_to`.

        Raises:
            BadValue: it has another length.
        """
        value = self.get(kind)
        if value is None:
            return None
        if len(value) != (padded_to or size):
            raise BadValue("value_length", f"attribute {kind:#06x} has {len(value)} bytes")
        return int.from_bytes(value[:size], "big")

    def peers(self, kind: int) -> list[Address]:
        """All XORed addresses of a type.

        Raises:
            BadValue: one is malformed.
        """
        return [decode_xor(value, self.transaction_id) for value in self.all(kind)]

    @property
    def has_integrity(self) -> bool:
        """It is signed in one of the two ways, rightly or not."""
        return MESSAGE_INTEGRITY in self._at or MESSAGE_INTEGRITY_SHA256 in self._at

    @property
    def has_sha256(self) -> bool:
        """It is signed with SHA-256, which then counts."""
        return MESSAGE_INTEGRITY_SHA256 in self._at

    @property
    def fingerprint_is_wrong(self) -> bool:
        """It carries a FINGERPRINT, and another one than its bytes have."""
        found = self._at.get(FINGERPRINT)
        return found is not None and found[1] != fingerprint_of(self.raw, found[0])

    @property
    def has_fingerprint(self) -> bool:
        """It carries a FINGERPRINT."""
        return FINGERPRINT in self._at

    def verify(self, key: bytes) -> bool:
        """It was signed with this key; of two signatures the stronger one counts."""
        found = self._at.get(MESSAGE_INTEGRITY_SHA256)
        if found is not None:
            return integrity.verify_sha256(self.raw, found[0], found[1], key)
        found = self._at.get(MESSAGE_INTEGRITY)
        return found is not None and integrity.verify_sha1(self.raw, found[0], found[1], key)


def fingerprint_of(raw: bytes, at: int) -> bytes:
    """The FINGERPRINT of the message that ends with that attribute at `at`."""
    head = raw[:2] + (at - HEADER_BYTES + 8).to_bytes(2, "big")
    return (crc32(raw[4:at], crc32(head)) ^ _FINGERPRINT_XOR).to_bytes(4, "big")


def frame_size(head: bytes | bytearray | memoryview) -> int:
    """The size of a message from its first four bytes."""
    return HEADER_BYTES + (head[2] << 8 | head[3])


def parse(data: bytes | memoryview) -> Message:
    """Read one message, which fills `data`.

    Raises:
        StunError: this is no STUN message, or its attributes do not fit into it.
    """
    raw = bytes(data)
    size = len(raw)
    if size < HEADER_BYTES:
        raise StunError("short", f"{size} bytes")
    if raw[0] & 0xC0:
        raise StunError("first_bits")
    if raw[4:8] != COOKIE:
        raise StunError("cookie")
    length = raw[2] << 8 | raw[3]
    if length % 4 or HEADER_BYTES + length != size:
        raise StunError("length", f"{length} announced, {size - HEADER_BYTES} there")
    attributes: list[Attribute] = []
    covering: dict[int, tuple[int, bytes]] = {}
    at = HEADER_BYTES
    count = 0
    while at < size:
        # Every attribute starts at a multiple of 4 of a multiple of 4: its head is there.
        kind, length = _ATTRIBUTE.unpack_from(raw, at)
        end = at + 4 + length
        if end > size:
            raise StunError("attribute_length", f"attribute {kind:#06x} ends behind the message")
        count += 1
        if count > MAX_ATTRIBUTES:
            raise StunError("attributes", f"more than {MAX_ATTRIBUTES} attributes")
        if kind in (MESSAGE_INTEGRITY, MESSAGE_INTEGRITY_SHA256, FINGERPRINT):
            _cover(covering, kind, at, raw[at + 4 : end])
        elif not covering:
            attributes.append((kind, raw[at + 4 : end]))
        at = end + (-length & 3)
    found = covering.get(FINGERPRINT)
    if found is not None and found[0] + 8 != size:
        raise StunError("fingerprint_not_last")
    return Message(raw[0] << 8 & 0x100 | raw[1] & 0x10, raw, attributes, covering)


def _cover(covering: dict[int, tuple[int, bytes]], kind: int, at: int, value: bytes) -> None:
    if kind in covering or FINGERPRINT in covering:
        return
    if kind == MESSAGE_INTEGRITY and MESSAGE_INTEGRITY_SHA256 in covering:
        return
    covering[kind] = at, value


def encode(
    method: int,
    kind: int,
    transaction_id: bytes,
    attributes: Iterable[Attribute],
    *,
    key: bytes | None = None,
    sha256: bool = False,
    fingerprint: bool = False,
) -> bytes:
    """Build a message.

    Args:
        key: sign with it; None: unsigned.
        sha256: sign with MESSAGE-INTEGRITY-SHA256 instead of MESSAGE-INTEGRITY.
        fingerprint: add FINGERPRINT.
    """
    parts = [b""]
    length = 0
    for one, value in attributes:
        size = len(value)
        parts += (_ATTRIBUTE.pack(one, size), value, _ZEROS[size & 3])
        length += 4 + size + (-size & 3)
    first = type_of(method, kind)
    if key is not None:
        length += 36 if sha256 else 24
        parts[0] = _HEAD.pack(first, length, COOKIE, transaction_id)
        body = b"".join(parts)
        if sha256:
            parts = [body, b"\x00\x1c\x00\x20", integrity.sha256(body, key)]
        else:
            parts = [body, b"\x00\x08\x00\x14", integrity.sha1(body, key)]
        body = b"".join(parts)
    else:
        parts[0] = _HEAD.pack(first, length, COOKIE, transaction_id)
        body = b"".join(parts)
    if fingerprint:
        value = fingerprint_of(body, len(body))
        longer = (length + 8).to_bytes(2, "big")
        body = b"".join((body[:2], longer, body[4:], b"\x80\x28\x00\x04", value))
    return body
