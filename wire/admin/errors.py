"""What goes wrong in the control protocol.

::

    wire.errors.PeerError
    ├── LineTooLong       a line over the limit: the connection cannot go on
    ├── BadLine           a line that is no message of this protocol: answered, or ignored
    ├── BadArguments      a known message with wrong arguments: the request is refused
    ├── AnswerTooLarge    an answer that no line can carry: the request fails
    └── Declined          a good request that is not done, for the reason it says

On the wire an error is one of `ErrorCode`, with a message for people.
"""

from __future__ import annotations

from enum import StrEnum

from wire.errors import PeerError


class ErrorCode(StrEnum):
    """The words an error answer may carry."""

    NOT_FOUND = "not_found"  #: no such actor
    BAD_REQUEST = "bad_request"  #: unknown operation or wrong arguments
    REFUSED = "refused"  #: understood, and not done: the message says why
    BUSY = "busy"  #: a limit on clients or requests is reached; later it may work
    TOO_LARGE = "too_large"  #: request or answer over a size limit
    TIMEOUT = "timeout"  #: not done within the request's deadline
    UNAVAILABLE = "unavailable"  #: the process that owns that subtree does not answer
    INTERNAL = "internal"  #: a fault of the server, which logged it


_NUMBERS = {code: number for number, code in enumerate(ErrorCode, start=1)}


class AdminError(PeerError):
    """Root of this protocol's errors; `word` is the `ErrorCode` to answer with."""

    word = ErrorCode.BAD_REQUEST

    def __init__(self, detail: str) -> None:
        super().__init__(
            detail, code=_NUMBERS[self.word], reason=self.word.value, label=self.word.value
        )


class LineTooLong(AdminError):
    """A line longer than the limit, counted without its newline."""

    word = ErrorCode.TOO_LARGE


class BadLine(AdminError):
    """Not JSON, not an object, or without the fields every message has.

    `request` is the id it named, 0 when it could not be read.
    """

    def __init__(self, detail: str, request: int = 0) -> None:
        super().__init__(detail)
        self.request = request


class BadArguments(AdminError):
    """Arguments of a request that are missing, unknown, of a wrong type or out of range."""


class AnswerTooLarge(AdminError):
    """One row, or a result, is longer than a line may be."""

    word = ErrorCode.TOO_LARGE


class Declined(AdminError):
    """Understood, and not done: the text says why."""

    word = ErrorCode.REFUSED
