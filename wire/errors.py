"""Errors of every wire protocol: whose fault it is decides what the caller may do.

::

    ProtocolError               never raised itself
    ├── LocalError              our bug: a value that cannot be encoded, a call in the wrong state;
    │                           the actor that made the call crashes
    └── PeerError               the peer broke the protocol; carries what to answer:
                                a wire code, a reason and a label to count by

Each protocol adds its own leaves and shows them as a tree in its `errors.py`. A parser given
arbitrary bytes raises `PeerError` or nothing. Texts name the limit and the actual value, never
payload.
"""

from __future__ import annotations


class ProtocolError(Exception):
    """Root of the hierarchy; raise `LocalError` or `PeerError` instead."""

    def __init__(self, detail: str) -> None:
        if type(self) is ProtocolError:
            raise TypeError("raise LocalError or PeerError: somebody is at fault")
        super().__init__(detail)


class LocalError(ProtocolError):
    """We misused the codec; the peer did nothing wrong."""


class PeerError(ProtocolError):
    """The peer broke the protocol.

    Args:
        detail: what happened, with limit and actual value; for logs.
        code: number for the protocol's own answer (application close code, error response, ...).
        reason: text that may go to the peer with the code; constant per kind of error.
        label: short name to count this kind of error by, for example ``frame_too_large``.
    """

    def __init__(self, detail: str, *, code: int, reason: str, label: str) -> None:
        super().__init__(detail)
        self.code = code
        self.reason = reason
        self.label = label
