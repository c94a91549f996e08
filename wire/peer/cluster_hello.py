"""HELLO, the first frame of a stream between pods: who dials, and that it knows the secret.

::

    version = 2 (1)  length (1)  announce address  Unix seconds (8)  length (1)  HMAC-SHA256

Source: protocol sheet peer 7.2.
"""

from __future__ import annotations

import hmac
import struct
from typing import Final, NamedTuple

from wire.peer.errors import BadFrame, NotEncodable

VERSION: Final = 2
#: Seconds the clocks of two pods may differ.
MAX_SKEW: Final = 300
_MAX_ADDRESS: Final = 255
_TIME: Final = struct.Struct(">q")
_HMAC: Final = 32
_SHORTEST: Final = 11


class Hello(NamedTuple):
    """What a dialer says of itself.

    Attributes:
        address: where it can be dialled; only a name to us.
        time: Unix seconds.
        hmac: 32 bytes; empty when it has no secret.
    """

    address: bytes
    time: int
    hmac: bytes


def encode_hello(address: str, secret: str, now: int) -> bytes:
    """The payload of a HELLO; unsigned without a secret.

    Raises:
        NotEncodable: the address has more than 255 bytes.
    """
    text = address.encode()
    if len(text) > _MAX_ADDRESS:
        raise NotEncodable(f"an address of {len(text)} bytes")
    signed = bytes((VERSION, len(text))) + text + _TIME.pack(now)
    if not secret:
        return signed + b"\x00"
    return signed + bytes((_HMAC,)) + hmac.digest(secret.encode(), signed, "sha256")


def check_hello(payload: bytes, secret: str, now: float) -> Hello:
    """A dialer's HELLO; what is behind its HMAC is ignored.

    Args:
        secret: of the cluster; empty: nobody signs.
        now: Unix seconds.

    Raises:
        BadFrame: labels are those of `relay_cluster_hello_rejects_total`.
    """
    if len(payload) < _SHORTEST:
        raise BadFrame("malformed", f"a HELLO of {len(payload)} bytes")
    if payload[0] != VERSION:
        raise BadFrame("malformed", f"a HELLO of version {payload[0]}")
    end = 2 + payload[1] + _TIME.size
    if len(payload) < end + 1:
        raise BadFrame("malformed", "a cut HELLO")
    address = payload[2 : 2 + payload[1]]
    time = _TIME.unpack_from(payload, end - _TIME.size)[0]
    size = payload[end]
    signature = payload[end + 1 : end + 1 + size]
    if len(signature) != size:
        raise BadFrame("malformed", "a cut HELLO")
    if abs(int(now) - time) > MAX_SKEW:
        raise BadFrame("stale_timestamp", f"a HELLO {int(now) - time} s old")
    if not secret:
        if size:
            raise BadFrame("signed_but_unsupported", "signed, but we have no cluster secret")
        return Hello(address, time, b"")
    if not size:
        raise BadFrame("unsigned_but_required", "not signed, but we have a cluster secret")
    if size != _HMAC:
        raise BadFrame("malformed", f"an HMAC of {size} bytes")
    if not hmac.compare_digest(signature, hmac.digest(secret.encode(), payload[:end], "sha256")):
        raise BadFrame("hmac_mismatch", "signed with another secret")
    return Hello(address, time, signature)
