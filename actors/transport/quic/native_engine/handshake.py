"""From the first datagram to an established connection of the native engine.

TLS makes keys and CRYPTO bytes, the packet core carries them; this is what lies between. A Retry
starts the core again with the token, with the same ClientHello and with packet numbers going on
(RFC 9000 section 17.2.5).
"""

from __future__ import annotations

import hmac
import os
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

from aioquic.buffer import Buffer
from aioquic.quic.packet import (
    QuicPacketType,
    QuicTransportParameters,
    get_retry_integrity_tag,
)
from aioquic.quic.packet import pull_quic_header as parse_header
from qh3._hazmat import pull_quic_header

from actors.transport.peer_policy import PeerPolicy
from actors.transport.quic.closing_state import ClosingState
from actors.transport.quic.engine import Address, Closed, Established, Event, StreamCredit
from actors.transport.quic.native_engine.closing import APPLICATION_ERROR, connection_close
from actors.transport.quic.native_engine.core import apply_parameters, install_keys, open_core
from actors.transport.quic.native_engine.first_flight import FirstFlight
from actors.transport.quic.native_engine.packets import PacketMaker, PacketNumberLost
from actors.transport.quic.native_engine.path_search import PathSearch
from actors.transport.quic.native_engine.paths import PeerAddresses
from actors.transport.quic.native_engine.send import SendQueue
from actors.transport.quic.native_engine.tls import (
    VERSION_1,
    CidSet,
    HandshakeFailed,
    PacketKeys,
    TlsDriver,
)
from actors.transport.quic.settings import QuicSettings
from actors.transport.tls import TlsIdentity

CID_LENGTH = 8
_SMALLEST_INITIAL = 1200
_INITIAL_SPACE, APPLICATION_SPACE = 0, 2
INITIAL_EPOCH, _APPLICATION_EPOCH = 0, 3
_LONG_HEADER = 0x80
_TAG_BYTES = 16
#: CRYPTO_ERROR with the alert of that name (RFC 9001 section 4.8, RFC 8446 section 6).
_UNEXPECTED_MESSAGE = 0x100 + 10


class NativeHandshake(ABC):
    """The part of `NativeEngine` that ends with `Established`; see there for the arguments."""

    #: Of our connection ids, bytes.
    cid_length = CID_LENGTH

    def __init__(
        self,
        settings: QuicSettings,
        identity: TlsIdentity,
        alpn: tuple[str, ...],
        *,
        client: bool,
        peer_policy: PeerPolicy,
        server_name: str | None,
        original_destination_cid: bytes | None,
        retry_source_cid: bytes | None,
        reset_token: Callable[[bytes], bytes] | None,
    ) -> None:
        self._settings = settings
        self._client = client
        original = original_destination_cid or os.urandom(CID_LENGTH)
        self._cids = CidSet(os.urandom(self.cid_length), original, retry_source_cid)
        token = None
        if not client:
            token = reset_token(self._cids.ours) if reset_token else os.urandom(16)
        #: None once a server's handshake is complete: nothing of TLS follows, and it is large.
        self._tls: TlsDriver | None = TlsDriver(
            settings,
            identity,
            alpn,
            self._cids,
            client=client,
            peer_policy=peer_policy,
            server_name=server_name,
            reset_token=token,
        )
        self._core: Any = None
        self._addresses: PeerAddresses | None = None
        #: Makes the packets that carry stream credit; None before the 1-RTT keys.
        self._packets: PacketMaker | None = None
        self._sending = SendQueue(client, settings.max_datagram)
        self._established = False
        #: The peer has the 1-RTT keys, for certain (RFC 9001 section 4.1.2).
        self._confirmed = False
        self._farewell: ClosingState | None = None
        self._parameters_applied = False
        #: max_datagram_frame_size of the peer.
        self._datagram_frame: int | None = None
        self._closed_reported = False
        self._terminated = False
        self._events: list[Event] = []
        #: Servers, until the handshake is complete: opens what goes to the client's choice of id.
        self._initials = (
            None if client else FirstFlight(retry_source_cid or original, self._cids.ours)
        )
        #: CRYPTO bytes of a client's first flight, to be sent again after a Retry.
        self._first_flight: list[tuple[int, int, bytes]] = []
        self._flight_datagrams = 0
        self._datagrams_sent = 0
        #: A second core takes over when the size of datagrams is known (see `succession`). 1-RTT
        #: packets of the first are not sent, and what the second will need is kept: the keys, what
        #: the first was told, the parameters of the peer.
        self._succeeded = not client and settings.max_probed > settings.max_datagram
        self._one_rtt: list[PacketKeys] = []
        self._told: list[tuple[str, tuple[Any, ...]]] = []
        self._parameters: QuicTransportParameters | None = None
        self._search: PathSearch | None = None

    @property
    def source_cid(self) -> bytes:
        """Our first connection id."""
        return self._cids.ours

    def connect(self, address: Address, now: float) -> None:
        """Begin as a client."""
        assert self._tls is not None
        self._create_core(address, self._cids.original, now)
        self._tls.start()
        self._advance_handshake()

    @abstractmethod
    def _pump(self) -> None:
        """Take events out of the core."""

    @abstractmethod
    def _take(self, native: tuple[Any, ...]) -> None:
        """Take one event of the core."""

    @abstractmethod
    def _begin_search(self) -> None:
        """A server's handshake is complete."""

    @abstractmethod
    def _hear_in_search(
        self, packet: bytes, address: Address, now: float, datagram_bytes: int
    ) -> None:
        """A packet behind the one that completed the handshake."""

    def _create_core(self, address: Address, peer_cid: bytes, now: float) -> None:
        self._addresses = PeerAddresses(address, now)
        self._core = open_core(
            self._settings, self._cids, peer_cid, address, now, client=self._client
        )

    def _name(self, address: Address, now: float) -> Address:
        assert self._addresses is not None
        return self._addresses.name(address, now)

    def _receive_first(self, data: bytes, address: Address, now: float) -> None:
        """A datagram before the handshake is complete."""
        if self._terminated or not data:
            return
        if self._core is None and (
            self._client or self._closed_reported or len(data) < _SMALLEST_INITIAL
        ):
            return
        if self._client and data[0] & _LONG_HEADER and self._receive_retry(data, address, now):
            return
        # Packet by packet: TLS has to make the keys for the next packet of the datagram.
        offset = 0
        while offset < len(data):
            try:
                header = pull_quic_header(data, offset, self.cid_length)
            except ValueError:
                return
            end = max(header[9], offset + 1)
            if self._search is not None:
                self._hear_in_search(data[offset:end], address, now, len(data))
            else:
                self._receive_packet(data[offset:end], header, len(data), address, now)
            offset = end

    def _receive_packet(
        self,
        packet: bytes,
        header: tuple[Any, ...],
        datagram_bytes: int,
        address: Address,
        now: float,
    ) -> None:
        cids, source = self._cids, header[4]
        long = packet[0] & _LONG_HEADER
        if long and cids.peers is not None and source != cids.peers:
            return  # the peer's id does not change in the handshake (RFC 9000 section 7.2)
        if self._initials is not None:
            readdressed = self._initials.readdress(packet, header, first=self._core is None)
            if readdressed is None:
                return
            packet = readdressed
            if self._core is None:
                cids.peers = source
                self._create_core(address, source, now)
                for keys in self._initials.initial_keys():
                    install_keys(self._core, keys)
        report = self._core.receive_datagram(packet, self._name(address, now), now, datagram_bytes)
        if cids.peers is None and report[2] and long:
            # The packet was authentic: this is the id that the parameters must name.
            cids.peers = source
        self._pump()

    def _receive_retry(self, data: bytes, address: Address, now: float) -> bool:
        """True when this was a Retry; a valid one starts the handshake again."""
        try:
            header = parse_header(Buffer(data=data), host_cid_length=self.cid_length)
        except ValueError:
            return True
        if header.packet_type is not QuicPacketType.RETRY:
            return False
        cids = self._cids
        tag = get_retry_integrity_tag(data[:-_TAG_BYTES], cids.original, VERSION_1)
        if (
            self._core.received_authenticated_packet
            or cids.retry is not None
            or header.version != VERSION_1
            or header.destination_cid != cids.ours
            or not hmac.compare_digest(data[-_TAG_BYTES:], tag)
        ):
            return True
        cids.retry = header.source_cid
        self._create_core(address, header.source_cid, now)
        self._core.set_initial_token(header.token)
        self._core.restore_send_packet_number(_INITIAL_SPACE, self._datagrams_sent)
        for epoch, offset, piece in self._first_flight:
            self._core.send_crypto(epoch, offset, piece)
        return True

    def _without_bare_probes(
        self, datagrams: list[tuple[bytes, Address]]
    ) -> list[tuple[bytes, Address]]:
        """A client's first flight, and its repetitions, without what follows the ClientHello.

        A probe timeout makes the core repeat the ClientHello and then send a PING alone, which a
        server that sees it first refuses (RFC 9000 section 17.2.2).
        """
        if self._core.received_authenticated_packet:
            return datagrams
        self._flight_datagrams = self._flight_datagrams or len(datagrams)
        return datagrams[: self._flight_datagrams]

    def _take_crypto(self, data: bytes) -> None:
        """CRYPTO bytes of the peer, in order."""
        try:
            if self._tls is None:
                raise HandshakeFailed(_UNEXPECTED_MESSAGE, "TLS message after the handshake")
            self._tls.receive(data)
        except HandshakeFailed as failure:
            self._close_core(failure.code, failure.frame_type, failure.text.encode())
            self._report_closed(Closed(failure.code, False, failure.text, peer=False, idle=False))
            return
        if not self._closed_reported:
            self._advance_handshake()
            if self._established and not self._client:
                self._initials = None
                self._drop_tls()

    def _drop_tls(self) -> None:
        driver, self._tls = self._tls, None
        if driver is not None:
            driver.release()

    def release(self) -> None:
        self._drop_tls()
        self._core = self._packets = self._initials = self._search = None
        self._one_rtt.clear()

    def _advance_handshake(self) -> None:
        """Carry what TLS made into the core."""
        core, driver = self._core, self._tls
        assert driver is not None
        for keys in driver.take_keys():
            install_keys(core, keys)
            if self._succeeded and keys.epoch == _APPLICATION_EPOCH:
                self._one_rtt.append(keys)
            if keys.epoch == _APPLICATION_EPOCH and keys.direction == "send":
                advance = partial(core.restore_send_packet_number, APPLICATION_SPACE)
                self._packets = PacketMaker(keys, self._cids.peers or b"", advance)
        for piece in driver.take_outgoing():
            if self._client and piece.epoch == INITIAL_EPOCH:
                self._first_flight.append(piece)
            core.send_crypto(piece.epoch, piece.offset, piece.data)
        parameters = driver.parameters
        if parameters is not None and not self._parameters_applied:
            self._parameters_applied = True
            self._parameters = parameters
            apply_parameters(core, parameters)
            self._sending.peer_limits(
                parameters.initial_max_data or 0,
                parameters.initial_max_stream_data_bidi_remote or 0,
                parameters.initial_max_stream_data_bidi_local or 0,
                parameters.max_udp_payload_size,
            )
            self._datagram_frame = parameters.max_datagram_frame_size
            if parameters.initial_max_streams_bidi:
                self._events.append(StreamCredit())
        if driver.complete and not self._established:
            self._established = True
            self._confirmed = not self._client
            if self._succeeded:
                self._begin_search()
            else:
                core.handshake_complete()
            self._first_flight.clear()
            self._events.append(Established(driver.chain, driver.alpn))

    def _close_core(self, code: int, frame_type: int | None, reason: bytes) -> None:
        """Queue a CONNECTION_CLOSE that the peer can read, however far its handshake is.

        Without a `frame_type` it is the application's.
        """
        core, packets = self._core, self._packets
        if packets is not None and not self._confirmed:
            if self._client:
                packets.begin(self._datagrams_sent)
            if packets.ready:
                with suppress(PacketNumberLost):
                    packet = packets.packet(connection_close(code, frame_type, reason))
                    self._farewell = ClosingState([(packet, core.active_path[2])], sent=False)
            self._packets = None
            core.discard_keys(_APPLICATION_EPOCH)  # the Handshake keys are the newest now
            if frame_type is None:
                code, frame_type, reason = APPLICATION_ERROR, 0, b""
        core.close(code, frame_type, reason)

    def _report_closed(self, closed: Closed) -> None:
        self._search = None
        if not self._closed_reported:
            self._closed_reported = True
            self._events.append(closed)
