"""One interface over every byte stream of a door: those of QUIC, and of yamux over TCP.

A stream is a plain object: its owner sets callbacks, the transport calls them directly in the loop
iteration that received the data. Owners wrap them in `Actor.guard`, so that an exception in one is
the exit of the owner and of nobody else.

Credit follows consumption: the peer may have at most one window of bytes that `consume` has not
acknowledged. A splice is therefore exactly

    a.on_data, b.on_drain = b.write, a.consume

and the relay holds at most one window per direction.

FIN means end, RESET means error; an error is never turned into FIN.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from actors.transport.connection import Connection

#: Application error code of `abort()` when its owner gives none (sheet ORP 3.4).
ABORT_CODE = 0x0A


@dataclass(frozen=True, slots=True)
class CloseReason:
    """Why a connection ended.

    Attributes:
        kind: local, peer, idle, transport, handshake or aborted.
        code: the error code that was on the wire, 0 when none was.
        application: True for an application code, False for a transport code.
        text: the reason phrase, or ours.
    """

    kind: str
    code: int = 0
    application: bool = False
    text: str = ""

    def __str__(self) -> str:
        number = f" 0x{self.code:x}" if self.code else ""
        return f"{self.kind}{number}{': ' + self.text if self.text else ''}"


class BacklogExceeded(Exception):
    """More was written to a stream than twice its backlog limit: the writer ignores `room`."""


class StreamClosed(Exception):
    """A write to a stream after its write half was finished."""


def _ignore(*_: object) -> None:
    """The default callback."""


class Stream(ABC):
    """A bidirectional byte stream. Not thread-safe; every call belongs to the loop's thread."""

    stream_id: int
    connection: Connection
    bytes_in: int
    bytes_out: int

    def __init__(self) -> None:
        self.on_data: Callable[[bytes], object] = _ignore
        self.on_eof: Callable[[], object] = _ignore
        self.on_reset: Callable[[int], object] = _ignore
        self.on_stop_sending: Callable[[int], object] = _ignore
        self.on_drain: Callable[[int], object] = _ignore
        self.on_lost: Callable[[CloseReason], object] = _ignore
        #: Both halves are over and the peer's transport has everything; nothing follows.
        self.on_finished: Callable[[], object] = _ignore
        self.bytes_in = 0
        self.bytes_out = 0

    def forget_callbacks(self) -> None:
        """Deliver nothing any more: the owner is gone."""
        self.on_data = self.on_eof = self.on_reset = _ignore
        self.on_stop_sending = self.on_drain = self.on_lost = self.on_finished = _ignore

    @abstractmethod
    def start(self) -> None:
        """Begin (or go on) delivering. What came before is held, bounded by the window."""

    @abstractmethod
    def pause(self) -> None:
        """Hold what arrives from now on until `start()`; bounded by the window."""

    @abstractmethod
    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Queue bytes for the peer; never waits, takes everything.

        Returns the room left below the backlog limit; at or below 0 the writer should wait for
        `on_drain`.

        Raises:
            StreamClosed: after `write_eof`, `reset` or the end of the stream's write half.
            BacklogExceeded: the backlog is beyond twice its limit.
        """

    @abstractmethod
    def write_eof(self) -> None:
        """FIN after everything written; idempotent, harmless after `reset`."""

    @abstractmethod
    def reset(self, code: int) -> None:
        """RESET_STREAM: drop what was not sent; idempotent."""

    @abstractmethod
    def stop_sending(self, code: int) -> None:
        """STOP_SENDING: nothing more is delivered; idempotent."""

    @abstractmethod
    def consume(self, count: int) -> None:
        """Give the peer credit for `count` bytes that were delivered."""

    def abort(self, code: int = ABORT_CODE) -> None:
        """Reset and stop whatever is still open, deliver nothing more; idempotent."""
        self.forget_callbacks()
        self.reset(code)
        self.stop_sending(code)

    def unread(self) -> tuple[list[bytes], bool]:
        """What arrived and was not delivered, in order, and whether a FIN followed it.

        For an owner that outlives the connection: the peer believes that we have these bytes.
        """
        return [], False

    @property
    @abstractmethod
    def backlog(self) -> int:
        """Bytes written and not yet acknowledged by the peer."""

    @property
    @abstractmethod
    def unconsumed(self) -> int:
        """Bytes received and not yet consumed."""

    @property
    @abstractmethod
    def room(self) -> int:
        """Bytes that may still be written below the backlog limit."""

    @property
    @abstractmethod
    def read_closed(self) -> bool:
        """True once EOF or a reset was delivered, or we stopped reading."""

    @property
    @abstractmethod
    def write_closed(self) -> bool:
        """True once FIN or a reset was queued."""


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
