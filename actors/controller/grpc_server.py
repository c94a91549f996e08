"""The gRPC server: one resource, stopped by `abort()`, its port kept over restarts of its owner.

Knows nothing of what is served. What comes over the network passes `front` first. gRPC runs
handlers in tasks of its own; they end with the server: `abort()` begins that at once, the last
steps follow in the loop within milliseconds. The next incarnation of the owner waits for them
(`Port.free`) before it listens.

Source: https://grpc.github.io/grpc/python/grpc_asyncio.html; protocol sheet ORP 4; 6.2 R28, R29.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from cryptography import x509
from loguru import logger

from actors.control.limits import MAX_CONTROLLER_MESSAGE
from actors.controller.front import Front
from actors.controller.limits import (
    HANDSHAKE_SECONDS,
    KEEPALIVE_SECONDS,
    KEEPALIVE_TIMEOUT_SECONDS,
    MAX_CONNECTIONS,
    MAX_REQUEST,
    MAX_RPCS,
    MAX_RPCS_PER_CONNECTION,
    MIN_PING_SECONDS,
)
from actors.controller.port import Port
from actors.runtime import Guard
from actors.transport.revocation import marks_of
from actors.transport.tls import first_uri


def _anything(_certificate: Path, _key: Path, _ca: Path) -> None:
    """The default check."""


@dataclass(frozen=True, slots=True)
class ServerTls:
    """PEM files: this side's chain and key, and the authorities callers must chain to.

    Attributes:
        check: called with the three before they are used; what it raises is why they are not.
    """

    certificate: Path
    key: Path
    ca: Path
    check: Callable[[Path, Path, Path], object] = _anything


class GrpcServer:
    """The gRPC server: one resource, stopped by `abort()`, its port kept over restarts of its
    owner. A resource.

    Args:
        port: where to listen.
        services: handlers by method, by full service name.
        tls: None for plaintext.
        guard: `Actor.guard`.
        log: writes a line about who is turned away.
    """

    def __init__(
        self,
        port: Port,
        services: Mapping[str, Mapping[str, Any]],
        tls: ServerTls | None,
        *,
        guard: Guard,
        log: Callable[[str], object],
    ) -> None:
        self.front = Front(port, guard, log)
        self._port = port
        self._tls = tls
        self._stopped = False
        self._services = services
        self._server: Any = None

    async def start(self) -> None:
        """Listen.

        Raises:
            OSError: the address is in use or not ours, or a certificate file cannot be read.
        """
        await self._port.free()
        self._port.probe()
        credentials = None if self._tls is None else _credentials(self._tls)
        # Not before: one that was never started keeps descriptors for ever.
        self._server = server = grpc.aio.server(
            options=[
                ("grpc.max_receive_message_length", MAX_REQUEST),
                ("grpc.max_send_message_length", MAX_CONTROLLER_MESSAGE),
                ("grpc.max_concurrent_streams", MAX_RPCS_PER_CONNECTION),
                ("grpc.max_allowed_incoming_connections", MAX_CONNECTIONS),
                ("grpc.server_handshake_timeout_ms", int(HANDSHAKE_SECONDS * 1000)),
                ("grpc.keepalive_time_ms", int(KEEPALIVE_SECONDS * 1000)),
                ("grpc.keepalive_timeout_ms", int(KEEPALIVE_TIMEOUT_SECONDS * 1000)),
                ("grpc.keepalive_permit_without_calls", 1),
                (
                    "grpc.http2.min_recv_ping_interval_without_data_ms",
                    int(MIN_PING_SECONDS * 1000),
                ),
            ],
            maximum_concurrent_rpcs=MAX_RPCS,
        )
        for service, handlers in self._services.items():
            server.add_generic_rpc_handlers(
                (grpc.method_handlers_generic_handler(service, dict(handlers)),)
            )
        target = self.front.target
        try:
            if credentials is None:
                server.add_insecure_port(target)
            else:
                server.add_secure_port(target, credentials)
        except RuntimeError as error:
            raise OSError(errno.EADDRINUSE, f"cannot listen on {target}: {error}") from None
        await server.start()
        self.front.start()

    async def stop(self, grace: float) -> None:
        """No new calls; wait so many seconds for those under way, then cancel them."""
        self.front.detach()
        if not self._stopped and self._server is not None:
            await self._server.stop(grace)
            self._stopped = True
        self.front.abort()

    def abort(self) -> None:
        """Stop at once; idempotent."""
        self.front.abort()
        if not self._stopped:
            self._stopped = True
            if self._server is not None:
                self._port.close(self._server)


def _credentials(tls: ServerTls) -> Any:  # the library ships no types
    """Server credentials that take renewed files with the next handshake, if they are good."""
    seen, configuration = _read(tls)
    loop = asyncio.get_running_loop()

    def fetch() -> object:
        nonlocal seen
        try:
            stamp = _stamp(tls)
            if stamp == seen:
                return None
            seen = stamp  # looked at once, good or not
            _, renewed = _read(tls)
        except Exception as error:  # noqa: BLE001  # the check may raise what it likes
            # Half written or not good: the certificate before stays until there is a better one.
            _say(loop, f"the controller keeps the certificate it has: {error}")
            return None
        return renewed

    return grpc.dynamic_ssl_server_credentials(
        configuration, fetch, require_client_authentication=True
    )


def _say(loop: asyncio.AbstractEventLoop, text: str) -> None:
    """Log a line for a thread of gRPC: a logger would give that thread a name for ever."""
    try:
        loop.call_soon_threadsafe(logger.error, "{}", text)
    except RuntimeError:
        pass  # the loop is closed: the server is gone


def _stamp(tls: ServerTls) -> tuple[int, ...]:
    return tuple(path.stat().st_mtime_ns for path in (tls.certificate, tls.key, tls.ca))


def _read(tls: ServerTls) -> tuple[tuple[int, ...], object]:
    stamp = _stamp(tls)
    tls.check(tls.certificate, tls.key, tls.ca)
    pair = (tls.key.read_bytes(), tls.certificate.read_bytes())
    return stamp, grpc.ssl_server_certificate_configuration([pair], tls.ca.read_bytes())


def peer_identity(auth_context: Mapping[str, list[bytes]]) -> tuple[str, tuple[bytes, ...]]:
    """The first URI of the caller's certificate, exactly as it is; empty when there is none.

    And how revocation lists name the certificate.
    """
    pem = auth_context.get("x509_pem_cert")
    if not pem:
        return "", ()
    try:
        certificate = x509.load_pem_x509_certificate(pem[0])
        marks = marks_of([certificate])
    except ValueError:
        return "", ()
    return first_uri(certificate) or "", marks
