"""`Engine` over aioquic: its events in our words, and our calls in its."""

from __future__ import annotations

import hmac
import ssl
from collections.abc import Callable, Sequence
from typing import Final, TextIO, cast

from aioquic.quic import events as quic_events
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import (
    QuicConnectionState,
)
from aioquic.quic.packet import QuicErrorCode, QuicFrameType, QuicProtocolVersion

from actors.transport.peer_policy import PeerPolicy
from actors.transport.quic.aioquic_engine import congestion
from actors.transport.quic.aioquic_engine.connection import RelayedConnection
from actors.transport.quic.closing_state import ClosingState
from actors.transport.quic.engine import (
    Address,
    CidIssued,
    CidRetired,
    Closed,
    Data,
    Datagrams,
    Drained,
    Established,
    Event,
    Finished,
    PathStatistics,
    Reset,
    StopSending,
    StreamCredit,
)
from actors.transport.quic.packet_size import frame_payload
from actors.transport.quic.settings import QuicSettings
from actors.transport.tls import TlsIdentity

#: Acknowledged bytes of a stream are reported when they are this many, or the last ones: with many
#: streams a report for every packet would cost a tenth of what the packet does.
DRAIN_STEP: Final = 16 * 1024


def configuration(
    settings: QuicSettings,
    identity: TlsIdentity,
    alpn: tuple[str, ...],
    *,
    client: bool,
    peer_policy: PeerPolicy,
    server_name: str | None = None,
) -> QuicConfiguration:
    """The library's settings for our connections. Verification is ours, so it is off there."""
    result = QuicConfiguration(
        is_client=client,
        congestion_control_algorithm=congestion.ALGORITHM,
        alpn_protocols=list(alpn),
        idle_timeout=settings.idle_timeout,
        max_data=settings.connection_window,
        max_stream_data=settings.stream_window,
        max_datagram_frame_size=settings.max_datagram_frame or None,
        max_datagram_size=settings.max_datagram,
        secrets_log_file=cast("TextIO | None", settings.key_log),  # has what is used of one
        server_name=server_name,
        supported_versions=[QuicProtocolVersion.VERSION_1],
        verify_mode=ssl.CERT_NONE,
    )
    if identity.chain and (peer_policy.of_clients or not client):
        result.certificate = identity.chain[0]
        result.certificate_chain = list(identity.chain[1:])
        result.private_key = identity.key
    return result


class AioquicEngine:
    """`Engine` over aioquic."""

    name = "aioquic"

    def __init__(
        self,
        settings: QuicSettings,
        config: QuicConfiguration,
        *,
        ask_certificate: bool,
        original_destination_cid: bytes | None = None,
        retry_source_cid: bytes | None = None,
        reset_token: Callable[[bytes], bytes] | None = None,
    ) -> None:
        self._settings = settings
        self._quic = RelayedConnection(
            settings,
            reset_token,
            ask_certificate=ask_certificate,
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
        self._farewell: ClosingState | None = None

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
        if self._farewell is not None:
            self._farewell.heard()

    def receive_many(self, datagrams: Sequence[bytes], address: Address, now: float) -> None:
        """Take datagrams of one sender."""
        for data in datagrams:
            self.receive(data, address, now)

    def receive_segments(self, buffer: bytes, size: int, address: Address, now: float) -> None:
        """Take datagrams of one sender that lie in one buffer."""
        for start in range(0, len(buffer), size):
            self.receive(buffer[start : start + size], address, now)

    def take_stateless_reset(self, data: bytes, address: Address, now: float) -> bool:
        """The library does not look for them: compare the tokens of the peer's ids in use."""
        token = self._quic._peer_cid.stateless_reset_token
        if self._reset_seen or not token or not hmac.compare_digest(data[-16:], token):
            return False
        self._reset_seen = True
        return True

    def transmit(self, now: float) -> list[tuple[bytes, Address]]:
        """Datagrams to send."""
        if self._farewell is not None:
            return [] if self.terminated else self._farewell.take()
        datagrams = self._quic.datagrams_to_send(now=now)
        if self._quic.closing and self._quic.address_validated:
            # The library sends it once; if that is lost, the peer waits for its idle timeout.
            self._farewell = ClosingState(datagrams, sent=True)
            return datagrams
        self._quic.send_queue.builder = None  # it holds the flight's buffer
        datagrams += self._quic.probe_path(datagrams, now)
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
        datagrams: list[bytes] = []
        while (event := self._quic.next_event()) is not None:
            if type(event) is quic_events.DatagramFrameReceived:
                if not datagrams:
                    result.append(Datagrams(datagrams))
                datagrams.append(event.data)
                continue
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
        lost = self._quic.packets_lost
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
            drained = sender._buffer_start - reported
            if sender._buffer_start == sender._buffer_stop:
                del self._unacknowledged[stream_id]
            elif drained < DRAIN_STEP:
                continue
            else:
                self._unacknowledged[stream_id] = sender._buffer_start
            if drained:
                result.append(Drained(stream_id, drained))
        self._quic.marks.acknowledged.clear()

    # DATAGRAM frames.

    @property
    def largest_datagram(self) -> int:
        quic = self._quic
        return frame_payload(
            quic.datagram_size, len(quic._peer_cid.cid), quic._remote_max_datagram_frame_size
        )

    @property
    def datagram_room(self) -> int:
        """See `Engine`; what the pacer keeps back leaves first."""
        quic = self._quic
        if quic._datagrams_pending or quic._close_event is not None:
            return 0
        return max(0, quic._loss.congestion_window - quic._loss.bytes_in_flight)

    def send_datagram(self, data: bytes) -> None:
        self._quic._datagrams_pending.append(data)

    def release(self) -> None:
        """See `Engine`: the library's parts all refer to the connection."""
        vars(self._quic).clear()

    # Streams.

    @property
    def streams_allowed(self) -> int:
        return int(self._quic._remote_max_streams_bidi)

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

    def consume(self, stream_id: int, count: int) -> bool:
        """Move the stream's and the connection's limit."""
        credited = self._credited.get(stream_id, 0)
        count = min(count, self._received(stream_id) - credited)
        if count <= 0:
            return False  # `release_credit` gave it back
        credited += count
        self._credited[stream_id] = credited
        stream = self._quic._streams.get(stream_id)
        if stream is not None and not stream.receiver.is_finished:
            self._quic.raise_stream_limit(stream, credited + self._settings.stream_window)
        self._consumed += count
        self._quic.raise_connection_limit(self._consumed)
        return True

    def release_credit(self, stream_id: int) -> None:
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
        self.release_credit(stream_id)
        self._ended.pop(stream_id, None)
        self._credited.pop(stream_id, None)
        self._unacknowledged.pop(stream_id, None)

    def backlog(self, stream_id: int) -> int:
        """Unacknowledged bytes."""
        stream = self._quic._streams.get(stream_id)
        if stream is None or stream.sender._reset_error_code is not None:
            return 0
        return stream.sender._buffer_stop - stream.sender._buffer_start
