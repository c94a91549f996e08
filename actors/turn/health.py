"""What supervisors of containers ask a Firezone relay: /healthz and /readyz.

/healthz is 200 as long as the process answers; /readyz is 200 only while the portal lists us.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from actors.runtime import Actor, naming
from actors.transport.gate import HEARD
from actors.transport.tcp.acceptor import AcceptLimits, listen_tcp
from actors.transport.tcp.protocol_listener import ProtocolListener

LIMITS: Final = AcceptLimits(64, 16, deadline=5.0, yields=HEARD)
MAX_REQUEST: Final = 4096


class _Request(asyncio.Protocol):
    """One connection, one request."""

    def __init__(self, ready: Callable[[], bool]) -> None:
        self._ready = ready
        self._held = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It begins."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """A request, in pieces perhaps."""
        self._held += data
        transport = self._transport
        if transport is None or (b"\r\n\r\n" not in self._held and len(self._held) < MAX_REQUEST):
            return
        line = self._held.split(b"\r\n", 1)[0].split(b" ")
        path = line[1].partition(b"?")[0] if len(line) == 3 and line[0] == b"GET" else b""
        if path == b"/healthz":
            status = "200 OK"
        elif path == b"/readyz":
            status = "200 OK" if self._ready() else "503 Service Unavailable"
        else:
            status = "404 Not Found"
        head = f"HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
        transport.write(head.encode())
        transport.close()


class HealthServer(Actor):
    """Answers /healthz and /readyz over HTTP.

    Args:
        address: where; port 0 is a free one.
        ready: the portal lists us.
        bound: gets the port.
    """

    def __init__(
        self, address: tuple[str, int], ready: Callable[[], bool], bound: list[int]
    ) -> None:
        self._host, self._port = address
        self._ready = ready
        self._bound = bound

    def init(self) -> None:
        """Listen."""
        listener = self.own(
            ProtocolListener(
                lambda: _Request(self._ready), LIMITS, name="health", lifetime=10.0,
                log=self.log.warning,
            ),
            "listener",
        )  # fmt: skip
        with naming("HEALTH_CHECK_ADDR"):
            sock = listen_tcp(self._host, self._bound[0] if self._bound else self._port)
        listener.attach(sock, self.guard)
        self._bound[:] = [int(sock.getsockname()[1])]
