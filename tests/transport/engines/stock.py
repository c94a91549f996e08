"""A stock aioquic client behind the seam: nothing of ours but the translation of events."""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable, Sequence

from aioquic.quic import events as quic
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection

from actors.transport.peer_policy import PeerPolicy
from actors.transport.quic.engine import (
    Address,
    CidIssued,
    CidRetired,
    Closed,
    Data,
    Datagrams,
    Engine,
    Established,
    Event,
    PathStatistics,
    Reset,
    StopSending,
)
from actors.transport.quic.settings import QuicSettings
from actors.transport.tls import TlsIdentity


class StockClient:
    """`Engine` over an unmodified `QuicConnection`; credit is the library's own."""

    name = "stock"

    def __init__(
        self,
        settings: QuicSettings,
        identity: TlsIdentity | None,
        alpn: tuple[str, ...],
        *,
        cid_length: int = 8,
        first_cid_length: int = 8,
    ) -> None:
        configuration = QuicConfiguration(
            is_client=True,
            alpn_protocols=list(alpn),
            connection_id_length=cid_length,
            idle_timeout=settings.idle_timeout,
            max_data=settings.connection_window,
            max_stream_data=settings.stream_window,
            max_datagram_frame_size=settings.max_datagram_frame or None,
            max_datagram_size=settings.max_datagram,
            server_name="localhost",
            verify_mode=ssl.CERT_NONE,
        )
        if identity is not None:
            configuration.certificate = identity.chain[0]
            configuration.certificate_chain = list(identity.chain[1:])
            configuration.private_key = identity.key
        self.quic = QuicConnection(configuration=configuration)
        # The library makes it as long as its own ids (RFC 9000 section 7.2: at least 8 bytes).
        self.quic._peer_cid.cid = os.urandom(first_cid_length)
        self.quic._original_destination_connection_id = self.quic._peer_cid.cid
        if not cid_length:
            # The library would issue more ids of length zero, which no peer may accept.
            self.quic._replenish_connection_ids = lambda: None  # type: ignore[method-assign]

    @property
    def source_cid(self) -> bytes:
        return bytes(self.quic.host_cid)

    @property
    def peer_address(self) -> Address | None:
        return None

    @property
    def round_trip(self) -> float:
        return 0.0

    @property
    def path(self) -> PathStatistics:
        return PathStatistics(0, 0, -1)

    @property
    def terminated(self) -> bool:
        return False

    def connect(self, address: Address, now: float) -> None:
        self.quic.connect(address, now=now)

    def receive(self, data: bytes, address: Address, now: float) -> None:
        self.quic.receive_datagram(data, address, now=now)

    def receive_many(self, datagrams: Sequence[bytes], address: Address, now: float) -> None:
        for data in datagrams:
            self.receive(data, address, now)

    def receive_segments(self, buffer: bytes, size: int, address: Address, now: float) -> None:
        for start in range(0, len(buffer), size):
            self.receive(buffer[start : start + size], address, now)

    def take_stateless_reset(self, data: bytes, address: Address, now: float) -> bool:
        return False

    def events(self) -> list[Event]:
        result: list[Event] = []
        while (event := self.quic.next_event()) is not None:
            match event:
                case quic.StreamDataReceived():
                    result.append(Data(event.stream_id, event.data, event.end_stream))
                case quic.DatagramFrameReceived():
                    result.append(Datagrams([event.data]))
                case quic.StreamReset():
                    result.append(Reset(event.stream_id, event.error_code))
                case quic.StopSendingReceived():
                    result.append(StopSending(event.stream_id, event.error_code))
                case quic.ConnectionIdIssued():
                    result.append(CidIssued(event.connection_id))
                case quic.ConnectionIdRetired():
                    result.append(CidRetired(event.connection_id))
                case quic.HandshakeCompleted():
                    result.append(Established([], event.alpn_protocol or ""))
                case quic.ConnectionTerminated():
                    result.append(
                        Closed(
                            event.error_code,
                            event.frame_type is None,
                            event.reason_phrase,
                            peer=True,
                            idle=event.reason_phrase == "Idle timeout",
                        )
                    )
        return result

    def transmit(self, now: float) -> list[tuple[bytes, Address]]:
        return self.quic.datagrams_to_send(now=now)

    def next_timer(self) -> float | None:
        return self.quic.get_timer()

    def handle_timer(self, now: float) -> None:
        self.quic.handle_timer(now=now)

    def ping(self) -> None:
        self.quic.send_ping(1)

    @property
    def streams_allowed(self) -> int:
        return self.quic._remote_max_streams_bidi

    def open_stream(self) -> int | None:
        stream_id = self.quic.get_next_available_stream_id()
        self.quic.send_stream_data(stream_id, b"")
        return stream_id

    def write(self, stream_id: int, data: bytes | bytearray | memoryview, *, end: bool) -> None:
        self.quic.send_stream_data(stream_id, bytes(data), end_stream=end)

    def reset(self, stream_id: int, code: int) -> None:
        self.quic.reset_stream(stream_id, code)

    def stop_sending(self, stream_id: int, code: int) -> None:
        self.quic.stop_stream(stream_id, code)

    def consume(self, stream_id: int, count: int) -> bool:
        """The library gives credit on receipt."""
        return False

    def release_credit(self, stream_id: int) -> None:
        """As `consume`."""

    def forget(self, stream_id: int) -> None:
        """The library forgets by itself."""

    def finished(self, stream_id: int) -> bool:
        return True

    def backlog(self, stream_id: int) -> int:
        return 0

    @property
    def largest_datagram(self) -> int:
        return (
            self.quic._remote_max_datagram_frame_size or 0
        ) and self.quic._max_datagram_size - 40

    @property
    def datagram_room(self) -> int:
        return self.quic._loss.congestion_window

    def send_datagram(self, data: bytes) -> None:
        self.quic.send_datagram_frame(data)

    def release(self) -> None:
        """It holds nothing that outlives it."""

    def close(self, code: int, text: str, *, application: bool) -> None:
        self.quic.close(error_code=code, frame_type=None if application else 0, reason_phrase=text)


def stock_client(
    settings: QuicSettings,
    identity: TlsIdentity,
    alpn: tuple[str, ...],
    *,
    client: bool,
    peer_policy: PeerPolicy = PeerPolicy.MUTUAL,
    server_name: str | None = None,
    original_destination_cid: bytes | None = None,
    retry_source_cid: bytes | None = None,
    reset_token: Callable[[bytes], bytes] | None = None,
    cid_length: int = 8,
    first_cid_length: int = 8,
) -> Engine:
    """In the form of an `EngineMaker`."""
    assert client
    shown = identity if peer_policy.of_clients else None
    return StockClient(
        settings, shown, alpn, cid_length=cid_length, first_cid_length=first_cid_length
    )
