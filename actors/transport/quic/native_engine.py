"""The native engine: qh3's compiled packet core under aioquic's TLS (`native_tls`).

The core (`qh3._hazmat.QuicConnectionCore`) does packets, loss, congestion, streams, flow control
and paths; this module feeds it, turns its events into the seam's, and bounds what it holds. All
use of qh3's private parts is here; `tests/transport/test_native_shape.py` fails when one changes.

Flow control follows consumption, per stream and per connection:

* per stream it is ours (`native_flow`): the core believes in endless stream windows, the peer was
  told of finite ones, and packets of our own (`native_packets`) announce what consumption frees. A
  stalled reader stops its own writer after one `stream_window` and nobody else;
* per connection it is the core's, which grants credit as data is taken out of it; nothing is taken
  out while more than `connection_window` is delivered and not consumed. Then every stream of the
  connection waits, as flow control wants it, and so do RESET and STOP_SENDING, until consumption
  goes on. A connection holds at most two `connection_window`s and one event (64 KiB);
* more than a stream's limit closes the connection with FLOW_CONTROL_ERROR.

What differs from the aioquic engine:

* `Drained` and `backlog` count bytes that were not sent for the first time yet, not bytes that were
  not acknowledged: the core does not tell per stream what was acknowledged. Bytes in flight are
  held by the core in addition, at most the congestion window and the peer's limits;
* `send_finished` is known for the whole stream only: it turns true when both halves are finished;
* a new address of the peer is used once it answered a PATH_CHALLENGE, not at once; at most three
  changes of address per connection (the core keeps four paths, and never forgets one);
* connection ids after the first, and their stateless reset tokens, are the core's random ones.
"""

from __future__ import annotations

import hmac
import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from aioquic._buffer import Buffer
from aioquic.quic.packet import QuicPacketType, get_retry_integrity_tag
from aioquic.quic.packet import pull_quic_header as parse_header
from qh3._hazmat import pull_quic_header

from actors.transport.quic.engine import (
    Address,
    CidIssued,
    CidRetired,
    Closed,
    Data,
    Drained,
    Established,
    Event,
    Reset,
    StopSending,
    StreamCredit,
)
from actors.transport.quic.native_core import apply_parameters, install_keys, open_core
from actors.transport.quic.native_flow import ReceiveFlow
from actors.transport.quic.native_packets import PacketMaker
from actors.transport.quic.native_paths import PeerAddresses
from actors.transport.quic.native_tls import VERSION_1, CidSet, HandshakeFailed, TlsDriver
from actors.transport.quic.settings import QuicSettings
from actors.transport.tls import TlsIdentity

CID_LENGTH = 8
_INTERNAL_ERROR = 1
_SMALLEST_INITIAL = 1200
_INITIAL_SPACE = 0
_APPLICATION_SPACE = 2
_ONE_RTT_EPOCH = 3
_FLOW_CONTROL_ERROR = 0x03
_STREAM_FRAME = 0x08
#: Frames of one packet of stream credit: with everything else it fits into any datagram.
_CREDIT_BYTES = 1024
#: Packets under one AEAD key before a key update; the limit of AES-GCM is 2^23 (RFC 9001 6.6).
KEY_UPDATE_PACKETS = 1 << 22
_LONG_HEADER = 0x80
#: Longest reason phrase: a CONNECTION_CLOSE has to fit into the smallest datagram.
MAX_REASON_BYTES = 512
#: The core's words for a frame that does not fit.
AMPLIFICATION_LIMIT = "packet builder capacity exhausted"
#: The core's words for a retransmission of a stream that is through.
STREAM_GONE = "reserved stream is missing"
#: How many of those one transmission steps over.
_CORE_RETRIES = 16


class NativeEngine:
    """`Engine` over qh3's packet core.

    Args:
        settings: limits and timers.
        identity: what we present.
        alpn: protocols offered or accepted.
        client: our side.
        server_name: SNI of a client.
        original_destination_cid: servers: what the client chose first.
        retry_source_cid: servers: our id in the Retry packet, when there was one.
        reset_token: servers: the stateless reset token of a connection id of ours.
    """

    def __init__(
        self,
        settings: QuicSettings,
        identity: TlsIdentity,
        alpn: tuple[str, ...],
        *,
        client: bool,
        server_name: str | None = None,
        original_destination_cid: bytes | None = None,
        retry_source_cid: bytes | None = None,
        reset_token: Callable[[bytes], bytes] | None = None,
    ) -> None:
        self._settings = settings
        self._client = client
        original = original_destination_cid or os.urandom(CID_LENGTH)
        self._cids = CidSet(os.urandom(CID_LENGTH), original, retry_source_cid)
        token = None if client or reset_token is None else reset_token(self._cids.ours)
        self._tls = TlsDriver(
            settings,
            identity,
            alpn,
            self._cids,
            client=client,
            server_name=server_name,
            reset_token=token if client or token else os.urandom(16),
        )
        self._core: Any = None
        self._started = False
        self._established = False
        self._parameters_applied = False
        self._events: list[Event] = []
        self._closed_reported = False
        self._terminated = False
        self._pings = 0
        #: CRYPTO bytes of a client's first flight, to be sent again after a Retry.
        self._first_flight: list[tuple[int, int, bytes]] = []
        self._datagrams_sent = 0
        self._key_packets = 0
        self._flow = ReceiveFlow(settings.stream_window, settings.connection_window)
        #: Makes the packets that carry stream credit; None before the 1-RTT keys.
        self._packets: PacketMaker | None = None
        #: Streams whose receive half brought its FIN or RESET.
        self._receive_ended: set[int] = set()
        #: Streams whose both halves are finished, until `forget`.
        self._finished: set[int] = set()
        #: Streams -> bytes written and not sent for the first time.
        self._unsent: dict[int, int] = {}
        self._addresses: PeerAddresses | None = None

    # State.

    @property
    def source_cid(self) -> bytes:
        """Our first connection id."""
        return self._cids.ours

    @property
    def peer_address(self) -> Address | None:
        """Where datagrams go now."""
        if self._core is None or self._addresses is None:
            return None
        return self._addresses.real(self._core.active_path[2])

    @property
    def round_trip(self) -> float:
        """Smoothed RTT."""
        return 0.0 if self._core is None else self._core.smoothed_rtt or 0.0

    @property
    def terminated(self) -> bool:
        """True once nothing will be sent or received any more."""
        return self._terminated

    @property
    def held(self) -> bool:
        """True while a limit of the module docstring keeps events in the core."""
        return self._flow.held

    # The handshake.

    def connect(self, address: Address, now: float) -> None:
        """Begin as a client."""
        self._create_core(address, self._cids.original, now)
        self._tls.start()
        self._advance_handshake()

    def _create_core(self, address: Address, initial_cid: bytes, now: float) -> None:
        self._addresses = PeerAddresses(address, now)
        self._core = open_core(
            self._settings, self._cids, initial_cid, address, now, client=self._client
        )

    def _advance_handshake(self) -> None:
        """Carry what TLS made into the core."""
        core, driver = self._core, self._tls
        for keys in driver.take_keys():
            install_keys(core, keys)
            if keys.direction == "send" and keys.epoch == _ONE_RTT_EPOCH:
                advance = partial(core.restore_send_packet_number, _APPLICATION_SPACE)
                self._packets = PacketMaker(keys, len(self._cids.peers or b""), advance)
        for piece in driver.take_outgoing():
            if self._client and piece.epoch == 0:
                self._first_flight.append(piece)
            core.send_crypto(piece.epoch, piece.offset, piece.data)
        parameters = driver.parameters
        if parameters is not None and not self._parameters_applied:
            self._parameters_applied = True
            apply_parameters(core, parameters)
            if parameters.initial_max_streams_bidi:
                self._events.append(StreamCredit())
        if driver.complete and not self._established:
            self._established = True
            core.handshake_complete()
            self._first_flight.clear()
            self._events.append(Established(driver.chain, driver.alpn))

    def _receive_handshake(self, data: bytes, address: Address, now: float) -> None:
        """Packet by packet: TLS has to make the keys for the next packet of the datagram."""
        core = self._core
        if self._client and data[0] & _LONG_HEADER and self._receive_retry(data, address, now):
            return
        offset = 0
        while offset < len(data):
            try:
                header = pull_quic_header(data, offset, CID_LENGTH)
            except ValueError:
                return
            end = max(header[9], offset + 1)
            report = core.receive_datagram(data[offset:end], address, now, len(data))
            # The packet was authentic: its source id is the one the parameters must name.
            if report[2] and header[4] and not self._established:
                self._cids.peers = header[4]
            self._pump()
            offset = end

    def _receive_retry(self, data: bytes, address: Address, now: float) -> bool:
        """Start again with the token of a valid Retry (RFC 9000 section 17.2.5)."""
        try:
            header = parse_header(Buffer(data=data), host_cid_length=CID_LENGTH)
        except ValueError:
            return True
        if header.packet_type is not QuicPacketType.RETRY:
            return False
        cids = self._cids
        tag = get_retry_integrity_tag(data[:-16], cids.original, VERSION_1)
        if (
            self._core.received_authenticated_packet
            or cids.retry is not None
            or header.version != VERSION_1
            or header.destination_cid != cids.ours
            or not hmac.compare_digest(data[-16:], tag)
        ):
            return True
        cids.retry = header.source_cid
        self._create_core(address, header.source_cid, now)
        self._core.set_initial_token(header.token)
        # Packet numbers go on, and the ClientHello stays the same.
        self._core.restore_send_packet_number(_INITIAL_SPACE, self._datagrams_sent)
        for epoch, offset, piece in self._first_flight:
            self._core.send_crypto(epoch, offset, piece)
        return True

    # Datagrams.

    def receive(self, data: bytes, address: Address, now: float) -> None:
        """Take one datagram."""
        if self._established:
            self._core.receive_datagram(data, self._name(address, now), now)
            self._pump()
        elif data and self._open(data, address, now):
            self._receive_handshake(data, self._name(address, now), now)

    def receive_many(self, datagrams: Sequence[bytes], address: Address, now: float) -> None:
        """Take datagrams of one sender, oldest first."""
        if self._established:
            name = self._name(address, now)
            self._core.receive_many_datagrams(list(datagrams), name, now)
            self._pump()
            return
        for data in datagrams:
            self.receive(data, address, now)

    def receive_segments(self, buffer: bytes, size: int, address: Address, now: float) -> None:
        """Take datagrams of one sender that lie in one buffer, `size` bytes each but the last."""
        if self._established:
            self._core.receive_gro_buffer(buffer, size, self._name(address, now), now)
            self._pump()
            return
        for start in range(0, len(buffer), size):
            self.receive(buffer[start : start + size], address, now)

    def take_stateless_reset(self, data: bytes, address: Address, now: float) -> bool:
        """The core compares tokens itself."""
        if not self._established or self._terminated:
            return False
        self._core.receive_datagram(data, self._name(address, now), now)
        self._pump()
        return self._terminated

    def _open(self, data: bytes, address: Address, now: float) -> bool:
        if self._core is not None:
            return not self._terminated
        if self._client or self._closed_reported or len(data) < _SMALLEST_INITIAL:
            return False
        self._create_core(address, self._cids.retry or self._cids.original, now)
        return True

    def _name(self, address: Address, now: float) -> Address:
        assert self._addresses is not None
        return self._addresses.name(address, now)

    def transmit(self, now: float) -> list[tuple[bytes, Address]]:
        """Datagrams to send."""
        core = self._core
        if core is None or self._terminated:
            return []
        # Consumption may have ended a hold: the credit leaves with these datagrams.
        self._pump()
        result = self._poll(now)
        if self._packets is not None:
            self._add_stream_credit(result, now)
        if result:
            self._datagrams_sent += len(result)
            self._key_packets += len(result)
            if self._key_packets >= KEY_UPDATE_PACKETS:
                self._update_keys()
            if self._addresses is not None and self._addresses.renamed:
                real = self._addresses.real
                result = [(data, real(name)) for data, name in result]
            if self._unsent:
                self._collect_sent()
        return result

    def _poll(self, now: float) -> list[tuple[bytes, Address]]:
        """What the core wants to send."""
        result: list[tuple[bytes, Address]] = []
        poll = self._core.poll_transmit
        for _ in range(_CORE_RETRIES):
            try:
                while (datagram := poll(now)) is not None:
                    result.append((datagram[0], datagram[1]))
            except RuntimeError as error:
                # The next frame is larger than what may be sent to an address that is not
                # validated yet (three times what came from it); it stays queued.
                if str(error) != AMPLIFICATION_LIMIT:
                    raise
            except ValueError as error:
                # The core dropped a stream that was acknowledged while it waited for its turn to
                # be sent again. It has dropped its turn, too, by now.
                if str(error) != STREAM_GONE:
                    raise
                continue
            break
        return result

    def _add_stream_credit(self, result: list[tuple[bytes, Address]], now: float) -> None:
        """Put packets of our own behind those of the core when limits are to be announced."""
        packets, core, flow = self._packets, self._core, self._flow
        assert packets is not None
        for datagram, _ in result:
            if datagram[0] < _LONG_HEADER:
                packets.sent(datagram)
        packets.follow_phase(core.send_key_phase)
        if not flow.due or not packets.ready or core.state != "connected":
            return
        address = core.active_path[2]
        while flow.due:
            frames = flow.frames(now, core.smoothed_rtt or 0.0, _CREDIT_BYTES)
            result.append((packets.packet(frames), address))

    def _refuse_excess(self) -> None:
        """The peer sent beyond a stream's limit."""
        text = "more than the stream's limit"
        self._core.close(_FLOW_CONTROL_ERROR, _STREAM_FRAME, text.encode())
        self._report_closed(Closed(_FLOW_CONTROL_ERROR, False, text, peer=False, idle=False))

    def _update_keys(self) -> None:
        try:
            self._core.request_key_update()
        except (RuntimeError, ValueError):
            return  # the last update is not acknowledged yet: asked again with the next packet
        self._key_packets = 0

    def next_timer(self) -> float | None:
        """When to call `handle_timer`."""
        if self._core is None or self._terminated:
            return None
        timer, repeat = self._core.get_timer(), self._flow.next_timer()
        if timer is None or (repeat is not None and repeat < timer[1]):
            return repeat
        when: float = timer[1]
        return when

    def handle_timer(self, now: float) -> None:
        """The time came."""
        if self._core is not None and not self._terminated:
            timer = self._core.get_timer()
            if timer is not None and timer[1] <= now:
                self._core.handle_timer(now)
            self._flow.handle_timer(now)
            self._pump()

    def ping(self) -> None:
        """Queue a PING."""
        if self._core is not None and not self._closed_reported:
            self._pings += 1
            self._core.send_ping(self._pings)

    def close(self, code: int, text: str, *, application: bool) -> None:
        """Queue a CONNECTION_CLOSE."""
        if self._closed_reported:
            return
        if self._core is None:
            self._terminated = True
        else:
            self._core.close(code, None if application else 0, text.encode()[:MAX_REASON_BYTES])
        self._report_closed(Closed(code, application, text, peer=False, idle=False))

    # Events.

    def events(self) -> list[Event]:
        """What happened since the last call."""
        result, self._events = self._events, []
        return result

    def _report_closed(self, closed: Closed) -> None:
        if not self._closed_reported:
            self._closed_reported = True
            self._events.append(closed)

    def _pump(self) -> None:
        """Take events out of the core while the limits allow it."""
        flow, next_event = self._flow, self._core.next_event
        while not flow.held or self._core.state != "connected":
            native = next_event()
            if native is None:
                return
            if native[0] != "stream_data":
                self._take(native)
            elif not self._closed_reported:
                _, stream_id, data, end = native
                if not flow.received(stream_id, len(data)):
                    self._refuse_excess()
                    return
                if end:
                    self._receive_ended.add(stream_id)
                    flow.ended(stream_id)
                self._events.append(Data(stream_id, data, end))

    def _take(self, native: tuple[Any, ...]) -> None:
        kind = native[0]
        if kind == "crypto_data":
            self._take_crypto(native[1], native[3])
        elif kind == "stream_finished":
            self._finished.add(native[1])
            self._receive_ended.discard(native[1])
        elif kind == "peer_closed":
            text = native[4].decode("utf-8", "replace")
            self._report_closed(Closed(native[2], native[1], text, peer=True, idle=False))
        elif kind == "protocol_error":
            self._report_closed(Closed(native[1], False, native[3], peer=False, idle=False))
        elif kind == "connection_terminated":
            self._take_termination(native[1], native[3])
        elif self._closed_reported:
            return
        elif kind == "stream_reset":
            # A RESET after everything was delivered changes nothing (RFC 9000 section 3.2).
            if native[1] not in self._receive_ended:
                self._receive_ended.add(native[1])
                self._flow.ended(native[1])
                self._events.append(Reset(native[1], native[2]))
        elif kind == "stop_sending":
            self._unsent.pop(native[1], None)
            self._events.append(StopSending(native[1], native[2]))
        elif kind == "streams_available":
            if not native[1]:
                self._events.append(StreamCredit())
        elif kind == "connection_id_issued":
            self._events.append(CidIssued(native[1]))
        elif kind == "connection_id_retired":
            self._events.append(CidRetired(native[1]))
        elif kind == "version_negotiation" and VERSION_1 not in native[1]:
            self._terminated = True
            text = "Could not find a common protocol version"
            self._report_closed(Closed(_INTERNAL_ERROR, False, text, peer=False, idle=False))

    def _take_crypto(self, epoch: int, data: bytes) -> None:
        try:
            self._tls.receive(epoch, data)
        except HandshakeFailed as failure:
            self._core.close(failure.code, failure.frame_type, failure.text.encode())
            self._report_closed(Closed(failure.code, False, failure.text, peer=False, idle=False))
            return
        if not self._closed_reported:
            self._advance_handshake()

    def _take_termination(self, code: int, reason: bytes) -> None:
        """The core is through: the closing period ended, nothing was heard, or a reset came."""
        self._terminated = True
        if code == _INTERNAL_ERROR and reason == b"Idle timeout":
            self._report_closed(Closed(0, False, "", peer=False, idle=True))
        else:
            self._report_closed(Closed(code, False, "stateless reset", peer=True, idle=False))

    def _collect_sent(self) -> None:
        size = self._core.get_send_buffer_size
        for stream_id, known in list(self._unsent.items()):
            left = size(stream_id)
            if left < known:
                self._events.append(Drained(stream_id, known - left))
                if left:
                    self._unsent[stream_id] = left
                else:
                    del self._unsent[stream_id]

    # Streams.

    def open_stream(self) -> int | None:
        """A new stream, unless the peer's limit is reached."""
        if self._core is None or self._closed_reported:
            return None
        limits = self._core.stream_limits
        if limits[2] >= limits[0]:
            return None
        stream_id: int = self._core.open_stream(False)
        return stream_id

    def write(self, stream_id: int, data: bytes | bytearray | memoryview, *, end: bool) -> None:
        """Queue bytes."""
        if self._closed_reported:
            return
        try:
            self._core.send_stream(stream_id, data, end)
        except ValueError:
            return  # reset by either side meanwhile
        if data:
            self._unsent[stream_id] = self._unsent.get(stream_id, 0) + len(data)

    def reset(self, stream_id: int, code: int) -> None:
        """Reset our sending half."""
        self._unsent.pop(stream_id, None)
        if self._closed_reported:
            return
        try:
            self._core.reset_stream(stream_id, code)
        except ValueError:
            return  # both halves are finished

    def stop_sending(self, stream_id: int, code: int) -> None:
        """Ask the peer to stop."""
        if self._closed_reported or stream_id in self._receive_ended:
            return
        try:
            self._core.stop_sending(stream_id, code)
        except ValueError:
            return  # both halves are finished

    def consume(self, stream_id: int, count: int) -> None:
        """Let the limits breathe; a hold they ended is over with the next `transmit`."""
        self._flow.consumed(stream_id, count)

    def settle(self, stream_id: int) -> None:
        """The receive half is closed: what it holds counts no more."""
        self._flow.settle(stream_id)

    def forget(self, stream_id: int) -> None:
        """Both halves are finished: drop our book-keeping."""
        self._flow.forget(stream_id)
        self._unsent.pop(stream_id, None)
        self._finished.discard(stream_id)
        self._receive_ended.discard(stream_id)

    def send_finished(self, stream_id: int) -> bool:
        """True when both halves are finished and acknowledged."""
        return self._closed_reported or stream_id in self._finished

    def backlog(self, stream_id: int) -> int:
        """Bytes that were not sent for the first time yet."""
        return self._unsent.get(stream_id, 0)
