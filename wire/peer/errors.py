"""What may be wrong with a message, a frame or a token."""

from __future__ import annotations

from wire.errors import LocalError, PeerError


class BadMessage(PeerError):
    """A client's message that ends its connection. The protocol has no answer to it."""

    def __init__(self, label: str, detail: str) -> None:
        super().__init__(detail, code=0, reason="", label=label)


class BadToken(PeerError):
    """A client that may not come in; its connection ends without an answer."""

    def __init__(self, label: str, detail: str) -> None:
        super().__init__(detail, code=0, reason="", label=label)


class BadFrame(PeerError):
    """A frame of another pod that ends its stream."""

    def __init__(self, label: str, detail: str) -> None:
        super().__init__(detail, code=0, reason="", label=label)


class NotEncodable(LocalError):
    """A message that does not fit, or a list of nobody."""
