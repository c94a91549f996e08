"""Attribute types and how their values are written.

Source: protocol sheet TURN 3.2; RFC 8489 section 14, RFC 8656 section 18, RFC 6062, RFC 8016.
"""

from __future__ import annotations

from struct import Struct
from typing import Final

MAPPED_ADDRESS: Final = 0x0001
USERNAME: Final = 0x0006
MESSAGE_INTEGRITY: Final = 0x0008
ERROR_CODE: Final = 0x0009
UNKNOWN_ATTRIBUTES: Final = 0x000A
CHANNEL_NUMBER: Final = 0x000C
LIFETIME: Final = 0x000D
XOR_PEER_ADDRESS: Final = 0x0012
DATA: Final = 0x0013
REALM: Final = 0x0014
NONCE: Final = 0x0015
XOR_RELAYED_ADDRESS: Final = 0x0016
REQUESTED_ADDRESS_FAMILY: Final = 0x0017
EVEN_PORT: Final = 0x0018
REQUESTED_TRANSPORT: Final = 0x0019
DONT_FRAGMENT: Final = 0x001A
MESSAGE_INTEGRITY_SHA256: Final = 0x001C
PASSWORD_ALGORITHM: Final = 0x001D
USERHASH: Final = 0x001E
XOR_MAPPED_ADDRESS: Final = 0x0020
RESERVATION_TOKEN: Final = 0x0022
CONNECTION_ID: Final = 0x002A
ADDITIONAL_ADDRESS_FAMILY: Final = 0x8000
ADDRESS_ERROR_CODE: Final = 0x8001
PASSWORD_ALGORITHMS: Final = 0x8002
ALTERNATE_DOMAIN: Final = 0x8003
ICMP: Final = 0x8004
SOFTWARE: Final = 0x8022
ALTERNATE_SERVER: Final = 0x8023
FINGERPRINT: Final = 0x8028
MOBILITY_TICKET: Final = 0x8030
#: What coturn 4.6 and its tools send for ADDITIONAL-ADDRESS-FAMILY.
ADDITIONAL_ADDRESS_FAMILY_OLD: Final = 0x8032

#: Types from here on may be ignored by those who do not know them.
COMPREHENSION_OPTIONAL: Final = 0x8000

#: Reason phrases; texts of RFC 8489 section 14.8 and its sisters.
REASONS: Final = {
    300: "Try Alternate",
    400: "Bad Request",
    401: "Unauthenticated",
    403: "Forbidden",
    405: "Mobility Forbidden",
    420: "Unknown Attribute",
    437: "Allocation Mismatch",
    438: "Stale Nonce",
    440: "Address Family not Supported",
    441: "Wrong Credentials",
    442: "Unsupported Transport Protocol",
    443: "Peer Address Family Mismatch",
    446: "Connection Already Exists",
    447: "Connection Timeout or Failure",
    486: "Allocation Quota Reached",
    500: "Server Error",
    508: "Insufficient Capacity",
}

#: An attribute as it is built: type and value.
Attribute = tuple[int, bytes]

_U16: Final = Struct(">H")
_U32: Final = Struct(">I")


def error_code(code: int, reason: str | None = None) -> Attribute:
    """ERROR-CODE; the reason is that of the RFC unless another one is given."""
    text = REASONS.get(code, "") if reason is None else reason
    return ERROR_CODE, bytes((0, 0, code // 100, code % 100)) + text.encode()


def address_error_code(family: int, code: int) -> Attribute:
    """ADDRESS-ERROR-CODE: why one of two families was not allocated."""
    text = REASONS.get(code, "").encode()
    return ADDRESS_ERROR_CODE, bytes((family, 0, code // 100, code % 100)) + text


def unknown_attributes(types: list[int]) -> Attribute:
    """UNKNOWN-ATTRIBUTES of a 420."""
    return UNKNOWN_ATTRIBUTES, b"".join(map(_U16.pack, types))


def lifetime(seconds: int) -> Attribute:
    """LIFETIME."""
    return LIFETIME, _U32.pack(seconds)


def icmp(kind: int, code: int, data: int = 0) -> Attribute:
    """ICMP: two reserved bytes, type, code, and the MTU where there is one."""
    return ICMP, bytes((0, 0, kind, code)) + _U32.pack(data)


def parse_error(value: bytes) -> tuple[int, str]:
    """Number and reason of an ERROR-CODE.

    Raises:
        ValueError: it is none.
    """
    if len(value) < 4:
        raise ValueError("ERROR-CODE is too short")
    return (value[2] & 7) * 100 + value[3], value[4:].decode("utf-8", "replace")
