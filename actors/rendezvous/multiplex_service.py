"""A multiplexed service: one connection, a yamux stream per user. We open, the service accepts.

Source: protocol sheet rendezvous 1.3, 1.6, 2.
"""

from __future__ import annotations

import socket
from typing import Final

from actors.rendezvous.context import RendezvousContext
from actors.rendezvous.joins import End
from actors.rendezvous.service import Service, User
from actors.rendezvous.service_actor import Leave, ServiceActor, keep_alive
from actors.rendezvous.user_pair import pair
from actors.runtime import ExitReason, handles, shutdown
from actors.transport.stream import CloseReason, Stream
from actors.transport.tcp.plain_transport import PlainTransport
from actors.transport.tcp.pump.reset import close_with_reset
from actors.transport.tcp.settings import TcpSettings
from actors.transport.tcp.tls_transport import TlsTransport
from actors.transport.tcp.yamux_connection import YamuxConnection
from wire.yamux.limits import INITIAL_WINDOW

#: Bytes of users that wait for credit, for each stream.
_BACKLOG: Final = 256 * 1024


class _Due:
    """A user waited long enough."""

    __slots__ = ()


class MultiplexService(ServiceActor):
    """A multiplexed service: one connection, a yamux stream per user. Owns the session."""

    def __init__(self, door: RendezvousContext, service: Service) -> None:
        super().__init__(door, service)
        #: Users the service has not answered enough streams for, in order; when each gives up.
        self._users: dict[int, tuple[User, float]] = {}
        self._serial = 0

    def begin(self) -> None:
        """Answer, then speak yamux."""
        service, settings = self.service, self.door.settings
        end, service.end = service.end, None
        early, service.early = service.early, b""
        self.own(_Waiters(self), "waiting")
        window = max(INITIAL_WINDOW, service.options.window or settings.window)
        connection = YamuxConnection(
            TcpSettings(
                stream_window=window,
                connection_window=64 * window,
                max_streams=0,  # the service opens none
                max_backlog=max(_BACKLOG, window // 2),
                keepalive=settings.keepalive,
                ping_timeout=settings.keepalive_deadline,
                stall=settings.stall,
            ),
            client=True,
            on_ended=lambda _: None,
        )
        connection.abort_code = 0
        self._connection = self.own(connection, "session")
        connection.on_stream = self.guard("session", lambda stream: stream.abort(0))
        connection.on_closed = self.guard("session", self._closed)
        connection.on_stream_credit = self.guard("session", self._serve_waiting)
        connection.on_going_away = self.guard("session", self._going_away)
        self._attach(end, connection, early)
        connection.start()

    def _attach(self, end: End | None, connection: YamuxConnection, early: bytes) -> None:
        settings = self.door.settings
        if isinstance(end, socket.socket):
            keep_alive(end, settings.keepalive, settings.keepalive_deadline)
            if self.say(end, f"{self.service.port}\n"):
                PlainTransport(end).start(connection, early)
            else:
                close_with_reset(end)
        elif isinstance(end, TlsTransport):
            end.write(f"{self.service.port}\n".encode())
            end.start(connection)
            if early:
                connection.data_received(early)

    def describe(self) -> dict[str, object]:
        """As operators see it."""
        statistics = self._connection.statistics()
        return super().describe() | {
            "streams": statistics.streams,
            "round_trip": statistics.round_trip,
        }

    def waiting(self) -> int:
        return len(self._users)

    # Users.

    def user_came(self, user: User) -> bool:
        if self.leaving or self._connection.closed is not None:
            return self.give_up(user, "service_leaves")
        stream = None if self._users else self._connection.open_stream()
        if stream is not None:
            pair(self.door, self.service, user, stream)
            return True
        if len(self._users) >= self.door.settings.max_waiting:
            return self.give_up(user, "too_many_waiting")
        self._serial += 1
        self._users[self._serial] = user, self.now() + self.door.settings.user_wait
        self._set_timer()
        return True

    def _serve_waiting(self) -> None:
        while self._users:
            stream: Stream | None = self._connection.open_stream()
            if stream is None:
                break
            user, _ = self._users.pop(next(iter(self._users)))
            pair(self.door, self.service, user, stream)
        self._set_timer()

    def _set_timer(self) -> None:
        if self._users:
            _, until = next(iter(self._users.values()))
            self.start_timer(max(0.0, until - self.now()), _Due(), "due")
        else:
            self.cancel_timer("due")

    @handles(_Due)
    def _due(self, _: _Due) -> None:
        now = self.now()
        while self._users:
            serial, (user, until) = next(iter(self._users.items()))
            if until > now:
                break
            del self._users[serial]
            self.give_up(user, "user_wait_over")
        self._set_timer()
        self._end_if_done()

    # The end.

    def _closed(self, reason: CloseReason) -> None:
        """The session is over; its streams were told before."""
        self.door.events[f"sessions_ended_{reason.kind}"] += 1
        self.stop(shutdown(f"session {reason}"))

    def _going_away(self) -> None:
        """The service drains: whoever comes is told so, whoever is here is served."""
        self.leave("the service went away", keep_port=True)

    def left(self) -> None:
        self.release()
        self._set_timer()

    @handles(Leave)
    def _leave(self, _: Leave) -> None:
        """Drain: the service opens nothing at us anyway, and learns that it is to go elsewhere."""
        self._connection.go_away()
        self.leave("drained")

    def terminate(self, reason: ExitReason) -> None:
        """Say goodbye: what was sent still arrives."""
        if reason.kind.value == "shutdown" and self._connection.closed is None:
            self._connection.close(0)

    def release(self) -> None:
        """Whoever waits sees an error."""
        users, self._users = self._users, {}
        for user, _ in users.values():
            user.abort()


class _Waiters:
    """Waiting users as one resource."""

    __slots__ = ("_service",)

    def __init__(self, service: MultiplexService) -> None:
        self._service = service

    def abort(self) -> None:
        self._service.release()
