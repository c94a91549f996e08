"""An endpoint whose one connection has no connection id, like those of the deployed agents.

Everything that comes to its socket belongs to that connection.
"""

from __future__ import annotations

from typing import Any

from actors.transport.quic import QuicEndpoint
from actors.transport.quic.engines import EngineChoice
from actors.transport.quic.native_engine import NativeClientWithoutId
from actors.transport.quic.quic_connection import QuicConnectionHandle
from actors.transport.quic.routes import Routes


class SoleRoute(Routes):
    """Every datagram goes to the connection that was added last."""

    __slots__ = ("_sole",)

    def __init__(self) -> None:
        super().__init__()
        self._sole: QuicConnectionHandle | None = None

    def add(self, connection: QuicConnectionHandle, cid: bytes) -> None:
        super().add(connection, cid)
        self._sole = connection

    def find(self, datagram: bytes | memoryview) -> QuicConnectionHandle | None:
        return self._sole

    def one_target(self, data: bytes, size: int) -> bool:
        return True


class SoleEndpoint(QuicEndpoint):
    """For the arguments, `QuicEndpoint`; `connect` may be called once."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.engine = EngineChoice(
            "native", "a client without a connection id", NativeClientWithoutId
        )
        self._routes = SoleRoute()
