"""Addresses in attributes, plain and XORed.

An address here is `(text, port)`; texts are canonical (RFC 5952), so that equal addresses are equal
texts.

Source: RFC 8489 sections 14.1, 14.2.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final, TypeAlias

from wire.stun.errors import BadValue

COOKIE: Final = b"\x21\x12\xa4\x42"
_COOKIE_NUMBER: Final = 0x2112A442
_PORT_MASK: Final = 0x2112

#: Address families as they are numbered here.
IPV4: Final = 1
IPV6: Final = 2

Address: TypeAlias = tuple[str, int]


def family_of(host: str) -> int:
    """`IPV4` or `IPV6`."""
    return IPV6 if ":" in host else IPV4


def encode_address(host: str, port: int) -> bytes:
    """The value of MAPPED-ADDRESS, ALTERNATE-SERVER and the like."""
    packed = ip_address(host.partition("%")[0]).packed
    return bytes((0, 1 if len(packed) == 4 else 2)) + port.to_bytes(2, "big") + packed


def encode_xor(host: str, port: int, transaction_id: bytes) -> bytes:
    """The value of the XOR- attributes."""
    port ^= _PORT_MASK
    if ":" not in host:
        number = int(IPv4Address(host)) ^ _COOKIE_NUMBER
        return b"\x00\x01" + port.to_bytes(2, "big") + number.to_bytes(4, "big")
    mask = int.from_bytes(COOKIE + transaction_id, "big")
    number = int(IPv6Address(host.partition("%")[0])) ^ mask
    return b"\x00\x02" + port.to_bytes(2, "big") + number.to_bytes(16, "big")


def decode_address(value: bytes) -> Address:
    """Host and port of a plain address.

    Raises:
        BadValue: it is none.
    """
    return _decode(value, b"")


def decode_xor(value: bytes, transaction_id: bytes) -> Address:
    """Host and port of an XORed address.

    Raises:
        BadValue: it is none.
    """
    return _decode(value, COOKIE + transaction_id)


def _decode(value: bytes, mask: bytes) -> Address:
    size = len(value)
    if size == 8 and value[1] == IPV4:
        number = int.from_bytes(value[4:], "big")
        if mask:
            number ^= _COOKIE_NUMBER
        host = f"{number >> 24}.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
    elif size == 20 and value[1] == IPV6:
        host = str(IPv6Address(int.from_bytes(value[4:], "big") ^ int.from_bytes(mask, "big")))
    else:
        raise BadValue("address", f"an address of {size} bytes")
    port = value[2] << 8 | value[3]
    return host, port ^ _PORT_MASK if mask else port
