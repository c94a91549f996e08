"""One connection of the control protocol, on the server's side: requests to tasks, answers back.

Every request runs as a task owned by the connection's actor, under its operation's deadline. A
task that fails answers `internal` and is logged; the connection lives on. Bounds: `in_flight`
requests; what an operation keeps for a slow reader is bounded by the operation (a request waits
for room before each part, a subscription drops and counts).

The operations themselves are in tree_view.py, verbs.py, events.py, trace.py and watch.py.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from actors.admin.line_socket import AdminSocket
from actors.admin.mounts import ControlFailed, MountTable
from actors.runtime import Actor, ActorSystem, OwnedTask
from wire.admin.arguments import Arguments
from wire.admin.errors import AdminError, BadArguments, BadLine, ErrorCode, LineTooLong
from wire.admin.limits import MAX_IN_FLIGHT, MAX_LINE_BYTES, MAX_PART_ROWS, MAX_WINDOW
from wire.admin.lines import LineReader
from wire.admin.messages import (
    Greeting,
    Request,
    Row,
    decode_request,
    encode_failed,
    encode_finished,
    encode_greeting,
    encode_part,
)

TASK_NAME = "request "


@dataclass(frozen=True, slots=True)
class Peer:
    """Who is on the other side.

    Attributes:
        initiator: the words logged as the author of what it does, such as `operator uid=1000`.
        trusted: True for the parent process, whose requests name their own initiator.
    """

    initiator: str
    trusted: bool = False


@dataclass(frozen=True, slots=True)
class Operation:
    """How to serve one `op`.

    Attributes:
        handler: serves it; what it returns is the result, what it raises as `ControlFailed` or
            `BadArguments` is the error.
        deadline: seconds it may take; None for a subscription, which ends when it is cancelled
            or its connection ends.
    """

    handler: Callable[[Exchange], Awaitable[Row]]
    deadline: float | None


@dataclass(slots=True)
class ControlService:
    """What a node serves on its control connections.

    Attributes:
        system: the tree to show.
        mounts: the trees of its child processes.
        operations: by name.
        guarded: paths that are acted on only by force, with everything above them.
    """

    system: ActorSystem
    mounts: MountTable
    operations: Mapping[str, Operation]
    guarded: list[str] = field(default_factory=list)

    def greeting(self) -> Greeting:
        """The first line of every connection."""
        names = ("cancel", "credit", *self.operations)
        return Greeting(self.system.name, os.getpid(), tuple(sorted(names)))


class Exchange:
    """One request being served: its arguments, and where its parts go."""

    def __init__(self, session: ControlSession, request: Request) -> None:
        self._session = session
        self._credit: int | None = request.window or None
        self._granted: asyncio.Future[None] | None = None
        self.id = request.id
        self.op = request.op
        self.values = request.args
        self.args = Arguments(request.args)
        self.task: OwnedTask | None = None

    @property
    def service(self) -> ControlService:
        """What the node serves."""
        return self._session.service

    @property
    def system(self) -> ActorSystem:
        """The node's own actors."""
        return self._session.service.system

    @property
    def peer(self) -> Peer:
        """Who asks."""
        return self._session.peer

    async def part(self, rows: Sequence[Row]) -> None:
        """Send rows, in as many parts as they need; waits for room and for the peer's window.

        Gives the event loop a turn after every part, so that a long answer is served in slices.
        """
        for start in range(0, len(rows), MAX_PART_ROWS):
            await self._send(rows[start : start + MAX_PART_ROWS])

    async def _send(self, rows: Sequence[Row]) -> None:
        line = encode_part(self.id, rows)
        if len(line) > MAX_LINE_BYTES:
            if len(rows) == 1:
                raise ControlFailed(ErrorCode.TOO_LARGE, f"one row of {len(line)} bytes")
            middle = len(rows) // 2
            await self._send(rows[:middle])
            await self._send(rows[middle:])
            return
        while self._credit == 0:
            self._granted = asyncio.get_running_loop().create_future()
            try:
                await self._granted
            finally:
                self._granted = None
        await self._session.room()
        if self._credit is not None:
            self._credit -= 1
        self._session.send(line)
        await asyncio.sleep(0)

    def grant(self, parts: int) -> None:
        """The peer allows more parts."""
        if self._credit is not None:
            self._credit = min(self._credit + parts, MAX_WINDOW)
            if self._granted is not None and not self._granted.done():
                self._granted.set_result(None)


class ControlSession:
    """One connection of the control protocol, on the server's side: requests to tasks, answers
    back.

    Args:
        actor: the connection's actor. Its `on_resource_failed` must ask `request_failed`.
        sock: the connected socket; taken over.
        on_end: called once when the connection is over, with the reason; not after the actor's
            own end.
    """

    def __init__(
        self,
        actor: Actor,
        sock: socket.socket,
        service: ControlService,
        peer: Peer,
        *,
        on_end: Callable[[str], None],
        in_flight: int = MAX_IN_FLIGHT,
    ) -> None:
        self._actor = actor
        self.service = service
        self.peer = peer
        self._on_end = on_end
        self._most = in_flight
        self._lines = LineReader()
        self._exchanges: dict[int, Exchange] = {}
        self._ending = ""
        self.served = 0
        self.refused = 0
        self._socket = AdminSocket(actor, sock, on_data=self._received, on_end=self._ended)
        self._socket.write(encode_greeting(service.greeting()))

    @property
    def in_flight(self) -> dict[int, str]:
        """Requests being served: id and operation."""
        return {exchange.id: exchange.op for exchange in self._exchanges.values()}

    def send(self, line: bytes) -> None:
        """Write one line."""
        self._socket.write(line)

    async def room(self) -> None:
        """Wait until the peer took most of what was written."""
        await self._socket.room()

    def request_failed(self, kind: str, error: Exception) -> bool:
        """A request's task failed unexpectedly: answer it. False when `kind` is another's."""
        name = kind.removeprefix("task " + TASK_NAME)
        exchange = self._exchanges.pop(int(name), None) if name.isdecimal() else None
        if exchange is None:
            return False
        self._actor.log.opt(exception=error).error("control request {!r} failed", exchange.op)
        self._fail(exchange.id, ErrorCode.INTERNAL, f"{exchange.op}: internal error, see the log")
        self._end_if_idle()
        return True

    # Inside.

    def _received(self, data: bytes) -> None:
        try:
            lines = self._lines.receive(data)
        except LineTooLong as error:
            self._fail(0, error.word, str(error))
            self._finish(str(error))
            return
        for line in lines:
            try:
                self._begin(decode_request(line))
            except BadLine as error:
                self._fail(error.request, error.word, str(error))

    def _begin(self, request: Request) -> None:
        if request.op == "cancel" or request.op == "credit":
            try:
                self._steer(request)
            except BadArguments as error:
                self._fail(request.id, error.word, str(error))
            return
        operation = self.service.operations.get(request.op)
        if operation is None:
            known = ", ".join(sorted(self.service.operations))
            text = f"unknown operation {request.op!r}; known are: {known}"
            self._fail(request.id, ErrorCode.BAD_REQUEST, text)
        elif request.id in self._exchanges:
            text = f"request {request.id} is in flight already"
            self._fail(request.id, ErrorCode.BAD_REQUEST, text)
        elif len(self._exchanges) >= self._most:
            self._fail(request.id, ErrorCode.BUSY, f"{self._most} requests are in flight already")
        else:
            exchange = self._exchanges[request.id] = Exchange(self, request)
            self.served += 1
            exchange.task = self._actor.spawn_task(
                self._serve(exchange, operation), f"{TASK_NAME}{request.id}"
            )

    async def _serve(self, exchange: Exchange, operation: Operation) -> None:
        try:
            async with asyncio.timeout(operation.deadline):
                result = await operation.handler(exchange)
                await self.room()
        except ControlFailed as error:
            code, text = error.code, error.message
        except AdminError as error:
            code, text = error.word, str(error)
        except TimeoutError:
            code, text = ErrorCode.TIMEOUT, f"not done within {operation.deadline} s"
        else:
            line = encode_finished(exchange.id, result)
            if len(line) <= MAX_LINE_BYTES:
                self._exchanges.pop(exchange.id, None)
                self.send(line)
                self._end_if_idle()
                return
            code, text = ErrorCode.TOO_LARGE, f"the result has {len(line)} bytes"
        self._exchanges.pop(exchange.id, None)
        self._fail(exchange.id, code, text)
        self._end_if_idle()

    def _steer(self, request: Request) -> None:
        args = Arguments(request.args)
        target = args.integer("request", least=1, most=2**53)
        exchange = self._exchanges.get(target)
        if request.op == "credit":
            parts = args.integer("parts", least=1, most=MAX_WINDOW)
            args.finish()
            if exchange is not None:
                exchange.grant(parts)
            return
        args.finish()
        if exchange is not None:
            self._cancel(exchange)
            self.send(encode_finished(target, {"cancelled": True}))
        self.send(encode_finished(request.id, {"cancelled": exchange is not None}))

    def _cancel(self, exchange: Exchange) -> None:
        del self._exchanges[exchange.id]
        if exchange.task is not None:
            exchange.task.abort()

    def _fail(self, request: int, code: ErrorCode | str, text: str) -> None:
        self.refused += 1
        self.send(encode_failed(request, code, text))

    def _ended(self, reason: str) -> None:
        """The peer sends no more: what it asked for is still answered, subscriptions end."""
        self._ending = reason
        for exchange in list(self._exchanges.values()):
            operation = self.service.operations[exchange.op]
            if operation.deadline is None or self._socket.closed:
                self._cancel(exchange)
        self._end_if_idle()

    def _end_if_idle(self) -> None:
        if self._ending and not self._exchanges:
            self._finish(self._ending)

    def _finish(self, reason: str) -> None:
        for exchange in list(self._exchanges.values()):
            self._cancel(exchange)
        self._socket.abort()
        callback, self._on_end = self._on_end, _nobody
        callback(reason)


def _nobody(_reason: str) -> None:
    """The end was reported already."""
