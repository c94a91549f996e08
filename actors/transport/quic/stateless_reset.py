"""Stateless resets: telling a peer at once that its connection is gone.

A relay that was killed and started again knows nothing of its former connections. The token of a
connection id follows from the id and a static key, so the new process can prove to the peer that
the id was its own. Without it an agent notices the loss only when its idle timeout ends.

The key is derived from the private key of the first identity, so it survives a restart and is
never stored. Source: RFC 9000 section 10.3.
"""

from __future__ import annotations

import hashlib
import hmac
import os

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

TOKEN_BYTES = 16
#: Shorter ones could not be told from a valid packet (RFC 9000 section 10.3).
SMALLEST = 5 + TOKEN_BYTES
#: Longer ones tell nobody more.
LONGEST = 43


class ResetKey:
    """The static key.

    Args:
        secret: 32 bytes.
    """

    __slots__ = ("_secret",)

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    @classmethod
    def derived(cls, key: PrivateKeyTypes) -> ResetKey:
        """The key that belongs to a private key."""
        encoded = key.private_bytes(
            serialization.Encoding.DER,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        kdf = HKDF(algorithm=SHA256(), length=32, salt=None, info=b"trunkline stateless reset")
        return cls(kdf.derive(encoded))

    def token(self, cid: bytes) -> bytes:
        """The token of a connection id: 16 bytes."""
        return hmac.digest(self._secret, cid, hashlib.sha256)[:TOKEN_BYTES]

    def packet(self, cid: bytes, caused_by: int) -> bytes | None:
        """A reset for a packet of `caused_by` bytes: always shorter than that, else None.

        Being shorter, two endpoints cannot answer each other for ever.
        """
        size = min(LONGEST, caused_by - 1)
        if size < SMALLEST:
            return None
        body = bytearray(os.urandom(size - TOKEN_BYTES))
        body[0] = 0x40 | (body[0] & 0x3F)
        return bytes(body) + self.token(cid)
