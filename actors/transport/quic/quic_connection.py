"""One QUIC connection: engine events in, stream callbacks out."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from actors.transport.connection import Connection, ConnectionStatistics
from actors.transport.quic.admission import plain_host
from actors.transport.quic.connection_timers import SLACK
from actors.transport.quic.ended_engine import EndedEngine
from actors.transport.quic.engine import (
    Address,
    CidIssued,
    CidRetired,
    Closed,
    Data,
    Datagrams,
    Drained,
    Engine,
    Established,
    Finished,
    Reset,
    StopSending,
    StreamCredit,
)
from actors.transport.quic.peer_check import REVOKED
from actors.transport.quic.quic_stream import QuicStreamHandle
from actors.transport.quic.receive_cost import ReceiveCost
from actors.transport.refusal_log import CRYPTO_ERROR
from actors.transport.stream import CloseReason

if TYPE_CHECKING:
    from actors.transport.quic.endpoint import QuicEndpoint
    from actors.transport.quic.settings import QuicSettings
    from actors.transport.udp import AskedAddress


def plain_address(address: Address | None) -> tuple[str, int]:
    """Host and port; IPv4-mapped IPv6 in dotted form."""
    return ("", 0) if address is None else (plain_host(address), address[1])


PROTOCOL_VIOLATION: Final = 0x0A


class QuicConnectionHandle(Connection):
    """A QUIC connection; owned by whoever got it from the endpoint's `on_connection`."""

    def __init__(
        self, endpoint: QuicEndpoint, engine: Engine, settings: QuicSettings, *, client: bool
    ) -> None:
        super().__init__()
        self.engine = engine
        self.transport = f"quic ({engine.name})"
        self.settings = settings
        self.client = client
        self.cids: set[bytes] = set()
        self.started_at = time.monotonic()
        self.last_heard = self.started_at
        self.last_ping = self.started_at
        self.timer_at = 0.0
        self.established = False
        #: The address the peer wrote to first, when this host has several: answers leave from it.
        self.asked: AskedAddress | None = None
        self.cost = ReceiveCost()
        self.datagrams_in = self.datagrams_out = 0
        self.octets_in = self.octets_out = 0
        self.on_established: Callable[[Established], None] | None = None
        self.on_failed: Callable[[CloseReason], None] | None = None
        self._endpoint = endpoint
        self._streams: dict[int, QuicStreamHandle] = {}
        #: Streams that may be done, and are looked at after the present events.
        self._looked_at: dict[int, QuicStreamHandle] = {}
        #: Streams the peer lets us have open at a time, as it said at first; 0: not looked at.
        self._stream_credit = 0
        #: DATAGRAM frames to send, and those that came before `start`; of at most as many as the
        #: settings say. Overflow: the oldest of the first go, the newest of the second.
        self._outgoing: deque[bytes] = deque()
        self._early: list[bytes] = []
        self._running = False
        self._closed: CloseReason | None = None
        self._local_reason: CloseReason | None = None
        self._reported = False

    @property
    def remote_address(self) -> tuple[str, int]:
        return plain_address(self.engine.peer_address)

    @property
    def closed(self) -> CloseReason | None:
        return self._closed

    def start(self) -> None:
        """Hand over what was held."""
        self._running = True
        for stream in list(self._streams.values()):
            if self._is_peers(stream.stream_id):
                self.on_stream(stream)
        if self._early:
            early, self._early = self._early, []
            self.on_datagrams(early)
        if self._closed is not None and not self._reported:
            self._reported = True
            self.on_closed(self._closed)
            self._forget_callbacks()

    def open_stream(self) -> QuicStreamHandle | None:
        if self._closed is not None:
            return None
        if not self._stream_credit:
            self._stream_credit = self.engine.streams_allowed
        stream_id = self.engine.open_stream()
        if stream_id is None:
            return None
        stream = self._streams[stream_id] = QuicStreamHandle(self, stream_id)
        return stream

    @property
    def largest_datagram(self) -> int:
        return self.engine.largest_datagram

    def send_datagram(self, data: bytes) -> bool:
        if self._closed is not None:
            self._endpoint.counters["drop_datagram_closed"] += 1
            return False
        if len(data) > self.engine.largest_datagram:
            self._endpoint.counters["drop_datagram_size"] += 1
            return False
        queue = self._outgoing
        if len(queue) >= self.settings.datagram_queue:
            queue.popleft()
            self._endpoint.counters["drop_datagram_queue"] += 1
        queue.append(data)
        self.schedule_transmit()
        return True

    @property
    def withheld(self) -> float:
        credit = self._stream_credit
        live = sum(not self._is_peers(stream_id) for stream_id in self._streams)
        return max(0.0, 1.0 - live / credit) if credit else 0.0

    def close(self, code: int, reason: str = "") -> None:
        if self._closed is None:
            self._local_reason = CloseReason("local", code, True, reason)
            self.engine.close(code, reason, application=True)
            self._end(self._local_reason)
            self.schedule_transmit()

    def refuse(self, alert: int, slug: str) -> None:
        """Close with a TLS alert as a transport error (RFC 9001 section 4.8)."""
        if self._closed is None:
            self.engine.close(0x100 + alert, slug, application=False)
            self._end(CloseReason("handshake", 0x100 + alert, False, slug))
            self.schedule_transmit()

    def expel(self, reason: str, code: int = PROTOCOL_VIOLATION) -> None:
        """Close with an error of the transport (RFC 9000 section 20.1)."""
        if self._closed is None:
            self._local_reason = CloseReason("local", code, False, reason)
            self.engine.close(code, reason, application=False)
            self._end(self._local_reason)
            self.schedule_transmit()

    def _revoked(self) -> None:
        self._endpoint.counters["closed_revoked"] += 1
        self.expel("certificate revoked", CRYPTO_ERROR + REVOKED)

    def abort(self) -> None:
        self._forget_callbacks()
        self._reported = True
        if self._closed is None:
            self.engine.close(self.abort_code, "", application=True)
            self._end(CloseReason("aborted"))
            # At once: the socket may be released in this very loop iteration, after us.
            self._endpoint.transmit_now(self)

    def statistics(self) -> ConnectionStatistics:
        return ConnectionStatistics(
            self.datagrams_in,
            self.datagrams_out,
            self.octets_in,
            self.octets_out,
            len(self._streams),
            self.engine.round_trip,
            *self.engine.path,
        )

    def let_go(self) -> None:
        """Nothing more is sent or received: the engine is not needed any more; idempotent."""
        engine = self.engine
        self._streams.clear()
        self._looked_at.clear()
        self._outgoing.clear()
        if not isinstance(engine, EndedEngine):
            self.engine = EndedEngine(engine)
            engine.release()

    # Called by streams.

    def schedule_transmit(self) -> None:
        """Something is to be sent."""
        self._endpoint.schedule_transmit(self)

    def reap_if_done(self, stream: QuicStreamHandle) -> None:
        """It may be done: forget it if so, after the present events."""
        self._looked_at[stream.stream_id] = stream
        self.schedule_transmit()

    # Called by the endpoint.

    def transmit(self, now: float) -> list[tuple[bytes, Address]]:
        """Packets to send now."""
        if not self._outgoing:
            return self.engine.transmit(now)
        self._feed()
        packets = self.engine.transmit(now)
        if self._outgoing and self._feed():  # the engine came to know the path meanwhile
            packets += self.engine.transmit(now)
        return packets

    def _feed(self) -> int:
        """Give the engine the datagrams that may leave now. Returns how many."""
        engine, queue, count = self.engine, self._outgoing, 0
        room, largest = engine.datagram_room, engine.largest_datagram
        while queue and room > 0:
            data = queue.popleft()
            if len(data) > largest:  # the path shrank
                self._endpoint.counters["drop_datagram_size"] += 1
                continue
            engine.send_datagram(data)
            room -= len(data)
            count += 1
        return count

    def next_look(self) -> float:
        """When to look at it next, monotonic seconds."""
        when = self.engine.next_timer()
        if self._closed is None:
            other = 0.0
            if not self.established:
                other = self.started_at + self.settings.handshake_timeout
            elif self.settings.keepalive:
                other = max(self.last_heard, self.last_ping) + self.settings.keepalive
            if other and (when is None or other < when):
                return other
        return time.monotonic() + 1.0 if when is None else when

    def handshake_overdue(self, now: float) -> bool:
        """The peer had its time and is not verified."""
        waiting = self._closed is None and not self.established
        return waiting and now >= self.started_at + self.settings.handshake_timeout

    def handle_timer(self, now: float) -> None:
        """What is due is done: a keepalive, and what the engine waited for."""
        engine = self.engine
        keepalive = self.settings.keepalive
        if self._closed is None and self.established and keepalive:
            quiet = max(self.last_heard, self.last_ping)
            if now >= quiet + keepalive:
                self.last_ping = now
                engine.ping()
        when = engine.next_timer()
        if when is not None and when <= now + SLACK:
            engine.handle_timer(max(now, when))

    def _is_peers(self, stream_id: int) -> bool:
        return (stream_id & 1) == (1 if self.client else 0)

    def process_events(self) -> None:
        """Deliver everything the engine has to say."""
        streams = self._streams
        for event in self.engine.events():
            kind = type(event)
            if kind is Data:
                stream = streams.get(event.stream_id)  # type: ignore[union-attr]
                if stream is None:
                    stream = self._arrived(event.stream_id)  # type: ignore[union-attr]
                stream.data_received(event.data, end=event.end)  # type: ignore[union-attr]
            elif kind is Drained:
                stream = streams.get(event.stream_id)  # type: ignore[union-attr]
                if stream is not None:
                    stream.on_drain(event.count)  # type: ignore[union-attr]
            elif kind is Datagrams:
                self._datagrams_received(event.payloads)  # type: ignore[union-attr]
            elif isinstance(event, Reset):
                (streams.get(event.stream_id) or self._arrived(event.stream_id)).take_reset(
                    event.code
                )
            elif isinstance(event, StopSending):
                (streams.get(event.stream_id) or self._arrived(event.stream_id)).take_stop_sending(
                    event.code
                )
            elif isinstance(event, Finished):
                stream = streams.get(event.stream_id)
                if stream is not None:
                    stream.take_finished()
            elif isinstance(event, StreamCredit):
                if self._running:
                    self.on_stream_credit()
            elif isinstance(event, CidIssued):
                self._endpoint.add_cid(self, event.cid)
            elif isinstance(event, CidRetired):
                self._endpoint.remove_cid(self, event.cid)
            elif isinstance(event, Established):
                if self.on_established is not None:
                    self.on_established(event)
            elif isinstance(event, Closed):
                self._end(self._reason(event))
        if self._looked_at:
            self._forget_done()

    def _datagrams_received(self, payloads: list[bytes]) -> None:
        if self._running:
            self.on_datagrams(payloads)
            return
        room = self.settings.datagram_queue - len(self._early)
        self._early += payloads[:room]
        if len(payloads) > room:
            self._endpoint.counters["drop_datagram_early"] += len(payloads) - room

    def _arrived(self, stream_id: int) -> QuicStreamHandle:
        stream = self._streams[stream_id] = QuicStreamHandle(self, stream_id)
        if self._running and self._closed is None and self._is_peers(stream_id):
            self.on_stream(stream)
        return stream

    def _forget_done(self) -> None:
        looked_at, self._looked_at = self._looked_at, {}
        for stream_id, stream in looked_at.items():
            if stream.done and self._streams.pop(stream_id, None) is not None:
                self.engine.forget(stream_id)
                stream.forget()
                stream.on_finished()
                stream.forget_callbacks()

    def _reason(self, event: Closed) -> CloseReason:
        if self._local_reason is not None:
            return self._local_reason
        if event.idle:
            return CloseReason("idle", 0, False, "idle timeout")
        kind = "peer" if event.peer else "transport"
        return CloseReason(kind, event.code, event.application, event.text)

    def _end(self, reason: CloseReason) -> None:
        """The connection is over for its users; the engine lingers to repeat its close."""
        if self._closed is not None:
            return
        self._closed = reason
        self._unwatch()
        streams, self._streams = list(self._streams.values()), {}
        self._looked_at.clear()
        self._outgoing.clear()
        for stream in streams:
            stream.take_lost(reason)
        self.on_established = None
        if self.on_failed is not None:
            failed, self.on_failed = self.on_failed, None
            failed(reason)
        if self._running and not self._reported:
            self._reported = True
            self.on_closed(reason)
            self._forget_callbacks()
        self._endpoint.ended(self)
