"""Tokens, version 2: an expiry that the management server signed. Who has one may come in.

::

    algorithm (1)   signature (32)   payload: Unix seconds in decimal ASCII

The key is the SHA-256 of the secret. A token is not bound to a peer, and says nothing of when it
was made.

Source: protocol sheet peer 2.5.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Sequence
from typing import Final

from wire.peer.errors import BadToken

HMAC_SHA256: Final = 1
_SIGNATURE: Final = 32
_MIN_PAYLOAD: Final = 10
_NUMBER: Final = re.compile(rb"[+-]?[0-9]+\Z")
_INT64: Final = 1 << 63


def key_of(secret: str) -> bytes:
    """What signs with this secret."""
    return hashlib.sha256(secret.encode()).digest()


def make_token(key: bytes, payload: bytes) -> bytes:
    """A token over this payload."""
    return bytes((HMAC_SHA256,)) + _sign(key, payload) + payload


def check_token(token: bytes, keys: Sequence[bytes], now: float) -> int:
    """When a token expires, Unix seconds.

    Args:
        keys: any of them may have signed.
        now: Unix seconds.

    Raises:
        BadToken: it is none, nobody of these signed it, or it is over.
    """
    size = _SIGNATURE if token[:1] == b"\x01" else 0
    if not token or (size and len(token) < 1 + size):
        raise BadToken("malformed_token", f"a token of {len(token)} bytes")
    signature, payload = token[1 : 1 + size], token[1 + size :]
    if len(payload) < _MIN_PAYLOAD:
        raise BadToken("malformed_token", f"a payload of {len(payload)} bytes")
    if token[0] != HMAC_SHA256:
        raise BadToken("unknown_algorithm", f"algorithm {token[0]}")
    good = [hmac.compare_digest(signature, _sign(key, payload)) for key in keys]
    if not any(good):
        raise BadToken("bad_signature", "signed with another secret")
    if not _NUMBER.match(payload):
        raise BadToken("malformed_token", "the expiry is no number")
    expiry = int(payload)
    if not -_INT64 <= expiry < _INT64:
        raise BadToken("malformed_token", "the expiry has more than 64 bits")
    if now > expiry:
        raise BadToken("expired", f"expired at {expiry}")
    return expiry


def _sign(key: bytes, payload: bytes) -> bytes:
    return hmac.digest(key, payload, "sha256")
