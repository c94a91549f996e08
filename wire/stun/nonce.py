"""Nonces that need no memory: each says when it was made, and for whom, under our secret.

::

    obMatJos2 | features, 4 characters | seconds, 8 hex digits | digest, 16 characters

The digest covers everything before it and the client's address, so a nonce is of no use elsewhere.
Two secrets count at a time, the newer one signs: after a rotation what was given out still holds.

Source: RFC 8489 sections 9.2, 18.1 (bit 0 is the leftmost); protocol sheet TURN 3.3.
"""

from __future__ import annotations

import hmac
from base64 import urlsafe_b64encode
from typing import Final

#: Nonces that begin so announce what the server can do.
COOKIE: Final = b"obMatJos2"
#: Feature bits: password algorithms and user name anonymity.
BOTH: Final = b"wAAA"
_PREFIX: Final = COOKIE + BOTH
_TIME_END: Final = len(_PREFIX) + 8
SIZE: Final = _TIME_END + 16


class Nonces:
    """Nonces that need no memory: each says when it was made, and for whom, under our secret.

    Args:
        secret: random bytes.
        lifetime: seconds a nonce is good for.
    """

    __slots__ = ("_lifetime", "_secrets")

    def __init__(self, secret: bytes, lifetime: float) -> None:
        self._secrets = [secret]
        self._lifetime = lifetime

    def rotate(self, secret: bytes) -> None:
        """Sign with this one from now on; the one before is still accepted."""
        self._secrets = [secret, self._secrets[0]]

    def make(self, source: str, now: float) -> bytes:
        """A nonce for the client there; `now` is wall-clock seconds."""
        body = b"%s%08x" % (_PREFIX, int(now) & 0xFFFFFFFF)
        return body + _digest(self._secrets[0], body, source)

    def valid(self, nonce: bytes, source: str, now: float) -> bool:
        """It was made for this client and is not too old."""
        if len(nonce) != SIZE or not nonce.startswith(_PREFIX):
            return False
        body = nonce[:_TIME_END]
        try:
            made = int(body[len(_PREFIX) :], 16)
        except ValueError:
            return False
        if not -1 <= now - made <= self._lifetime:
            return False
        given = nonce[_TIME_END:]
        return any(
            hmac.compare_digest(_digest(secret, body, source), given) for secret in self._secrets
        )


def _digest(secret: bytes, body: bytes, source: str) -> bytes:
    return urlsafe_b64encode(hmac.digest(secret, body + source.encode(), "sha256")[:12])
