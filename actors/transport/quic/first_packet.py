"""Whether a client's Initial packet can be the first that a server takes. Pure.

Source: RFC 9000 sections 12.4 and 17.2.2.
"""

from __future__ import annotations

_PADDING_AND_PING = b"\x00\x01"
_CRYPTO = b"\x06"


def begins_with_crypto(payload: bytes) -> bool:
    """True when its first frame beside PADDING and PING is CRYPTO, which it has to be.

    Without one it is the second probe of a client whose ClientHello was lost: a reason to wait.
    """
    return payload.lstrip(_PADDING_AND_PING).startswith(_CRYPTO)
