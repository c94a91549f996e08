"""What a yamux peer can do wrong. Every one of these ends the session, and no other session.

::

    PeerError
    └── YamuxError          the label says which rule was broken
    LocalError
    └── SessionMisuse       a call for a stream that is not there, or in the wrong state
"""

from __future__ import annotations

from wire.errors import LocalError, PeerError
from wire.yamux.frame import GoAway


class YamuxError(PeerError):
    """The session cannot go on; the code is that of our GO_AWAY."""

    def __init__(self, label: str, detail: str, code: GoAway = GoAway.PROTOCOL_ERROR) -> None:
        super().__init__(detail, code=code, reason=label.replace("_", " "), label=label)


class SessionMisuse(LocalError):
    """We called the session against its contract."""
