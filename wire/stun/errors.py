"""What can be wrong with a STUN message.

::

    PeerError
    └── StunError          not STUN, or framing that cannot be answered: silence
        └── BadValue       an attribute's value is malformed: 400 where there is somebody to answer
"""

from __future__ import annotations

from wire.errors import PeerError


class StunError(PeerError):
    """These bytes are no STUN message."""

    def __init__(self, label: str, detail: str = "") -> None:
        super().__init__(detail or label, code=400, reason="Bad Request", label=label)


class BadValue(StunError):
    """The value of an attribute is malformed."""
