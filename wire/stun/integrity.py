"""Keys and digests of the long-term credential mechanism, with MD5 and with SHA-256.

Names and passwords are prepared by the OpaqueString profile: other spaces become plain ones, and
the text is normalised (NFC).

Source: RFC 8489 sections 9.2.2, 14.4 to 14.6, 18.5; RFC 8265 section 4.2.
"""

from __future__ import annotations

import hmac
import unicodedata
from hashlib import md5
from hashlib import sha256 as _sha256
from typing import Final

#: PASSWORD-ALGORITHM numbers.
MD5: Final = 1
SHA256: Final = 2


def opaque(text: str) -> str:
    """The OpaqueString form of a name or password."""
    if text.isascii():
        return text
    spaced = "".join(" " if unicodedata.category(one) == "Zs" else one for one in text)
    return unicodedata.normalize("NFC", spaced)


def long_term_key(username: str, realm: str, password: str, algorithm: int = MD5) -> bytes:
    """The key that signs messages of this user."""
    text = f"{opaque(username)}:{opaque(realm)}:{opaque(password)}".encode()
    if algorithm == SHA256:
        return _sha256(text).digest()
    return md5(text, usedforsecurity=False).digest()


def userhash(username: str, realm: str) -> bytes:
    """USERHASH: a user's name for those who do not know all users."""
    return _sha256(f"{opaque(username)}:{opaque(realm)}".encode()).digest()


def sha1(body: bytes, key: bytes) -> bytes:
    """MESSAGE-INTEGRITY of what is in front of it, its length already in the header."""
    return hmac.digest(key, body, "sha1")


def sha256(body: bytes, key: bytes) -> bytes:
    """MESSAGE-INTEGRITY-SHA256, in full."""
    return hmac.digest(key, body, "sha256")


def verify_sha1(raw: bytes, at: int, value: bytes, key: bytes) -> bool:
    """`value` at `at` is the MESSAGE-INTEGRITY of what is in front of it."""
    body = raw[:2] + (at + 4).to_bytes(2, "big") + raw[4:at]  # 24 behind, 20 of header
    return hmac.compare_digest(hmac.digest(key, body, "sha1"), value)


def verify_sha256(raw: bytes, at: int, value: bytes, key: bytes) -> bool:
    """The same for SHA-256, which may be cut to 16 bytes or more."""
    size = len(value)
    if not 16 <= size <= 32 or size % 4:
        return False
    body = raw[:2] + (at + 4 + size - 20).to_bytes(2, "big") + raw[4:at]
    return hmac.compare_digest(hmac.digest(key, body, "sha256")[:size], value)
