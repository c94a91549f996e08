"""The aioquic engine. All use of aioquic's private parts is in this module.

What is changed, and why (aioquic 1.7):

* client certificates are requested from every client; an absent one passes here and is refused by
  our verification (aioquic checks neither presence nor chain);
* credit follows consumption: aioquic doubles its limits on receipt, so a slow consumer would make
  the relay buffer without bound; here limits only move in `consume`;
* the loops over all streams, for every packet, visit only those that have something to say
  (`aioquic_streams`);
* the congestion window grows only while it is used, and bursts are worth a system call
  (`aioquic_congestion`);
* more concurrent streams than the library's 128 are advertised.

`tests/transport/test_aioquic_shape.py` fails when the library changes any part used here.
"""

from __future__ import annotations

import hmac
import ssl
from collections.abc import Callable, Sequence
from typing import Any

from aioquic import tls
from aioquic._buffer import Buffer
from aioquic.quic import events as quic_events
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import (
    Limit,
    QuicConnection,
    QuicConnectionId,
    QuicConnectionState,
)
from aioquic.quic.packet import QuicErrorCode, QuicFrameType, QuicProtocolVersion
from aioquic.quic.packet_builder import QuicDeliveryState
from aioquic.quic.stream import QuicStream

from actors.transport.quic import aioquic_congestion
from actors.transport.quic.aioquic_streams import Marks, SendQueue, StreamTable
from actors.transport.quic.engine import (
    Address,
    CidIssued,
    CidRetired,
    Closed,
    Data,
    Drained,
    Established,
    Event,
    Finished,
    PathStatistics,
    Reset,
    StopSending,
    StreamCredit,
)
from actors.transport.quic.settings import QuicSettings
from actors.transport.tls import TlsIdentity

#: A limit is announced when it moved by this part of the window (quic-go: a quarter).
ANNOUNCE_FRACTION = 4
_LIMIT_CAPACITY = 1 + 8
_STREAM_LIMIT_CAPACITY = 1 + 8 + 8


def configuration(
    settings: QuicSettings,
    identity: TlsIdentity,
    alpn: tuple[str, ...],
    *,
    client: bool,
    server_name: str | None = None,
) -> QuicConfiguration:
    """The library's settings for our connections. Verification is ours, so it is off there."""
    result = QuicConfiguration(
        is_client=client,
        congestion_control_algorithm=aioquic_congestion.ALGORITHM,
        alpn_protocols=list(alpn),
        idle_timeout=settings.idle_timeout,
        max_data=settings.connection_window,
        max_stream_data=settings.stream_window,
        max_datagram_size=settings.max_datagram,
        server_name=server_name,
        supported_versions=[QuicProtocolVersion.VERSION_1],
        verify_mode=ssl.CERT_NONE,
    )
    result.certificate = identity.chain[0]
    result.certificate_chain = list(identity.chain[1:])
    result.private_key = identity.key
    return result


class _TlsIsOver:
    """In place of a server's TLS context after the handshake."""

    state = tls.State.SERVER_POST_HANDSHAKE

    def handle_message(self, data: bytes, buffers: object) -> None:
        """A client has nothing to say in CRYPTO frames any more."""
        raise tls.AlertUnexpectedMessage("TLS message after the handshake")


#: The library makes such a set per frame type and connection, of a few different ones.
_EPOCHS: dict[frozenset[tls.Epoch], frozenset[tls.Epoch]] = {}


class _Connection(QuicConnection):
    """The library's connection with our flow control."""

    def __init__(
        self,
        settings: QuicSettings,
        reset_token: Callable[[bytes], bytes] | None,
        **kwargs: Any,
    ) -> None:
        self.marks = Marks()
        self._table = StreamTable()
        self.send_queue = SendQueue(self._table, self.marks)
        super().__init__(**kwargs)
        handlers = vars(self)["_QuicConnection__frame_handlers"]
        for kind, (handler, epochs) in handlers.items():
            handlers[kind] = (handler, _EPOCHS.setdefault(epochs, epochs))
        self._relay_settings = settings
        self._reset_token = None if self._is_client else reset_token
        self._set_reset_tokens(self._host_cids)
        self.peer_closed = False
        self._streams = self._table
        self._loss._pacer = aioquic_congestion.Pacer(max_datagram_size=settings.max_datagram)
        self._local_max_streams_bidi.value = settings.max_streams
        self._local_max_streams_bidi.sent = settings.max_streams
        # The protocol has no unidirectional streams.
        self._local_max_streams_uni.value = self._local_max_streams_uni.sent = 0

    @property  # type: ignore[override]  # has what the library uses of a list
    def _streams_queue(self) -> SendQueue:
        return self.send_queue

    @_streams_queue.setter
    def _streams_queue(self, order: object) -> None:
        self.send_queue.reordered()

    def _get_or_create_stream(self, frame_type: int, stream_id: int) -> QuicStream:
        # Called for every frame about a stream, which may bring credit or the stream's end.
        self.marks.ready[stream_id] = None
        return super()._get_or_create_stream(frame_type, stream_id)

    def shrink(self) -> None:
        """The handshake is complete: TLS writes no more, and a server's hears no more.

        Its buffers have 48 KiB, its context 14.
        """
        self._crypto_buffers = {epoch: Buffer(capacity=64) for epoch in self._crypto_buffers}
        if not self._is_client:
            self.tls = _TlsIsOver()  # type: ignore[assignment]  # what is used of it from now on

    def _initialize(self, peer_cid: bytes) -> None:
        super()._initialize(peer_cid)
        if not self._is_client:
            self.tls._request_client_certificate = True

    def _replenish_connection_ids(self) -> None:
        super()._replenish_connection_ids()
        self._set_reset_tokens([cid for cid in self._host_cids if not cid.was_sent])

    def _set_reset_tokens(self, cids: Sequence[QuicConnectionId]) -> None:
        if self._reset_token is not None:
            for cid in cids:
                cid.stateless_reset_token = self._reset_token(cid.cid)

    def _handle_connection_close_frame(self, context: Any, frame_type: int, buf: Any) -> None:
        self.peer_closed = True
        super()._handle_connection_close_frame(context, frame_type, buf)

    def raise_stream_limit(self, stream: QuicStream, target: int) -> bool:
        """Let the peer send up to offset `target`; True when that is worth a packet now."""
        step = self._relay_settings.stream_window // ANNOUNCE_FRACTION
        if target - stream.max_stream_data_local < step:
            return False
        stream.max_stream_data_local = target
        if stream.stream_id is not None and stream.stream_id in self._streams:
            self._table.dirty[stream.stream_id] = stream
        return True

    def raise_connection_limit(self, consumed: int) -> bool:
        """The same for the whole connection, given the total ever consumed."""
        window = self._relay_settings.connection_window
        limit = self._local_max_data
        if consumed + window - limit.value < window // ANNOUNCE_FRACTION:
            return False
        limit.value = consumed + window
        return True

    def _write_stream_limits(self, builder: Any, space: Any, stream: QuicStream) -> None:
        assert stream.stream_id is not None
        self._table.dirty.pop(stream.stream_id, None)
        if stream.receiver.is_finished or stream.stream_id not in self._streams:
            return
        try:
            buffer = builder.start_frame(
                QuicFrameType.MAX_STREAM_DATA,
                capacity=_STREAM_LIMIT_CAPACITY + 8,
                handler=self._on_max_stream_data_delivery,
                handler_args=(stream,),
            )
        except Exception:
            # No room in this packet or flight: the limit stays to be sent.
            self._table.dirty[stream.stream_id] = stream
            raise
        buffer.push_uint_var(stream.stream_id)
        buffer.push_uint_var(stream.max_stream_data_local)
        stream.max_stream_data_local_sent = stream.max_stream_data_local

    def _on_max_stream_data_delivery(self, delivery: Any, stream: QuicStream) -> None:
        super()._on_max_stream_data_delivery(delivery, stream)
        if delivery != QuicDeliveryState.ACKED and stream.stream_id is not None:
            self._table.dirty[stream.stream_id] = stream

    def _write_connection_limits(self, builder: Any, space: Any) -> None:
        # The library calls this for every packet, just before it asks the streams.
        self.send_queue.builder = builder
        for limit in (self._local_max_data, self._local_max_streams_bidi):
            if self._worth_announcing(limit):
                buffer = builder.start_frame(
                    limit.frame_type,
                    capacity=_LIMIT_CAPACITY + 8,
                    handler=self._on_connection_limit_delivery,
                    handler_args=(limit,),
                )
                buffer.push_uint_var(limit.value)
                limit.sent = limit.value

    def _worth_announcing(self, limit: Limit) -> bool:
        if limit.value == limit.sent:
            return False
        if limit is self._local_max_data:
            return True  # moves in large steps only, or its announcement was lost
        # MAX_STREAMS: in steps of an eighth, or when the peer is about to run out.
        step = max(1, self._relay_settings.max_streams // 8)
        return limit.value - limit.sent >= step or limit.sent - limit.used < step


class AioquicEngine:
    """`Engine` over aioquic."""

    def __init__(
        self,
        settings: QuicSettings,
        config: QuicConfiguration,
        *,
        original_destination_cid: bytes | None = None,
        retry_source_cid: bytes | None = None,
        reset_token: Callable[[bytes], bytes] | None = None,
    ) -> None:
        self._settings = settings
        self._quic = _Connection(
            settings,
            reset_token,
            configuration=config,
            original_destination_connection_id=original_destination_cid,
            retry_source_connection_id=retry_source_cid,
        )
        self._consumed = 0
        #: Streams with unacknowledged bytes -> acknowledged offset last reported.
        self._unacknowledged: dict[int, int] = {}
        #: Streams -> offset up to which credit was given back.
        self._credited: dict[int, int] = {}
        #: Streams whose FIN came -> bytes in all; the library may drop a stream before us.
        self._ended: dict[int, int] = {}
        self._streams_allowed = 0
        self._closed_reported = False
        self._reset_seen = False

    @property
    def source_cid(self) -> bytes:
        """Our first connection id."""
        return bytes(self._quic.host_cid)

    @property
    def peer_address(self) -> Address | None:
        """Where datagrams go now."""
        return self._quic.get_peer_address()

    @property
    def round_trip(self) -> float:
        """Smoothed RTT."""
        loss = self._quic._loss
        return loss._rtt_smoothed if loss._rtt_initialized else 0.0

    def connect(self, address: Address, now: float) -> None:
        """Begin as a client."""
        self._quic.connect(address, now=now)

    def receive(self, data: bytes, address: Address, now: float) -> None:
        """Take one datagram."""
        self._quic.receive_datagram(data, address, now=now)

    def receive_many(self, datagrams: Sequence[bytes], address: Address, now: float) -> None:
        """Take datagrams of one sender."""
        for data in datagrams:
            self._quic.receive_datagram(data, address, now=now)

    def receive_segments(self, buffer: bytes, size: int, address: Address, now: float) -> None:
        """Take datagrams of one sender that lie in one buffer."""
        for start in range(0, len(buffer), size):
            self._quic.receive_datagram(buffer[start : start + size], address, now=now)

    def take_stateless_reset(self, data: bytes, address: Address, now: float) -> bool:
        """The library does not look for them: compare the tokens of the peer's ids in use."""
        token = self._quic._peer_cid.stateless_reset_token
        if self._reset_seen or not token or not hmac.compare_digest(data[-16:], token):
            return False
        self._reset_seen = True
        return True

    def transmit(self, now: float) -> list[tuple[bytes, Address]]:
        """Datagrams to send."""
        datagrams = self._quic.datagrams_to_send(now=now)
        self._quic.send_queue.builder = None  # it holds the flight's buffer
        return datagrams

    def next_timer(self) -> float | None:
        """When to call `handle_timer`."""
        return self._quic.get_timer()

    def handle_timer(self, now: float) -> None:
        """The time came."""
        self._quic.handle_timer(now=now)

    def ping(self) -> None:
        """Queue a PING."""
        self._quic.send_ping(0)

    def close(self, code: int, text: str, *, application: bool) -> None:
        """Queue a CONNECTION_CLOSE."""
        frame = None if application else int(QuicFrameType.PADDING)
        self._quic.close(error_code=code, frame_type=frame, reason_phrase=text)

    def events(self) -> list[Event]:
        """Translate what happened."""
        result: list[Event] = []
        while (event := self._quic.next_event()) is not None:
            translated = self._translate(event)
            if translated is not None:
                result.append(translated)
                self._mark_end(translated)
        if self._quic.marks.finished:
            self._collect_finished(result)
        if self._quic.marks.acknowledged:
            self._collect_acknowledged(result)
        allowed = self._quic._remote_max_streams_bidi
        if allowed > self._streams_allowed:
            self._streams_allowed = allowed
            result.append(StreamCredit())
        closed = self._closed()
        if closed is not None:
            result.append(closed)
        return result

    def _translate(self, event: quic_events.QuicEvent) -> Event | None:
        kind = type(event)
        if kind is quic_events.StreamDataReceived:
            if event.end_stream:  # type: ignore[attr-defined]
                self._ended[event.stream_id] = self._received(event.stream_id)  # type: ignore[attr-defined]
            return Data(event.stream_id, event.data, event.end_stream)  # type: ignore[attr-defined]
        if kind is quic_events.StreamReset:
            return Reset(event.stream_id, event.error_code)  # type: ignore[attr-defined]
        if kind is quic_events.StopSendingReceived:
            return StopSending(event.stream_id, event.error_code)  # type: ignore[attr-defined]
        if kind is quic_events.ConnectionIdIssued:
            return CidIssued(event.connection_id)  # type: ignore[attr-defined]
        if kind is quic_events.ConnectionIdRetired:
            return CidRetired(event.connection_id)  # type: ignore[attr-defined]
        if isinstance(event, quic_events.HandshakeCompleted):
            context = self._quic.tls
            leaf = context._peer_certificate
            chain = [] if leaf is None else [leaf, *context._peer_certificate_chain]
            self._quic.shrink()
            return Established(chain, event.alpn_protocol or "")
        # ConnectionTerminated comes after the draining period; `_closed` reports it at once.
        return None

    def _closed(self) -> Closed | None:
        """The end of the connection, reported in the iteration in which it was decided."""
        event = self._quic._close_event
        if self._closed_reported:
            return None
        if self._reset_seen:
            self._closed_reported = True
            return Closed(0, False, "stateless reset", peer=True, idle=False)
        if event is None:
            return None
        self._closed_reported = True
        # The library reports an idle timeout as an internal error with this phrase.
        idle = event.error_code == QuicErrorCode.INTERNAL_ERROR and (
            event.reason_phrase == "Idle timeout"
        )
        return Closed(
            0 if idle else event.error_code,
            event.frame_type is None,
            "" if idle else event.reason_phrase,
            peer=self._quic.peer_closed,
            idle=idle,
        )

    @property
    def path(self) -> PathStatistics:
        """The path as congestion control sees it."""
        loss = self._quic._loss
        control = loss._cc
        lost = control.lost if isinstance(control, aioquic_congestion.UsedReno) else -1
        return PathStatistics(loss.congestion_window, loss.bytes_in_flight, lost)

    @property
    def terminated(self) -> bool:
        """True once nothing will be sent or received any more."""
        return self._reset_seen or self._quic._state is QuicConnectionState.TERMINATED

    def _mark_end(self, event: Event) -> None:
        """The peer's half ended: the stream is finished if ours is."""
        if type(event) is Reset or (type(event) is Data and event.end):
            stream = self._quic._streams.get(event.stream_id)
            if stream is None or stream.sender.is_finished:
                self._quic.marks.finished[event.stream_id] = None

    def _collect_finished(self, result: list[Event]) -> None:
        """Our halves of these streams are over; those count whose other half is, too."""
        marks, streams = self._quic.marks, self._quic._streams
        for stream_id in marks.finished:
            stream = streams.get(stream_id)
            if stream is None or stream.is_finished:
                result.append(Finished(stream_id))
        marks.finished.clear()

    def _collect_acknowledged(self, result: list[Event]) -> None:
        streams = self._quic._streams
        for stream_id in self._quic.marks.acknowledged:
            reported = self._unacknowledged.get(stream_id)
            if reported is None:
                continue
            stream = streams.get(stream_id)
            if stream is None or stream.sender._reset_error_code is not None:
                del self._unacknowledged[stream_id]
                continue
            sender = stream.sender
            if sender._buffer_start > reported:
                result.append(Drained(stream_id, sender._buffer_start - reported))
                self._unacknowledged[stream_id] = sender._buffer_start
            if sender._buffer_start == sender._buffer_stop:
                del self._unacknowledged[stream_id]
        self._quic.marks.acknowledged.clear()

    # Streams.

    def open_stream(self) -> int | None:
        """A new stream, unless the peer's limit is reached."""
        quic = self._quic
        stream_id = quic.get_next_available_stream_id()
        if stream_id // 4 >= quic._remote_max_streams_bidi:
            return None
        quic._get_or_create_stream_for_send(stream_id)
        return stream_id

    def write(self, stream_id: int, data: bytes | bytearray | memoryview, *, end: bool) -> None:
        """Queue bytes."""
        stream = self._quic._streams.get(stream_id)
        if stream is None or stream.sender._reset_error_code is not None:
            return
        if data and stream_id not in self._unacknowledged:
            self._unacknowledged[stream_id] = stream.sender._buffer_start
        stream.sender.write(data, end_stream=end)  # type: ignore[arg-type]  # any buffer works
        self._quic.marks.ready[stream_id] = None

    def reset(self, stream_id: int, code: int) -> None:
        """Reset our sending half."""
        stream = self._quic._streams.get(stream_id)
        if stream is not None and not stream.sender.is_finished:
            stream.sender.reset(code)
            self._quic.marks.ready[stream_id] = None

    def stop_sending(self, stream_id: int, code: int) -> None:
        """Ask the peer to stop."""
        stream = self._quic._streams.get(stream_id)
        if stream is not None and not stream.receiver.is_finished:
            stream.receiver.stop(code)
            self._quic.marks.ready[stream_id] = None

    def consume(self, stream_id: int, count: int) -> None:
        """Move the stream's and the connection's limit."""
        credited = self._credited.get(stream_id, 0)
        count = min(count, self._received(stream_id) - credited)
        if count <= 0:
            return  # `settle` gave it back
        credited += count
        self._credited[stream_id] = credited
        stream = self._quic._streams.get(stream_id)
        if stream is not None and not stream.receiver.is_finished:
            self._quic.raise_stream_limit(stream, credited + self._settings.stream_window)
        self._consumed += count
        self._quic.raise_connection_limit(self._consumed)

    def settle(self, stream_id: int) -> None:
        """Give back the connection credit of everything a closed receive half ever took."""
        received = self._received(stream_id)
        owed = received - self._credited.get(stream_id, 0)
        if owed > 0:
            self._credited[stream_id] = received
            self._consumed += owed
            self._quic.raise_connection_limit(self._consumed)

    def _received(self, stream_id: int) -> int:
        """Bytes the peer sent, or says that it would have sent."""
        stream = self._quic._streams.get(stream_id)
        return self._ended.get(stream_id, 0) if stream is None else stream.receiver.highest_offset

    def forget(self, stream_id: int) -> None:
        """Both halves are finished: drop our book-keeping."""
        self.settle(stream_id)
        self._ended.pop(stream_id, None)
        self._credited.pop(stream_id, None)
        self._unacknowledged.pop(stream_id, None)

    def backlog(self, stream_id: int) -> int:
        """Unacknowledged bytes."""
        stream = self._quic._streams.get(stream_id)
        if stream is None or stream.sender._reset_error_code is not None:
            return 0
        return stream.sender._buffer_stop - stream.sender._buffer_start
