"""aioquic's connection with our flow control, buffers and limits; the list is in `aioquic_engine`.

Uses the library's private parts; `tests/transport/test_aioquic_shape.py` fails when they change.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, cast

from aioquic import tls
from aioquic.buffer import Buffer
from aioquic.quic.connection import (
    Limit,
    QuicConnection,
    QuicConnectionError,
    QuicConnectionId,
    QuicConnectionState,
)
from aioquic.quic.packet import (
    QuicErrorCode,
    QuicFrameType,
    QuicPacketType,
    pull_quic_transport_parameters,
)
from aioquic.quic.packet_builder import QuicDeliveryState, QuicPacketBuilder
from aioquic.quic.stream import QuicStream

from actors.transport.quic.aioquic_engine import congestion
from actors.transport.quic.aioquic_engine.marks import Marks
from actors.transport.quic.aioquic_engine.streams import BoundedRanges, SendQueue, StreamTable
from actors.transport.quic.datagram_size import BlackHole, DatagramSearch
from actors.transport.quic.first_packet import begins_with_crypto
from actors.transport.quic.settings import QuicSettings

#: A limit is announced when it moved by this part of the window (quic-go: a quarter).
ANNOUNCE_FRACTION = 4
#: Probe timeouts in a row after which datagrams go back to the size that every path carries.
BLACK_HOLE_PTOS = 2
#: PING and PADDING of one packet: each costs about a microsecond, and a packet has room for a
#: thousand of them in turns. Nobody has a use for more than a few; other frames some peers repeat.
MAX_IDLE_FRAMES = 64
_IDLE_FRAMES = (QuicFrameType.PADDING, QuicFrameType.PING)
_LIMIT_CAPACITY = 1 + 8
_STREAM_LIMIT_CAPACITY = 1 + 8 + 8


class TlsIsOver:
    """In place of a server's TLS context after the handshake."""

    state = tls.State.SERVER_POST_HANDSHAKE

    def handle_message(self, data: bytes, buffers: object) -> None:
        """A client has nothing to say in CRYPTO frames any more."""
        raise tls.AlertUnexpectedMessage("TLS message after the handshake")


class _Discarded:
    """In place of the CRYPTO stream of an epoch without keys: nothing comes, nothing goes."""

    class sender:  # an attribute of a stream
        """Its sending half."""

        buffer_is_empty = True


_DISCARDED = cast("QuicStream", _Discarded)

#: The library makes such a set per frame type and connection, of a few different ones.
_EPOCHS: dict[frozenset[tls.Epoch], frozenset[tls.Epoch]] = {}


class RelayedConnection(QuicConnection):
    """The library's connection with our flow control."""

    def __init__(
        self,
        settings: QuicSettings,
        reset_token: Callable[[bytes], bytes] | None,
        *,
        ask_certificate: bool,
        **kwargs: Any,
    ) -> None:
        self._ask_certificate = ask_certificate
        self.marks = Marks()
        self._table = StreamTable()
        self.send_queue = SendQueue(self._table, self.marks)
        super().__init__(**kwargs)
        handlers = vars(self)["_QuicConnection__frame_handlers"]
        for kind, (handler, epochs) in handlers.items():
            if kind in _IDLE_FRAMES:
                handler = partial(self._handle_idle_frame, handler)
            handlers[kind] = (handler, _EPOCHS.setdefault(epochs, epochs))
        self._packet: object = None  # whose idle frames are counted
        self._idle_frames = 0
        self._relay_settings = settings
        self._reset_token = None if self._is_client else reset_token
        self._set_reset_tokens(self._host_cids)
        self.peer_closed = False
        if not self._is_client:
            self._payload_received = self._first_payload  # type: ignore[method-assign]
        self._search = DatagramSearch(settings.max_datagram, settings.max_probed)
        self._black_hole = BlackHole(settings.max_datagram)
        self._time = 0.0
        self._streams = self._table
        self._loss._pacer = congestion.Pacer(max_datagram_size=settings.max_datagram)
        self._local_max_streams_bidi.value = settings.max_streams
        self._local_max_streams_bidi.sent = settings.max_streams
        # The protocol has no unidirectional streams.
        self._local_max_streams_uni.value = self._local_max_streams_uni.sent = 0

    @property
    def closing(self) -> bool:
        """True while our CONNECTION_CLOSE has left and the closing period is not over."""
        return self._state is QuicConnectionState.CLOSING

    @property
    def address_validated(self) -> bool:
        """True when the peer is known to be where datagrams go."""
        return bool(self._network_paths) and self._network_paths[0].is_validated

    @property
    def packets_lost(self) -> int:
        """Packets declared lost."""
        control = self._loss._cc
        return control.lost if isinstance(control, congestion.UsedReno) else 0

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

    def _parse_transport_parameters(self, data: bytes, from_session_ticket: bool = False) -> None:
        super()._parse_transport_parameters(data, from_session_ticket)
        largest = pull_quic_transport_parameters(Buffer(data=data)).max_udp_payload_size
        if largest is not None:
            self._search.limit(largest)
            self._resize()

    def probe_path(self, sent: list[tuple[bytes, Any]], now: float) -> list[tuple[bytes, Any]]:
        """A datagram that tries a larger size, or none; `sent` are those that leave now."""
        self._time = now
        control = self._loss._cc
        assert isinstance(control, congestion.UsedReno)
        self._black_hole.sent((len(data) for data, _ in sent), control.lost, now)
        vanish = self._black_hole.vanish(control.acknowledged_large, control.lost, now)
        if (vanish or self._loss._pto_count >= BLACK_HOLE_PTOS) and self._search.shrink(now):
            self._resize()
        if (
            not self._handshake_confirmed
            or self._state is not QuicConnectionState.CONNECTED
            or not self._network_paths[0].is_validated
        ):
            return []
        size = self._search.probe(now)
        if not size:
            return []
        assert self._version is not None
        builder = QuicPacketBuilder(
            host_cid=self.host_cid,
            is_client=self._is_client,
            max_datagram_size=size,
            packet_number=self._packet_number,
            peer_cid=self._peer_cid.cid,
            peer_token=self._peer_token,
            spin_bit=self._spin_bit,
            version=self._version,
        )
        builder.start_packet(QuicPacketType.ONE_RTT, self._cryptos[tls.Epoch.ONE_RTT])
        builder.start_frame(
            QuicFrameType.PING, handler=self._on_probe_delivery, handler_args=(size,)
        )
        padding = builder.start_frame(QuicFrameType.PADDING)
        padding.push_bytes(bytes(builder.remaining_flight_space))
        datagrams, packets = builder.flush()
        self._packet_number = builder.packet_number
        for packet in packets:
            packet.sent_time = now
            packet.in_flight = False  # its loss says nothing about congestion
            self._loss.on_packet_sent(packet=packet, space=self._spaces[tls.Epoch.ONE_RTT])
        self._loss._time_of_last_sent_ack_eliciting_packet = now
        address = self._network_paths[0].addr
        return [(datagram, address) for datagram in datagrams]

    def _on_probe_delivery(self, delivery: QuicDeliveryState, size: int) -> None:
        if delivery is QuicDeliveryState.ACKED:
            self._search.acknowledged(size, self._time)
            self._resize()
        else:
            self._search.lost(self._time)

    @property
    def datagram_size(self) -> int:
        """Of packets from now on, bytes of UDP payload."""
        return self._search.size

    def _resize(self) -> None:
        """Packets from now on have the size that was found."""
        if self._search.size < self._max_datagram_size:
            # The library waits for ever with a DATAGRAM frame that fits no packet.
            self._datagrams_pending.clear()
        self._max_datagram_size = self._search.size
        self._loss._pacer._max_datagram_size = self._search.size

    def shrink(self) -> None:
        """The handshake is complete: TLS writes no more, and a server's hears no more.

        Its buffers have 48 KiB, its context 14, the streams of epochs without keys 2.
        """
        self._crypto_buffers = {epoch: Buffer(capacity=64) for epoch in self._crypto_buffers}
        if not self._is_client:
            self.tls = TlsIsOver()  # type: ignore[assignment]  # what is used of it from now on
            for epoch in (tls.Epoch.INITIAL, tls.Epoch.HANDSHAKE):
                if self._spaces[epoch].discarded:
                    self._crypto_streams[epoch] = _DISCARDED

    def _initialize(self, peer_cid: bytes) -> None:
        super()._initialize(peer_cid)
        for stream in self._crypto_streams.values():
            stream.receiver._ranges = BoundedRanges(QuicErrorCode.CRYPTO_BUFFER_EXCEEDED)
        if self._ask_certificate:
            self.tls._request_client_certificate = True

    def _replenish_connection_ids(self) -> None:
        super()._replenish_connection_ids()
        self._set_reset_tokens([cid for cid in self._host_cids if not cid.was_sent])

    def _set_reset_tokens(self, cids: Sequence[QuicConnectionId]) -> None:
        if self._reset_token is not None:
            for cid in cids:
                cid.stateless_reset_token = self._reset_token(cid.cid)

    def _handle_ack_frame(self, context: Any, frame_type: int, buf: Any) -> None:
        at = buf.tell()
        if buf.pull_uint_var() >= self._packet_number:
            # RFC 9000 section 13.1; the library takes it for progress.
            raise QuicConnectionError(
                error_code=QuicErrorCode.PROTOCOL_VIOLATION,
                frame_type=frame_type,
                reason_phrase="ACK of a packet that was not sent",
            )
        buf.seek(at)
        super()._handle_ack_frame(context, frame_type, buf)

    def _handle_idle_frame(
        self,
        handler: Callable[[Any, int, Any], None],
        context: Any,
        frame_type: int,
        buf: Any,
    ) -> None:
        if context is not self._packet:
            self._packet, self._idle_frames = context, 0
        self._idle_frames += 1
        if self._idle_frames > MAX_IDLE_FRAMES:
            raise QuicConnectionError(
                error_code=QuicErrorCode.PROTOCOL_VIOLATION,
                frame_type=frame_type,
                reason_phrase="a packet full of frames that say nothing",
            )
        handler(context, frame_type, buf)

    def _handle_new_connection_id_frame(self, context: Any, frame_type: int, buf: Any) -> None:
        if not self._peer_cid.cid:
            raise QuicConnectionError(
                error_code=QuicErrorCode.PROTOCOL_VIOLATION,
                frame_type=frame_type,
                reason_phrase="a connection id of a client that has none",
            )
        super()._handle_new_connection_id_frame(context, frame_type, buf)

    def _first_payload(
        self, context: Any, plain: bytes, crypto_frame_required: bool = False
    ) -> tuple[bool, bool]:
        """Stands in for `_payload_received` until a packet came that can be a client's first."""
        if not begins_with_crypto(plain):
            self._set_state(QuicConnectionState.FIRSTFLIGHT)  # as if it had not come
            return False, True
        del self._payload_received
        return self._payload_received(context, plain, crypto_frame_required)

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
