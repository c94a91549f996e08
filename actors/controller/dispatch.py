"""The frame around every RPC of the served controller: who may, how long, and what went wrong.

The role of a caller is looked at before anything it sent: a request is bytes until then. A handler
is a plain coroutine; what it refuses it raises as `Refused`. Failures of the store become
the status that tells a caller whether to try again (R29). Anything else is a bug: the caller gets
INTERNAL, and the server actor fails.

Source: protocol sheet ORP 4.1; 6.2 R28, R29.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import grpc
import grpc.aio
from google.protobuf.message import DecodeError, Message

from actors.control.backend import BackendError, DuplicateRule
from actors.control.remote.codec import METHODS, WATCHING, Method
from actors.controller.authority import ANYBODY, Caller, caller_of
from actors.controller.callers import Callers
from actors.controller.complaints import Complaints
from actors.controller.grpc_server import peer_identity
from actors.controller.limits import CALL_SECONDS, WATCH_WRITE_SECONDS
from actors.controller.request_checks import Refused
from actors.controller.watches import WatchEnded
from actors.transport.quota import Ticket
from actors.transport.revocation import Revocations

M = TypeVar("M", bound=Message)


@dataclass(frozen=True, slots=True)
class Call:
    """One RPC: who calls, with which metadata, and the metadata to end the answer with.

    Attributes:
        key: what its caller is called by `Callers`.
        place: of the RPCs its caller may have under way.
        marks: of its certificate, as revocation lists name it.
    """

    caller: Caller
    metadata: Mapping[str, str]
    trailing: dict[str, str]
    key: str
    place: Ticket
    marks: tuple[bytes, ...]

    def speak_for(self, relay_id: str) -> None:
        """Raise `Refused` unless the caller may act as this relay."""
        if not self.caller.speaks_for(relay_id):
            text = f"{self.caller.name} may not act as relay {relay_id!r}"
            raise Refused(grpc.StatusCode.PERMISSION_DENIED, text)


Unary = Callable[[Call, Any], Awaitable[Message]]


class Writer:
    """Where the messages of a streamed answer go."""

    __slots__ = ("_context",)

    def __init__(self, context: Any) -> None:  # the library ships no types
        self._context = context

    async def begin(self) -> None:
        """Say that nothing is missed from here on."""
        await self._context.send_initial_metadata(((WATCHING, "1"),))

    async def send(self, message: Message) -> None:
        """Send one message. Raises `WatchEnded` when the reader takes too long."""
        try:
            async with asyncio.timeout(WATCH_WRITE_SECONDS):
                await self._context.write(message)
        except TimeoutError:
            raise WatchEnded("reader too slow", dropped=True) from None


Streamed = Callable[[Call, Any, Writer], Awaitable[None]]


class Dispatcher:
    """The frame around every RPC of the served controller: who may, how long, and what went wrong.

    Args:
        failed: told of a bug, as `guard` tells it.
        tls: False makes every caller `ANYBODY`.
        operators: identities with the role operator.
        warn: logs a line; called a few times a minute at most (`Complaints`).
        revocations: callers whose certificates were taken back.
        proved: told the connection of each call that its caller may make, as gRPC names it.
    """

    def __init__(
        self,
        *,
        failed: Callable[[Exception], object],
        tls: bool,
        operators: Collection[str],
        warn: Callable[[str], object],
        proved: Callable[[str], object],
        revocations: Revocations,
    ) -> None:
        self._proved = proved
        self._revocations = revocations
        self._failed = failed
        self._tls = tls
        self._operators = frozenset(operators)
        self._complaints = Complaints(warn)
        self.callers = Callers()
        self.served: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.malformed = 0

    def services(
        self, unary: Mapping[str, Unary], streamed: Mapping[str, Streamed]
    ) -> dict[str, dict[str, Any]]:
        """Handlers by method, by full service name; `unary` and `streamed` by `service/method`."""
        table: dict[str, dict[str, Any]] = {}
        for short, method in METHODS.items():
            _, service, name = method.path.split("/")
            if method.streams:
                make = grpc.unary_stream_rpc_method_handler
                behaviour = self._stream_frame(method, streamed[short])
            else:
                make = grpc.unary_unary_rpc_method_handler
                behaviour = self._unary_frame(method, unary[short])
            table.setdefault(service, {})[name] = make(
                behaviour,
                request_deserializer=None,  # after the role
                response_serializer=_serialize,
            )
        return table

    def _unary_frame(self, method: Method, handler: Unary) -> Any:
        async def frame(data: bytes, context: Any) -> Message:
            problem: Refused
            place = None
            try:
                call = self._call(method, context)
                place = call.place
                async with asyncio.timeout(CALL_SECONDS):
                    await self.callers.turn(call.key)
                    answer = await handler(call, self._request(method, data, call))
            except Exception as error:  # noqa: BLE001  # a pump entry: see `_problem`
                problem = self._problem(error)
            else:
                self.served[method.short] += 1
                if call.trailing:
                    context.set_trailing_metadata(tuple(call.trailing.items()))
                return answer
            finally:
                if place is not None:
                    place.abort()
            self.refused[problem.code.name] += 1
            await context.abort(problem.code, str(problem))
            raise problem  # not reached: abort raises

        return frame

    def _stream_frame(self, method: Method, handler: Streamed) -> Any:
        async def frame(data: bytes, context: Any) -> None:
            problem: Refused | None = None
            place = None
            try:
                call = self._call(method, context)
                place = call.place
                await self.callers.turn(call.key)
                async with self._unless_revoked(call):
                    await handler(call, self._request(method, data, call), Writer(context))
            except Exception as error:  # noqa: BLE001  # a pump entry: see `_problem`
                problem = self._problem(error)
            finally:
                if place is not None:
                    place.abort()
            if problem is None:
                self.served[method.short] += 1
                return
            self.refused[problem.code.name] += 1
            await context.abort(problem.code, str(problem))

        return frame

    @asynccontextmanager
    async def _unless_revoked(self, call: Call) -> AsyncIterator[None]:
        """An answer that may take for ever ends when its caller's certificate is taken back."""
        limit = asyncio.timeout(None)
        try:
            async with limit:
                watch = self._revocations.watch(call.marks, lambda: limit.reschedule(0.0))
                try:
                    yield
                finally:
                    watch.abort()
        except TimeoutError:
            if not limit.expired():
                raise
            text = f"the certificate of {call.caller.name} was revoked"
            raise Refused(grpc.StatusCode.UNAUTHENTICATED, text) from None

    def _call(self, method: Method, context: Any) -> Call:
        caller = ANYBODY
        marks: tuple[bytes, ...] = ()
        if self._tls:
            identity, marks = peer_identity(context.auth_context())
            caller = caller_of(identity, self._operators)
            if self._revocations.revoked(marks):
                text = f"the certificate of {caller.name} was revoked"
                self._complaints.say(text)
                raise Refused(grpc.StatusCode.UNAUTHENTICATED, text)
        if not caller.may(method.short):
            text = f"{caller.name} may not call {method.short}"
            self._complaints.say(text)
            raise Refused(grpc.StatusCode.PERMISSION_DENIED, text)
        connection = str(context.peer())
        self._proved(connection)
        pairs = context.invocation_metadata() or ()
        metadata = {key: value for key, value in pairs if isinstance(value, str)}
        key = caller.name if self._tls else connection
        try:
            place = self.callers.place(key)
        except Refused as refused:
            self._complaints.say(f"{caller.name}: {refused}")
            raise
        return Call(caller, metadata, {}, key, place, marks)

    def _request(self, method: Method, data: bytes, call: Call) -> Message:
        """The message; `Refused` when it is none, as callers of the reference hear it."""
        try:
            request: Message = method.request.FromString(data)
        except DecodeError:
            self.malformed += 1
            self._complaints.say(f"{call.caller.name} calls {method.short} with what is no message")
            text = f"not a {method.request.DESCRIPTOR.full_name}"
            raise Refused(grpc.StatusCode.INTERNAL, text) from None
        return request

    def _problem(self, error: Exception) -> Refused:
        """The status for what a handler raised; a bug is reported."""
        if isinstance(error, Refused):
            return error
        if isinstance(error, DuplicateRule):
            return Refused(grpc.StatusCode.ALREADY_EXISTS, str(error))
        if isinstance(error, BackendError):
            return Refused(grpc.StatusCode.UNAVAILABLE, f"the store: {error}")
        if isinstance(error, WatchEnded):
            code = grpc.StatusCode.ABORTED if error.dropped else grpc.StatusCode.UNAVAILABLE
            return Refused(code, str(error))
        if isinstance(error, TimeoutError):
            return Refused(grpc.StatusCode.DEADLINE_EXCEEDED, "not done in time")
        if isinstance(error, grpc.aio.UsageError | grpc.aio.BaseError | asyncio.InvalidStateError):
            # The caller is gone, and with it the RPC.
            return Refused(grpc.StatusCode.CANCELLED, "the caller is gone")
        self._failed(error)
        return Refused(grpc.StatusCode.INTERNAL, type(error).__name__)


def _serialize(message: Message) -> bytes:
    return message.SerializeToString()
