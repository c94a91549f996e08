"""A place for a stream that one actor opens for another.

A plain answer can be lost between the two: an asker that died or stopped waiting would leave the
stream, and the peer's stream credit, without an owner. The asker owns the claim as a resource
before it asks; whoever opens the stream puts it there.
"""

from __future__ import annotations

from actors.transport.stream import ABORT_CODE, Stream, StreamClosed


class StreamClaim:
    """See the module docstring.

    Args:
        code: the application error code of the reset when the claim is given up.
    """

    __slots__ = ("_abandoned", "_code", "_stream")

    def __init__(self, code: int = ABORT_CODE) -> None:
        self._code = code
        self._stream: Stream | None = None
        self._abandoned = False

    @property
    def wanted(self) -> bool:
        """False when the claim was given up or is served already: open no stream for it."""
        return not self._abandoned and self._stream is None

    def put(self, stream: Stream) -> None:
        """Serve the claim; a stream that nobody wants any more is reset."""
        if self.wanted:
            self._stream = stream
        else:
            stream.abort(self._code)

    def take(self) -> Stream:
        """The stream, for an owner from now on.

        Raises:
            StreamClosed: nothing was put here.
        """
        stream, self._stream = self._stream, None
        self._abandoned = True
        if stream is None:
            raise StreamClosed("the claim was not served")
        return stream

    def abort(self) -> None:
        """Give the claim up, and the stream with it; idempotent."""
        self._abandoned = True
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.abort(self._code)
