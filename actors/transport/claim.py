"""Streams that one actor opens for another, at once or when the peer gives stream credit back.

A plain answer can be lost between the two: an asker that died or stopped waiting would leave the
stream, and the peer's stream credit, without an owner. The asker owns a claim as a resource before
it asks (`claim_stream`); whoever has the connection puts the stream there, as soon as the peer
allows one (`ClaimQueue`).
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass

from actors.runtime import DEFERRED, Actor, ActorRef, Deferred, Refusal, Reply, Request
from actors.transport.stream import ABORT_CODE, Stream, StreamClosed


class StreamClaim:
    """A place for a stream, as a resource of the asker.

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


@dataclass(slots=True)
class OpenTowards(Request[None]):
    """To the actor of a connection: put a stream into `claim`, as soon as its peer allows one.

    Answered when the claim is served; refused with a text when the connection cannot open any more.
    """

    claim: StreamClaim


async def claim_stream(
    owner: Actor, connection: ActorRef, *, timeout: float, code: int, patient: bool = False
) -> Stream:
    """A fresh stream over that actor's connection, for the caller to own at once.

    Args:
        owner: the actor whose task or handler this is.
        timeout: seconds.
        code: of the reset when the asker ends meanwhile.
        patient: an actor that is being restarted is asked again.

    Raises:
        AskFailed: nobody answered in time, or it refused.
        StreamClosed: it answered without a stream.
    """
    claim = owner.own(StreamClaim(code), "claim")
    try:
        ask = connection.ask_again if patient else connection.ask
        await ask(OpenTowards(claim), timeout=timeout)
        return claim.take()
    finally:
        owner.disown(claim)
        claim.abort()


class ClaimQueue:
    """Claims that wait for stream credit, the oldest first.

    Args:
        owner: the actor that answers `OpenTowards` with `open`.
        open_stream: a stream now; None while the peer allows none.
        bound: claims waiting; one more is refused.
        crowded: the text of that refusal.
    """

    __slots__ = ("_bound", "_crowded", "_open", "_owner", "_waiting")

    def __init__(
        self, owner: Actor, open_stream: Callable[[], Stream | None], *, bound: int, crowded: str
    ) -> None:
        # Weakly: it holds us, and would wait for the garbage collector with its connection.
        self._owner: Actor = weakref.proxy(owner)
        self._open = open_stream
        self._bound = bound
        self._crowded = crowded
        # Short, and empty nearly always: a deque is ten times as large.
        self._waiting: list[tuple[StreamClaim, Reply[None]]] = []

    def __len__(self) -> int:
        return len(self._waiting)

    def open(self, message: OpenTowards) -> Refusal | Deferred | None:
        """The answer to `OpenTowards`."""
        claim = message.claim
        if not claim.wanted:
            return None
        stream = self._open()
        if stream is not None:
            claim.put(stream)
            return None
        if len(self._waiting) >= self._bound:
            return Refusal(self._crowded)
        self._waiting.append((claim, self._owner.defer()))
        return DEFERRED

    def serve(self) -> None:
        """The peer gave credit back, or there is another connection: as many as it allows."""
        while self._waiting:
            claim, reply = self._waiting[0]
            if claim.wanted:
                stream = self._open()
                if stream is None:
                    return
                claim.put(stream)
                reply.send(None)
            self._waiting.pop(0)

    def refuse(self, why: str) -> None:
        """Nobody who waits will get a stream."""
        waiting, self._waiting = self._waiting, []
        for _, reply in waiting:
            reply.send(Refusal(why))
