"""One TCP connection: TLS below, a yamux session on it, streams above.

What arrives is parsed and delivered in the callback that received it. What is to be sent is taken
from the session once per loop iteration, as much as the write buffer has room for: the streams wait
in the session, where they take turns, and not in the buffer.

A code of ours travels in a GO_AWAY with a number that any yamux peer takes for the end.

Source: protocol sheet ORP 3.13, 6.4 T3, T4; rendezvous 2.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Final

from actors.transport.connection import Connection, ConnectionStatistics
from actors.transport.stream import CloseReason
from actors.transport.tcp.plain_transport import PlainTransport
from actors.transport.tcp.settings import TcpSettings
from actors.transport.tcp.yamux_stream import YamuxStream
from wire.yamux.events import (
    DataReceived,
    DataSent,
    Event,
    FinReceived,
    Openable,
    PeerGoingAway,
    SessionDead,
    StreamFinished,
    StreamOpened,
    StreamReset,
)
from wire.yamux.limits import INITIAL_WINDOW, Limits
from wire.yamux.session import Session
from wire.yamux.unread_budget import UnreadBudget

#: GO_AWAY codes from here on carry an application code in their lower 16 bits ("OR").
CODE_BASE: Final = 0x4F52_0000
#: Connection windows of unread bytes before credit is withheld, and before streams are reset: yamux
#: cannot withhold what QUIC can.
WINDOWS_WITH_CREDIT: Final = 2
WINDOWS_HELD: Final = 8


def _nothing() -> None:
    """Nobody wants to know."""


class YamuxConnection(Connection, asyncio.Protocol):
    """A connection over TCP and TLS, whose streams are yamux's; owned by whoever got it from the
    endpoint's `on_connection`.

    Args:
        on_ended: tells the endpoint that the connection is over.
        unread: shared with other connections.
    """

    transport = "tcp"

    def __init__(
        self,
        settings: TcpSettings,
        *,
        client: bool,
        on_ended: Callable[[YamuxConnection], object],
        unread: UnreadBudget | None = None,
    ) -> None:
        super().__init__()
        self.settings = settings
        self._loop = asyncio.get_running_loop()
        self.session = Session(
            client=client,
            now=self._loop.time(),
            limits=Limits(
                window=max(INITIAL_WINDOW, settings.stream_window),
                credit_until=WINDOWS_WITH_CREDIT * settings.connection_window,
                max_unconsumed=WINDOWS_HELD * settings.connection_window,
                max_inbound=settings.max_streams,
                keepalive=settings.keepalive,
                ping_timeout=settings.ping_timeout,
                stall=settings.stall,
            ),
            budget=unread or UnreadBudget(settings.unread),
            on_relief=self.schedule_transmit,
        )
        self._on_ended = on_ended
        #: The peer takes no new streams any more; those that are open go on.
        self.on_going_away: Callable[[], object] = _nothing
        self._transport: asyncio.Transport | None = None
        self._streams: dict[int, YamuxStream] = {}
        self._running = False
        self._closed: CloseReason | None = None
        self._reported = False
        self._flush_scheduled = False
        self._blocked: asyncio.TimerHandle | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._remote = ("", 0)
        self._reads = self._writes = 0
        self._bytes_in = self._bytes_out = 0

    # The transport.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """TLS is established; the peer is not verified yet."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        buffer = self.settings.write_buffer
        # Where writing is not paused there is room for a frame: none is cut to fit.
        high = buffer - min(buffer // 2, self.session.limits.max_frame)
        transport.set_write_buffer_limits(high=high, low=high // 2)
        name = transport.get_extra_info("peername") or ("", 0)
        self._remote = (str(name[0]).removeprefix("::ffff:"), int(name[1]))
        sock = transport.get_extra_info("socket")
        if sock is not None:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self.set_timer()

    def data_received(self, data: bytes) -> None:
        """Parse, deliver, and send what the session answers."""
        if self._closed is not None:
            return
        self._reads += 1
        self._bytes_in += len(data)
        self._receive(data)
        if self.session.more and self._transport is not None:
            self._transport.pause_reading()
            self._loop.call_soon(self._go_on)

    def _receive(self, data: bytes) -> None:
        self._deliver(self.session.receive(data, self._loop.time()))
        self.schedule_transmit()
        if not self._flush_scheduled:
            self.set_timer()  # for what is not to be sent yet

    def _go_on(self) -> None:
        """Others had their turn: look at what is left of the last read."""
        transport = self._transport
        if self._closed is not None or transport is None:
            return
        self._receive(b"")
        if self.session.more:
            self._loop.call_soon(self._go_on)
        else:
            transport.resume_reading()

    def eof_received(self) -> None:
        """TLS ended; nothing can be sent any more either."""

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        self._transport = None
        while self._closed is None and self.session.more:
            self._deliver(self.session.receive(b"", self._loop.time()))
        self._unblock()
        if exc is None:
            self._end(CloseReason("peer", text="connection closed"))
        else:
            self._end(CloseReason("transport", text=type(exc).__name__))

    def pause_writing(self) -> None:
        """The peer's kernel takes nothing: wait, but not for ever."""
        if self._blocked is None:
            self._blocked = self._loop.call_later(self.settings.write_timeout, self._stuck)

    def resume_writing(self) -> None:
        """There is room again."""
        self._unblock()
        self._flush()

    def _unblock(self) -> None:
        if self._blocked is not None:
            self._blocked.cancel()
            self._blocked = None

    def _stuck(self) -> None:
        self._blocked = None
        self._fail(CloseReason("idle", text="the peer reads nothing"))

    # The connection.

    @property
    def remote_address(self) -> tuple[str, int]:
        return self._remote

    @property
    def closed(self) -> CloseReason | None:
        return self._closed

    def now(self) -> float:
        """The session's clock."""
        return self._loop.time()

    def start(self) -> None:
        """Hand over what was held."""
        self._running = True
        for stream in list(self._streams.values()):
            self._hand_over(stream)
        if self._closed is not None and not self._reported:
            self._reported = True
            self.on_closed(self._closed)
            self._forget_callbacks()

    def open_stream(self) -> YamuxStream | None:
        stream_id = None if self._closed is not None else self.session.open()
        if stream_id is None:
            return None
        stream = self._streams[stream_id] = YamuxStream(self, stream_id)
        self.schedule_transmit()
        return stream

    def go_away(self) -> None:
        """GO_AWAY 0: the peer opens no new streams; those that are open go on."""
        self.session.go_away()
        self.schedule_transmit()

    def _forget_callbacks(self) -> None:
        super()._forget_callbacks()
        self.on_going_away = _nothing

    def close(self, code: int, reason: str = "") -> None:
        """See `Connection`; the reason text has no place in yamux."""
        if self._closed is None:
            self._say_goodbye(code)
            self._end(CloseReason("local", code, True, reason))

    def _revoked(self) -> None:
        self.close(self.abort_code, "certificate revoked")

    def abort(self) -> None:
        self._forget_callbacks()
        self._reported = True
        if self._closed is None:
            self._say_goodbye(self.abort_code)
            self._end(CloseReason("aborted"))

    def _say_goodbye(self, code: int) -> None:
        """A last GO_AWAY, unless the peer does not read."""
        self.session.close(CODE_BASE | (code & 0xFFFF))
        transport = self._transport
        if transport is None:
            return
        if self._blocked is not None:
            transport.abort()
            return
        self._write(transport)
        transport.close()

    def statistics(self) -> ConnectionStatistics:
        """See `Connection`; reads and writes stand for datagrams."""
        waiting = 0 if self._transport is None else self._transport.get_write_buffer_size()
        return ConnectionStatistics(
            self._reads,
            self._writes,
            self._bytes_in,
            self._bytes_out,
            len(self._streams),
            self.session.round_trip,
            0,
            waiting,
            -1,
        )

    # Delivery.

    def _deliver(self, events: list[Event]) -> None:
        streams = self._streams
        for event in events:
            kind = type(event)
            if self._closed is not None:
                return  # by who was told of the events before
            if kind is DataReceived:
                stream = streams.get(event.stream_id)  # type: ignore[union-attr]
                if stream is not None:
                    stream.data_received(event.data, end=False)  # type: ignore[union-attr]
            elif kind is DataSent:
                stream = streams.get(event.stream_id)  # type: ignore[union-attr]
                if stream is not None:
                    stream.on_drain(event.count)  # type: ignore[union-attr]
            elif isinstance(event, StreamOpened):
                stream = YamuxStream(self, event.stream_id, inbound=True)
                streams[event.stream_id] = stream
                if self._running:
                    self._hand_over(stream)
            elif isinstance(event, FinReceived):
                if event.stream_id in streams:
                    streams[event.stream_id].take_end()
            elif isinstance(event, StreamReset):
                stream = streams.pop(event.stream_id, None)
                if stream is not None:
                    stream.take_rst(event.code)
            elif isinstance(event, StreamFinished):
                stream = streams.pop(event.stream_id, None)
                if stream is not None:
                    stream.take_finished()
            elif isinstance(event, Openable):
                if self._running:
                    self.on_stream_credit()
            elif isinstance(event, PeerGoingAway):
                self.on_going_away()
            elif isinstance(event, SessionDead):
                self._dead(event)

    def _hand_over(self, stream: YamuxStream) -> None:
        if stream.inbound:
            self.session.accept(stream.stream_id)
            self.schedule_transmit()
            self.on_stream(stream)

    def settled(self, stream: YamuxStream) -> None:
        """It was reset by us: nothing follows."""
        if self._streams.get(stream.stream_id) is stream:
            del self._streams[stream.stream_id]
            self._loop.call_soon(stream.take_finished)

    def _dead(self, event: SessionDead) -> None:
        if event.error is not None:
            self._fail(CloseReason("transport", event.error.code, text=event.error.label))
        elif event.code & 0xFFFF_0000 == CODE_BASE:
            self._fail(CloseReason("peer", event.code & 0xFFFF, application=True))
        else:
            self._fail(CloseReason("peer", event.code, text="go away"))

    def _fail(self, reason: CloseReason) -> None:
        """The session is over, and with it the connection."""
        transport = self._transport
        if transport is not None:
            if self._blocked is None:
                self._write(transport)
                transport.close()
            else:
                transport.abort()
        self._end(reason)

    def _end(self, reason: CloseReason) -> None:
        if self._closed is not None:
            return
        self._closed = reason
        self._unwatch()
        self.session.abandon()
        self.welcome()  # or gone: the place is free
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        streams, self._streams = list(self._streams.values()), {}
        for stream in streams:
            stream.take_lost(reason)
        if self._running and not self._reported:
            self._reported = True
            self.on_closed(reason)
            self._forget_callbacks()
        self._on_ended(self)

    # Sending.

    def schedule_transmit(self) -> None:
        """Something may be to be sent: at the end of this loop iteration."""
        if not self._flush_scheduled and self._closed is None and self.session.wants_to_send:
            self._flush_scheduled = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_scheduled = False
        transport = self._transport
        while (
            transport is not None
            and self._closed is None
            and self._blocked is None
            and self.session.wants_to_send
        ):
            self._deliver(self._write(transport))
        if self._closed is None:
            self.set_timer()

    def _write(self, transport: asyncio.Transport) -> list[Event]:
        room = self.settings.write_buffer - transport.get_write_buffer_size()
        buffers, events = self.session.data_to_send(max(room, 0), self._loop.time())
        if buffers:
            self._writes += 1
            if isinstance(transport, PlainTransport):
                self._bytes_out += sum(map(len, buffers))
                transport.writelines(buffers)
            else:
                # One piece, so that headers do not become TLS records of their own.
                data = b"".join(buffers)
                self._bytes_out += len(data)
                transport.write(data)
        return events

    # The timer.

    def set_timer(self) -> None:
        """The session's clock may have changed: one timer, which looks again if it is early."""
        when = self.session.next_timer()
        if when is None or self._closed is not None:
            return
        if self._timer is not None:
            if self._timer.when() <= when:
                return
            self._timer.cancel()
        self._timer = self._loop.call_at(when, self._due)

    def _due(self) -> None:
        self._timer = None
        when, now = self.session.next_timer(), self._loop.time()
        if when is not None and when <= now:
            self._deliver(self.session.handle_timer(now))
            self.schedule_transmit()
        self.set_timer()
