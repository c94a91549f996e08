"""The control protocol between a process and the child process it owns, over a socketpair.

Parent: the process actor makes a `ControlLink` and mounts it (actors/admin/mounts.py). Child: a
`LinkServer` actor (actors/admin/service.py) serves its own tree on the other end.

Each call has a window of `WINDOW` parts, granted again as they are consumed, so that a slow
operator's stream never blocks the link for the others. Bound: `MAX_IN_FLIGHT_LINK` calls, each
holding at most `WINDOW` parts; one more call fails with `busy`.
"""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping

from actors.admin.line_socket import AdminSocket
from actors.admin.mounts import ControlFailed
from actors.runtime import Actor
from wire.admin.client import ClientSession
from wire.admin.errors import AdminError, ErrorCode
from wire.admin.limits import MAX_IN_FLIGHT_LINK
from wire.admin.messages import Answer, Failed, Finished, Greeting, Part, Row

#: Parts a call may have under way or unread.
WINDOW = 8
#: Credit is granted back in steps of this many consumed parts.
CREDIT_STEP = 4


class LinkCall:
    """One request on a link; see `actors.admin.mounts.MountCall`."""

    def __init__(self, link: ControlLink, op: str) -> None:
        self._link = link
        self._op = op
        self._parts: deque[list[Row]] = deque()
        self._consumed = 0
        self._final: Row | ControlFailed | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._reading = False
        self.id = 0

    def __aiter__(self) -> AsyncIterator[list[Row]]:
        """The parts; see `MountCall`."""
        return self

    async def __anext__(self) -> list[Row]:
        """The next part."""
        while not self._parts:
            if self._final is not None:
                if isinstance(self._final, ControlFailed):
                    raise self._final
                raise StopAsyncIteration
            if self._waiter is not None:
                raise RuntimeError("two readers of one call")
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        rows = self._parts.popleft()
        self._consumed += 1
        if self._consumed == CREDIT_STEP:
            self._consumed = 0
            self._link._grant(self.id, CREDIT_STEP)
        return rows

    async def result(self) -> Row:
        """The final answer; see `MountCall`."""
        async for _ in self:
            pass
        if isinstance(self._final, dict):
            return self._final
        raise ControlFailed(ErrorCode.INTERNAL, "a call ended without an answer")

    def cancel(self) -> None:
        """End it early; idempotent."""
        self._link._cancel(self)
        self._end(ControlFailed(ErrorCode.UNAVAILABLE, f"{self._op} was cancelled"))

    @property
    def unread(self) -> int:
        """Parts that arrived and were not taken."""
        return len(self._parts)

    def _arrived(self, rows: list[Row]) -> None:
        self._parts.append(rows)
        self._wake()

    def _end(self, final: Row | ControlFailed) -> None:
        if self._final is None:
            self._final = final
            self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class ControlLink:
    """The parent's end of a link: a `SubtreeMount`, owned by the process actor.

    Args:
        actor: the owner, usually the process actor.
        sock: our end of a connected stream socketpair; taken over.
        on_lost: called once with the reason when the other side is gone or breaks the protocol;
            not after `abort`. Every call in flight has failed with `unavailable` by then.
    """

    def __init__(
        self,
        actor: Actor,
        sock: socket.socket,
        *,
        on_lost: Callable[[str], None] | None = None,
    ) -> None:
        self._session = ClientSession()
        self._calls: dict[int, LinkCall] = {}
        self._on_lost = on_lost
        self._greeted: list[asyncio.Future[Greeting]] = []
        self._gone = ""
        self._socket = AdminSocket(actor, sock, on_data=self._received, on_end=self._lost)
        actor.own(self, "control link")

    @property
    def greeting(self) -> Greeting | None:
        """What the child said about itself, once it did."""
        return self._session.greeting

    @property
    def lost(self) -> str:
        """Why the link is gone; empty while it is not."""
        return self._gone

    async def greeted(self, *, timeout: float) -> Greeting:
        """Wait at most `timeout` seconds until the child serves its tree.

        Raises:
            ControlFailed: `unavailable`, the link was lost before.
            TimeoutError: it did not in time.
        """
        if self.greeting is not None:
            return self.greeting
        self._check_alive()
        future: asyncio.Future[Greeting] = asyncio.get_running_loop().create_future()
        self._greeted.append(future)
        async with asyncio.timeout(timeout):
            return await future

    def call(self, op: str, args: Mapping[str, object]) -> LinkCall:
        """Begin a request; never waits. Every failure shows when the call is awaited."""
        call = LinkCall(self, op)
        if self._gone or self.greeting is None:
            why = self._gone or "its process is starting"
            call._end(ControlFailed(ErrorCode.UNAVAILABLE, f"no control link: {why}"))
        elif len(self._calls) >= MAX_IN_FLIGHT_LINK:
            call._end(ControlFailed(ErrorCode.BUSY, "too many requests on the control link"))
        else:
            call.id, line = self._session.request(op, args, WINDOW)
            self._calls[call.id] = call
            self._socket.write(line)
        return call

    async def request(self, op: str, args: Mapping[str, object], *, timeout: float) -> Row:
        """One request with a plain answer, at most `timeout` seconds.

        Raises:
            ControlFailed: the answer was an error, or the link is gone.
            TimeoutError: no answer in time; the request is cancelled.
        """
        call = self.call(op, args)
        try:
            async with asyncio.timeout(timeout):
                return await call.result()
        finally:
            call.cancel()

    def abort(self) -> None:
        """Close; every call fails with `unavailable`. Idempotent."""
        self._on_lost = None
        self._lose("closed")

    # Inside.

    def _received(self, data: bytes) -> None:
        try:
            answers = self._session.receive(data)
        except AdminError as error:
            self._lose(f"protocol error: {error}")
            return
        for answer in answers:
            self._answered(answer)

    def _answered(self, answer: Answer) -> None:
        if isinstance(answer, Greeting):
            waiting, self._greeted = self._greeted, []
            for future in waiting:
                if not future.done():
                    future.set_result(answer)
            return
        if isinstance(answer, Failed) and answer.id == 0:
            self._lose(f"the process says: {answer.message}")
            return
        call = self._calls.get(answer.id)
        if call is None:
            return
        if isinstance(answer, Part):
            if call.unread >= WINDOW:
                self._lose("protocol error: more parts than the window allows")
                return
            call._arrived(list(answer.rows))
            return
        del self._calls[answer.id]
        if isinstance(answer, Finished):
            call._end(answer.result)
        else:
            call._end(ControlFailed(answer.code, answer.message))

    def _grant(self, request: int, parts: int) -> None:
        line = self._session.credit(request, parts)
        if line and not self._gone:
            self._socket.write(line)

    def _cancel(self, call: LinkCall) -> None:
        if self._calls.pop(call.id, None) is not None:
            line = self._session.cancel(call.id)
            if line and not self._gone:
                self._socket.write(line)

    def _lost(self, reason: str) -> None:
        self._lose(reason)

    def _lose(self, reason: str) -> None:
        if self._gone:
            return
        self._gone = reason
        self._socket.abort()
        calls, self._calls = self._calls, {}
        for call in calls.values():
            call._end(ControlFailed(ErrorCode.UNAVAILABLE, f"control link lost: {reason}"))
        waiting, self._greeted = self._greeted, []
        for future in waiting:
            if not future.done():
                future.set_exception(
                    ControlFailed(ErrorCode.UNAVAILABLE, f"control link lost: {reason}")
                )
        callback, self._on_lost = self._on_lost, None
        if callback is not None:
            callback(reason)

    def _check_alive(self) -> None:
        if self._gone:
            raise ControlFailed(ErrorCode.UNAVAILABLE, f"control link lost: {self._gone}")
