"""The first message of a stream is read, and the stream handed on as if nobody had read it.

Peers say on a stream first what it is for, or answer there first. Which protocol that is in, the
reader knows, which is an argument. Whoever gets the message gets the stream paused, without
callbacks, and the bytes that came behind the message, which are not consumed: nothing is lost
between two owners, and the stream's window bounds what waits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Literal, Protocol, TypeVar

from actors.runtime import Actor, Timer
from actors.transport.stream import ABORT_CODE, CloseReason, Stream
from wire.errors import PeerError

M = TypeVar("M")
M_co = TypeVar("M_co", covariant=True)


class MessageReader(Protocol[M_co]):
    """Cuts one message off a byte stream; see `wire.orp.messages`."""

    def feed(self, chunk: bytes, /) -> None:
        """The next bytes."""

    def next_message(self) -> M_co | None:
        """The message, None when more bytes are needed; raises `PeerError`."""

    def take_rest(self) -> bytes:
        """What came behind the message."""


@dataclass(frozen=True, slots=True)
class NoMessage:
    """Why no message came.

    Attributes:
        why: the peer ended the stream, reset it, or was lost; the deadline passed; or what it sent
            is no message.
        code: of the reset.
        error: what is wrong with what it sent.
    """

    why: Literal["eof", "reset", "lost", "timeout", "malformed"]
    code: int = 0
    error: PeerError | None = None


class FirstMessage(Generic[M]):
    """A resource of the actor that waits, from `start` to the end of the wait.

    It ends in exactly one of `then`, `failed`, `release` and `abort`.

    Args:
        owner: the actor; it owns the stream meanwhile, through this object.
        stream: not started, or paused.
        then: gets the message and the bytes behind it; the stream is the callee's.
        failed: gets the reason; the stream is the callee's to end.
        deadline: seconds; None: somebody else looks at the clock.
        code: of the reset when the owner ends, or gives the wait up.
        kind: of the resource and its callbacks, in reports.
    """

    def __init__(
        self,
        owner: Actor,
        stream: Stream,
        reader: MessageReader[M],
        then: Callable[[M, bytes], object],
        failed: Callable[[NoMessage], object],
        *,
        deadline: float | None = None,
        code: int = ABORT_CODE,
        kind: str = "first message",
    ) -> None:
        self._owner: Actor | None = owner
        self._stream = stream
        self._reader = reader
        self._then: Callable[[M, bytes], object] | None = then
        self._failed: Callable[[NoMessage], object] | None = failed
        self._deadline = deadline
        self._code = code
        self._kind = kind
        self._timer: Timer | None = None

    def start(self, early: bytes = b"") -> None:
        """Begin to read.

        Args:
            early: delivered before, and not consumed.
        """
        owner, stream = self._owner, self._stream
        assert owner is not None
        owner.own(self, self._kind)
        guard, kind = owner.guard, self._kind
        stream.on_data = guard(kind, self._data)
        stream.on_eof = guard(kind, lambda: self._fail(NoMessage("eof")))
        stream.on_reset = guard(kind, lambda code: self._fail(NoMessage("reset", code)))
        stream.on_lost = guard(kind, self._lost)
        if self._deadline is not None:
            late = guard(kind, lambda: self._fail(NoMessage("timeout")))
            self._timer = owner.system.timers.after(self._deadline, late)
        if early:
            self._data(early)
        if self._owner is not None:
            stream.start()

    def release(self) -> None:
        """Nobody waits any more, and the stream is the caller's; idempotent."""
        self._finish()

    def abort(self) -> None:
        """Nobody waits any more: reset the stream, unless the wait is over; idempotent."""
        if self._finish():
            self._stream.abort(self._code)

    def _data(self, chunk: bytes) -> None:
        stream, reader = self._stream, self._reader
        try:
            reader.feed(chunk)
            message = reader.next_message()
        except PeerError as error:
            self._fail(NoMessage("malformed", error=error))
            return
        if message is None:
            stream.consume(len(chunk))
            return
        rest = bytes(reader.take_rest())
        stream.consume(len(chunk) - len(rest))
        stream.pause()
        then = self._then
        if self._finish() and then is not None:
            then(message, rest)

    def _lost(self, reason: CloseReason) -> None:
        del reason
        self._fail(NoMessage("lost"))

    def _fail(self, why: NoMessage) -> None:
        failed = self._failed
        if self._finish() and failed is not None:
            failed(why)

    def _finish(self) -> bool:
        """The wait is over, and holds nothing of its owner. False: it was over before."""
        owner, self._owner = self._owner, None
        if owner is None:
            return False
        owner.disown(self)
        self._then = self._failed = None
        if self._timer is not None:
            owner.system.timers.cancel(self._timer)
        self._stream.forget_callbacks()
        return True
