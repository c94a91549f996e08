"""The gRPC channel to a controller: one resource, every call with a deadline, errors as values.

Knows nothing of what is asked. Certificates are read whenever the channel is opened, so renewed
files take effect with the next `reopen`. gRPC itself dials again, with pauses that grow to
`RECONNECT_CAP_MS`; a call made between two attempts fails at once.

A cancelled call raises `CancelledError` in whoever waits for it, also when not the waiting task
but the call was cancelled, by closing the channel. The two are told apart here.

Source: https://grpc.github.io/grpc/python/grpc_asyncio.html; protocol sheet ORP 4.1, 6.2 R28.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Any, Final, TypeVar

import grpc
import grpc.aio
from google.protobuf.message import Message

from actors.control.backend import BackendError, BackendUnavailable
from actors.control.controller_identity import ClientTls, controller_leaf
from actors.control.limits import MAX_CONTROLLER_MESSAGE
from actors.control.remote.codec import METHODS, Method

M = TypeVar("M", bound=Message)

#: Pauses between attempts to connect, milliseconds.
RECONNECT_FIRST_MS: Final = 100
RECONNECT_CAP_MS: Final = 2_000
#: Milliseconds one attempt may take, TLS included.
CONNECT_MS: Final = 3_000
#: Answers that are about the request; everything else may be better the next time.
_REFUSALS: Final = frozenset(
    {
        grpc.StatusCode.UNKNOWN,  # all that a reference controller ever says
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.ALREADY_EXISTS,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.UNAUTHENTICATED,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.OUT_OF_RANGE,
    }
)


class ControllerRefused(BackendError):
    """The controller answered with an error that asking again does not change."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(f"{code}: {text}")
        self.code = code


class MethodUnknown(BackendError):
    """The controller does not have this method."""


class ControllerChannel:
    """The gRPC channel to a controller: one resource, every call with a deadline, errors as values.
    A resource.

    Args:
        address: `host:port`.
        tls: None for plaintext.
    """

    def __init__(self, address: str, tls: ClientTls | None) -> None:
        self._address = address
        self._tls = tls
        self._channel: Any = None
        self._closed = False
        #: The certificate the controller is known by, and whether it is to be asked (again).
        self._leaf = b""
        self._to_ask = False
        self._asking = asyncio.Lock()
        self._stamp: tuple[int, ...] = ()
        self.opened = 0
        self.reopen()

    def reopen(self) -> None:
        """Drop the connection with everything on it, and begin anew.

        Raises:
            OSError: a certificate file cannot be read; the channel is closed then.
        """
        self.abort()
        self._closed = False
        self.opened += 1
        self._leaf = b""
        if self._tls is None or not self._tls.require_relay:
            self._connect()
        else:
            self._stamp = _stamp(self._tls)
            self._to_ask = True

    def _connect(self) -> None:
        options: list[tuple[str, object]] = [
            ("grpc.initial_reconnect_backoff_ms", RECONNECT_FIRST_MS),
            ("grpc.min_reconnect_backoff_ms", CONNECT_MS),
            ("grpc.max_reconnect_backoff_ms", RECONNECT_CAP_MS),
            ("grpc.max_receive_message_length", MAX_CONTROLLER_MESSAGE),
            ("grpc.max_send_message_length", MAX_CONTROLLER_MESSAGE),
            ("grpc.enable_retries", 0),
            # A subchannel of its own: `reopen` must not find the broken one in a global pool.
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.enable_http_proxy", 0),
        ]
        if self._tls is None:
            self._channel = grpc.aio.insecure_channel(self._address, options=options)
        else:
            self._stamp = _stamp(self._tls)
            credentials = grpc.ssl_channel_credentials(
                root_certificates=self._leaf or self._tls.ca.read_bytes(),
                private_key=self._tls.key.read_bytes(),
                certificate_chain=self._tls.certificate.read_bytes(),
            )
            options.append(("grpc.ssl_target_name_override", self._tls.server_name))
            self._channel = grpc.aio.secure_channel(self._address, credentials, options=options)

    def renewed(self) -> bool:
        """True when the certificate files are others than those it was opened with.

        gRPC would dial with the old ones for ever. Files that cannot be read are half written.
        """
        try:
            return self._tls is not None and (self._closed or _stamp(self._tls) != self._stamp)
        except OSError:
            return False

    def abort(self) -> None:
        """Close it; calls on it fail."""
        self._closed = True
        channel, self._channel = self._channel, None
        if channel is not None:
            self._drop(channel)

    @staticmethod
    def _drop(channel: Any) -> None:
        closing = channel.close(None)
        try:
            closing.send(None)  # without a grace it closes in its first step
        except StopIteration:
            pass
        finally:
            closing.close()

    async def call(
        self,
        name: str,
        request: Message,
        response: type[M],
        *,
        timeout: float,
        metadata: Mapping[str, str] | None = None,
    ) -> tuple[M, dict[str, str]]:
        """One unary RPC: the answer and its trailing metadata.

        Raises:
            ControllerRefused, MethodUnknown, BackendUnavailable.
        """
        method = METHODS[name]
        assert method.response is response
        multicallable = (await self._open()).unary_unary(
            method.path,
            request_serializer=_serialize,
            response_deserializer=response.FromString,
        )
        call = multicallable(request, timeout=timeout, metadata=_pairs(metadata))
        try:
            answer: M = await call
            trailing = await call.trailing_metadata()
        except grpc.aio.AioRpcError as error:
            self._lost(error)
            raise _failure(method, error) from None
        except asyncio.CancelledError:
            raise_if_cancelled()
            raise BackendUnavailable(f"{name}: the connection was given up") from None
        return answer, _texts(trailing)

    async def watch(
        self,
        name: str,
        request: Message,
        response: type[M],
        *,
        timeout: float,
        begun: Callable[[Mapping[str, str]], object] | None = None,
    ) -> AsyncGenerator[M, None]:
        """One server stream: its messages; `begun` gets the metadata it begins with.

        Close it (`aclosing`) to cancel the RPC. Raises as `call`.
        """
        method = METHODS[name]
        assert method.response is response
        multicallable = (await self._open()).unary_stream(
            method.path,
            request_serializer=_serialize,
            response_deserializer=response.FromString,
        )
        call = multicallable(request, timeout=timeout)
        try:
            first = await call.initial_metadata()
            if begun is not None and not call.done():
                begun(_texts(first))
            async for message in call:
                yield message
        except grpc.aio.AioRpcError as error:
            self._lost(error)
            raise _failure(method, error) from None
        except asyncio.CancelledError:
            raise_if_cancelled()
            raise BackendUnavailable(f"{name}: the connection was given up") from None
        finally:
            call.cancel()

    async def _open(self) -> Any:  # the library ships no types
        if self._to_ask and not self._closed and self._tls is not None:
            async with self._asking:
                if self._to_ask:
                    await self._ask_who(self._tls)
        if self._closed or self._channel is None:
            raise BackendUnavailable("the connection is closed")
        return self._channel

    async def _ask_who(self, tls: ClientTls) -> None:
        opened = self.opened
        leaf = await controller_leaf(self._address, tls)
        if self._closed or opened != self.opened:
            return
        self._to_ask = False
        if leaf == self._leaf:
            return
        self._leaf = leaf
        older, self._channel = self._channel, None
        if older is not None:
            self._drop(older)
        try:
            self._connect()
        except OSError as error:
            self._closed = True
            raise BackendUnavailable(str(error)) from None

    def _lost(self, error: Any) -> None:  # as above
        """It may come back with another certificate."""
        if error.code() is grpc.StatusCode.UNAVAILABLE and self._leaf:
            self._to_ask = True


def raise_if_cancelled() -> None:
    """While handling a `CancelledError`: raise it again when it was meant for this task."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise  # what the caller is handling


def _stamp(tls: ClientTls) -> tuple[int, ...]:
    return tuple(path.stat().st_mtime_ns for path in (tls.certificate, tls.key, tls.ca))


def _serialize(message: Message) -> bytes:
    return message.SerializeToString()


def _pairs(metadata: Mapping[str, str] | None) -> tuple[tuple[str, str], ...] | None:
    return tuple(metadata.items()) if metadata else None


def _texts(metadata: Any) -> dict[str, str]:  # the library ships no types
    return {key: value for key, value in metadata or () if isinstance(value, str)}


def _failure(method: Method, error: Any) -> BackendError:  # as above
    code = error.code()
    text = str(error.details() or "")[:300]
    if code is grpc.StatusCode.UNIMPLEMENTED:
        return MethodUnknown(f"{method.short}: {text}")
    if code in _REFUSALS:
        return ControllerRefused(code.name, f"{method.short}: {text}")
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return DeadlineMissed(f"{method.short}: no answer in time")
    kind = WatchDropped if code is grpc.StatusCode.ABORTED else BackendUnavailable
    return kind(f"{method.short}: {code.name}: {text}")


class WatchDropped(BackendUnavailable):
    """The controller ended a watch whose reader was too slow; it is fine otherwise."""


class DeadlineMissed(BackendUnavailable):
    """No answer within the deadline."""
