"""The aioquic engine's congestion window and pacer, driven by hand."""

from __future__ import annotations

from aioquic.quic.packet import QuicPacketType
from aioquic.quic.packet_builder import QuicSentPacket
from aioquic.tls import Epoch

from actors.transport.quic.aioquic_engine.congestion import BURST_SECONDS, Pacer, UsedReno

SIZE = 1200


class Path:
    """Round trips of a tenth of a second with so many packets each."""

    def __init__(self) -> None:
        self.control = UsedReno(max_datagram_size=SIZE)
        self.now = 1.0
        self._number = 0

    def round_trip(self, packets: int) -> list[QuicSentPacket]:
        sent = []
        for _ in range(packets):
            self._number += 1
            packet = QuicSentPacket(
                epoch=Epoch.ONE_RTT,
                in_flight=True,
                is_ack_eliciting=True,
                is_crypto_packet=False,
                packet_number=self._number,
                packet_type=QuicPacketType.ONE_RTT,
                sent_time=self.now,
                sent_bytes=SIZE,
            )
            self.control.on_packet_sent(packet=packet)
            sent.append(packet)
        self.now += 0.1
        return sent

    def acknowledge(self, packets: list[QuicSentPacket]) -> None:
        for packet in packets:
            self.control.on_packet_acked(now=self.now, packet=packet)


def test_a_window_that_is_used_doubles() -> None:
    path = Path()
    for _ in range(6):
        before = path.control.congestion_window
        path.acknowledge(path.round_trip(before // SIZE))
        assert path.control.congestion_window == 2 * before


def test_a_window_that_is_not_used_stays_within_twice_of_what_is() -> None:
    path = Path()
    path.acknowledge(path.round_trip(10))
    for _ in range(200):
        path.acknowledge(path.round_trip(20))
    assert path.control.congestion_window <= 2 * 20 * SIZE + SIZE


def test_it_grows_again_once_it_is_used() -> None:
    path = Path()
    for _ in range(20):
        path.acknowledge(path.round_trip(2))
    before = path.control.congestion_window
    for _ in range(3):
        path.acknowledge(path.round_trip(path.control.congestion_window // SIZE))
    assert path.control.congestion_window >= 6 * before


def test_losses_are_counted_and_halve_the_window() -> None:
    path = Path()
    path.control.on_packets_lost(now=path.now, packets=iter(path.round_trip(10)))
    assert path.control.lost == 10
    assert path.control.congestion_window == 5 * SIZE
    assert path.control.bytes_in_flight == 0


def test_a_fast_path_may_send_what_a_timer_can_space() -> None:
    pacer = Pacer(max_datagram_size=SIZE)
    pacer.update_rate(20_000_000, 0.001)
    sent = 0
    now = 1.0
    while pacer.next_send_time(now) is None:
        pacer.update_after_send(now)
        sent += 1
    assert sent >= 60
    # A slow path keeps the library's bursts.
    slow = Pacer(max_datagram_size=SIZE)
    slow.update_rate(10 * SIZE, 0.1)
    assert slow.bucket_max >= BURST_SECONDS
    sent = 0
    while slow.next_send_time(now) is None:
        slow.update_after_send(now)
        sent += 1
    assert sent <= 3
