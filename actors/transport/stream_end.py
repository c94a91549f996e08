"""A stream as a resource: it ends with its actor, unless the actor ended it properly."""

from __future__ import annotations

from actors.transport.stream import ABORT_CODE, Stream


class StreamEnd:
    """One side's stream, owned by an actor; if that dies, the stream is reset.

    Args:
        code: of the reset.

    Attributes:
        settled: it was ended, or given to another owner: nothing is left to do.
    """

    __slots__ = ("_code", "settled", "stream")

    def __init__(self, stream: Stream, code: int = ABORT_CODE) -> None:
        self.stream = stream
        self.settled = False
        self._code = code

    @property
    def bytes_in(self) -> int:
        """From the peer, for the inspector."""
        return self.stream.bytes_in

    @property
    def bytes_out(self) -> int:
        """To the peer, for the inspector."""
        return self.stream.bytes_out

    def abort(self) -> None:
        """Reset what is not settled; idempotent."""
        if not self.settled:
            self.settled = True
            self.stream.abort(self._code)
