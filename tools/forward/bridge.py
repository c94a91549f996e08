"""One user of a forwarded service: the relay's end and a connection to the local server."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from actors.runtime import Actor, MailboxSpec, shutdown
from actors.transport.dialling import connect_tcp
from actors.transport.stream import Stream
from actors.transport.tcp.pump import PipePool, QuietLimits, SocketPair, StreamPump
from actors.transport.tcp.pump.reset import close_with_reset
from config.endpoint import Endpoint

#: Seconds the local server may take to accept.
LOCAL_SECONDS: Final = 10.0
_LIMITS: Final = QuietLimits(half_closed=300.0)

End: TypeAlias = "socket.socket | Stream"


@dataclass(slots=True)
class Locals:
    """Local servers in turn; those that do not answer are left out for that user.

    Attributes:
        refused: connections none of them took.
    """

    targets: tuple[Endpoint, ...]
    refused: int = 0
    _next: int = field(default=0)

    async def connect(self) -> socket.socket:
        """A connection to the next one that takes it.

        Raises:
            OSError: none does, within `LOCAL_SECONDS`.
        """
        self._next += 1
        failure: OSError = OSError("no local server")
        async with asyncio.timeout(LOCAL_SECONDS):
            for turn in range(len(self.targets)):
                target = self.targets[(self._next + turn) % len(self.targets)]
                try:
                    return await connect_tcp(*target)
                except OSError as error:
                    failure = error
        self.refused += 1
        raise failure


class EndGuard:
    """An end until the pump has it. An actor that is killed before it began owns nothing: then
    it is reset when nobody keeps it any more.
    """

    __slots__ = ("end",)

    def __init__(self, end: End | None) -> None:
        self.end = end

    def abort(self) -> None:
        """Reset it: that user is told, and nobody else."""
        if isinstance(self.end, Stream):
            self.end.abort(0)
        elif self.end is not None:
            close_with_reset(self.end)
        self.end = None

    def __del__(self) -> None:
        self.abort()


class UserBridge(Actor):
    """One user of a forwarded service: the relay's end and a connection to the local server.

    Args:
        end: the relay's.
        make: makes it for this user, with what came of it; None: it is there.
        early: bytes that came of the relay's end, when it is there.
        late: wait with the local server until that is there. Else it is dialled first.
    """

    mailbox = MailboxSpec(bound=4)
    handler_limit = 60.0

    def __init__(
        self,
        locals_: Locals,
        pipes: PipePool,
        end: EndGuard,
        make: Callable[[], Awaitable[tuple[End, bytes]]] | None,
        *,
        early: bytes = b"",
        late: bool = True,
    ) -> None:
        self._locals = locals_
        self._pipes = pipes
        self._end = end
        self._make = make
        self._early = early
        self._late = late
        self._pump: SocketPair | StreamPump | None = None

    def init(self) -> None:
        """Own what is there."""
        self.own(self._end, "relay")
        self._near = self.own(EndGuard(None), "local")

    def describe(self) -> dict[str, object]:
        """Bytes."""
        pump = self._pump
        return {
            "bytes_in": 0 if pump is None else pump.bytes_in,
            "bytes_out": 0 if pump is None else pump.bytes_out,
        }

    async def continue_(self) -> None:
        """Dial, and couple."""
        early, self._early = self._early, b""
        try:
            if not self._late:
                self._near.end = await self._locals.connect()
            if self._make is not None:
                self._end.end, early = await self._make()
            if self._late:
                self._near.end = await self._locals.connect()
        except (OSError, TimeoutError) as error:
            self.log.debug("a user is not served: {}", error)
            self.stop(shutdown("not served"))
            return
        self._couple(early)

    def _couple(self, early: bytes) -> None:
        near, end = self._near.end, self._end.end
        assert isinstance(near, socket.socket)
        assert end is not None
        pump: SocketPair | StreamPump
        if isinstance(end, Stream):
            pump = StreamPump(
                near, end, on_end=self._ended, guard=self.guard, code=0, limits=_LIMITS
            )
        else:
            pump = SocketPair(
                near, end, pipes=self._pipes, on_end=self._ended, guard=self.guard, limits=_LIMITS
            )
        self._pump = self.own(pump, "pump")
        self._near.end = self._end.end = None
        if isinstance(pump, StreamPump):
            pump.start()
        else:
            pump.start(second=early)

    def _ended(self, why: str) -> None:
        self.stop(shutdown(why or "done"))
