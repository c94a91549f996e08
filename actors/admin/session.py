"""One connection of the control protocol on its server's side: a socket, and a task per request.

What is said on it is `wire.admin.server`. Every request runs as a task owned by the connection's
actor, under its operation's deadline. A task that fails answers `internal` and is logged; the
connection lives on. Bounds: `in_flight` requests; what an operation keeps for a slow reader is
bounded by the operation (a request waits for room before each part, a subscription drops and
counts).

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
from wire.admin.errors import AdminError, ErrorCode
from wire.admin.limits import MAX_IN_FLIGHT
from wire.admin.messages import Greeting, Request, Row
from wire.admin.server import Asked, Broken, Granted, ServerSession, Withdrawn

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
        wire = self._session.wire
        for line in wire.parts(self.id, rows):
            while not wire.may_send(self.id):
                self._granted = asyncio.get_running_loop().create_future()
                try:
                    await self._granted
                finally:
                    self._granted = None
            await self._session.room()
            wire.part(self.id, line)
            self._session.flush()
            await asyncio.sleep(0)

    def grant(self) -> None:
        """The peer allows more parts."""
        if self._granted is not None and not self._granted.done():
            self._granted.set_result(None)


class ControlSession:
    """The connection of one client.

    Args:
        actor: the connection's actor. Its `on_resource_failed` must ask `request_failed`.
        sock: the connected socket; taken over.
        on_end: called once when the connection is over, with the reason; not after the actor's
            own end.

    Attributes:
        wire: what was asked for and is answered.
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
        self.wire = ServerSession(service.greeting(), service.operations, in_flight=in_flight)
        self._exchanges: dict[int, Exchange] = {}  # bound: `in_flight`
        self._ending = ""
        self._socket = AdminSocket(actor, sock, on_data=self._received, on_end=self._ended)
        self.flush()

    def flush(self) -> None:
        """Write what there is to say."""
        data = self.wire.data_to_send()
        if data:
            self._socket.write(data)

    async def room(self) -> None:
        """Wait until the peer took most of what was written."""
        await self._socket.room()

    def request_failed(self, kind: str, error: Exception) -> bool:
        """A request's task failed unexpectedly: answer it. False when `kind` is another's."""
        name = kind.removeprefix("task " + TASK_NAME)
        exchange = self._exchanges.get(int(name)) if name.isdecimal() else None
        if exchange is None:
            return False
        self._actor.log.opt(exception=error).error("control request {!r} failed", exchange.op)
        text = f"{exchange.op}: internal error, see the log"
        self._fail(exchange, ErrorCode.INTERNAL, text)
        return True

    # Inside.

    def _received(self, data: bytes) -> None:
        for event in self.wire.receive(data):
            if isinstance(event, Asked):
                self._begin(event.request)
            elif isinstance(event, Withdrawn):
                self._cancel(event.id)
            elif isinstance(event, Granted):
                self._exchanges[event.id].grant()
            elif isinstance(event, Broken):
                self.flush()
                self._finish(event.reason)
                return
        self.flush()

    def _begin(self, request: Request) -> None:
        exchange = self._exchanges[request.id] = Exchange(self, request)
        operation = self.service.operations[request.op]
        exchange.task = self._actor.spawn_task(
            self._serve(exchange, operation), f"{TASK_NAME}{request.id}"
        )

    async def _serve(self, exchange: Exchange, operation: Operation) -> None:
        try:
            async with asyncio.timeout(operation.deadline):
                result = await operation.handler(exchange)
                await self.room()
        except ControlFailed as error:
            self._fail(exchange, error.code, error.message)
        except AdminError as error:
            self._fail(exchange, error.word, str(error))
        except TimeoutError:
            text = f"not done within {operation.deadline} s"
            self._fail(exchange, ErrorCode.TIMEOUT, text)
        else:
            self.wire.finish(exchange.id, result)
            self._over(exchange)

    def _fail(self, exchange: Exchange, code: ErrorCode | str, text: str) -> None:
        self.wire.fail(exchange.id, code, text)
        self._over(exchange)

    def _over(self, exchange: Exchange) -> None:
        self._exchanges.pop(exchange.id, None)
        self.flush()
        self._end_if_idle()

    def _cancel(self, request: int) -> None:
        exchange = self._exchanges.pop(request)
        if exchange.task is not None:
            exchange.task.abort()

    def _ended(self, reason: str) -> None:
        """The peer sends no more: what it asked for is still answered, subscriptions end."""
        self._ending = reason
        for exchange in list(self._exchanges.values()):
            operation = self.service.operations[exchange.op]
            if operation.deadline is None or self._socket.closed:
                self.wire.drop(exchange.id)
                self._cancel(exchange.id)
        self._end_if_idle()

    def _end_if_idle(self) -> None:
        if self._ending and not self._exchanges:
            self._finish(self._ending)

    def _finish(self, reason: str) -> None:
        for request in list(self._exchanges):
            self.wire.drop(request)
            self._cancel(request)
        self._socket.abort()
        callback, self._on_end = self._on_end, _nobody
        callback(reason)


def _nobody(_reason: str) -> None:
    """The end was reported already."""
