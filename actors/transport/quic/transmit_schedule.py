"""When the connections of an endpoint deliver and transmit: after a wake-up, and at deadlines."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING

from actors.transport.quic.connection_timers import ConnectionTimers

if TYPE_CHECKING:
    from actors.transport.quic.endpoint_sockets import EndpointSockets
    from actors.transport.quic.quic_connection import QuicConnectionHandle

#: Rounds of transmission per flush: deliveries of one may give others something to send.
FLUSH_ROUNDS = 4


class TransmitSchedule:
    """The connections that something happened to, and the deadlines of all.

    Args:
        sockets: send what connections have to say.
        broken: called in an `except` with a connection whose engine or callback failed.
        done: called with a connection that says nothing any more.
        counters: where handshakes are counted that took too long.
    """

    def __init__(
        self,
        sockets: EndpointSockets,
        broken: Callable[[QuicConnectionHandle], None],
        done: Callable[[QuicConnectionHandle], None],
        counters: Counter[str],
    ) -> None:
        self._sockets = sockets
        self._broken = broken
        self._done = done
        self._counters = counters
        self._loop: asyncio.AbstractEventLoop | None = None
        self._touched: dict[QuicConnectionHandle, None] = {}
        self._scheduled = False
        self._timers = ConnectionTimers(self._due, self.flush)

    def start(self) -> None:
        """The running loop is the one that flushes; before this nothing is sent."""
        self._loop = asyncio.get_running_loop()

    def mark(self, connection: QuicConnectionHandle) -> None:
        """Something happened to it, within a wake-up that ends with `flush`."""
        self._touched[connection] = None

    def schedule(self, connection: QuicConnectionHandle) -> None:
        """It has something to send: transmit at the end of this loop iteration."""
        self._touched[connection] = None
        if not self._scheduled and self._loop is not None:
            self._scheduled = True
            self._loop.call_soon(self.flush)

    def transmit_now(self, connection: QuicConnectionHandle) -> None:
        """Transmit for one connection at once: its last words."""
        if self._loop is not None:
            self._transmit(connection, time.monotonic())

    def forget(self, connection: QuicConnectionHandle) -> None:
        """Never look at it again."""
        self._timers.forget(connection)
        self._touched.pop(connection, None)

    def abort(self) -> None:
        """Forget every deadline."""
        self._timers.abort()

    def flush(self) -> None:
        """Deliver and transmit for every connection that something happened to."""
        self._scheduled = False
        now = time.monotonic()
        for _ in range(FLUSH_ROUNDS):
            if not self._touched:
                return
            touched, self._touched = self._touched, {}
            for connection in touched:
                self._deliver(connection)
            for connection in touched:
                self._transmit(connection, now)
        for connection in list(self._touched):
            self.schedule(connection)

    def _deliver(self, connection: QuicConnectionHandle) -> None:
        try:
            connection.process_events()
        except Exception:  # noqa: BLE001  # an unguarded callback ends its connection only
            self._broken(connection)

    def _transmit(self, connection: QuicConnectionHandle, now: float) -> None:
        try:
            datagrams = connection.transmit(now)
        except Exception:  # noqa: BLE001  # an engine fault ends its connection only
            self._broken(connection)
            self._done(connection)
            return
        if datagrams:
            connection.datagrams_out += len(datagrams)
            connection.octets_out += self._sockets.send(datagrams, connection.asked)
        self._deliver(connection)
        if connection.engine.terminated:
            self._done(connection)
        else:
            self._timers.set(connection, connection.next_look(), now)

    def _due(self, connection: QuicConnectionHandle, now: float) -> None:
        if connection.handshake_overdue(now):
            self._counters["handshake_timeout"] += 1
            connection.abort()
        try:
            connection.handle_timer(now)
        except Exception:  # noqa: BLE001  # an engine fault ends its connection only
            self._broken(connection)
        self._touched[connection] = None
