"""Congestion control and pacing of the aioquic engine.

The library's New Reno (1.7) grows its window while the window is not used, which RFC 9002 section
7.8 forbids: on a fast path it reaches many times what is ever in flight. Its pacer then spaces
packets by less than its own resolution, with a bucket of about one packet, so that a busy relay
sends one packet per turn of the event loop. Here the window stays within twice of what was used,
as Linux does it for TCP, and the bucket is never smaller than a burst that a timer can space.

Uses the library's private parts; `tests/transport/test_aioquic_shape.py` fails when they change.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from aioquic.quic.congestion.base import register_congestion_control
from aioquic.quic.congestion.reno import RenoCongestionControl
from aioquic.quic.packet_builder import QuicSentPacket
from aioquic.quic.recovery import QuicPacketPacer

#: For `QuicConfiguration.congestion_control_algorithm`.
ALGORITHM: Final = "used-reno"
#: A bucket holds what a millisecond carries (timers are no finer), up to as many datagrams as
#: one system call sends.
BURST_SECONDS: Final = 0.001
BURST_DATAGRAMS: Final = 64


class UsedReno(RenoCongestionControl):
    """New Reno whose window grows only while it is used."""

    def __init__(self, *, max_datagram_size: int) -> None:
        super().__init__(max_datagram_size=max_datagram_size)
        #: Packets declared lost, and acknowledged ones that are larger than the first ones may be.
        self.lost = 0
        self.acknowledged_large = 0
        #: Most bytes in flight within this round trip and the one before.
        self._most = self._most_before = 0
        #: Packets sent later are of the next round trip.
        self._round_began = 0.0

    def on_packet_sent(self, *, packet: QuicSentPacket) -> None:
        super().on_packet_sent(packet=packet)
        self._most = max(self._most, self.bytes_in_flight)

    def on_packet_acked(self, *, now: float, packet: QuicSentPacket) -> None:
        """See the library; the window does not grow beyond twice of what was used."""
        if packet.sent_time is not None and packet.sent_time > self._round_began:
            self._round_began = now
            self._most_before, self._most = self._most, self.bytes_in_flight
        if packet.sent_bytes > self._max_datagram_size:
            self.acknowledged_large += 1
        before = self.congestion_window
        super().on_packet_acked(now=now, packet=packet)
        if before >= 2 * max(self._most, self._most_before):
            self.congestion_window = min(self.congestion_window, before)

    def on_packets_lost(self, *, now: float, packets: Iterable[QuicSentPacket]) -> None:
        lost = list(packets)
        self.lost += len(lost)
        super().on_packets_lost(now=now, packets=lost)


class Pacer(QuicPacketPacer):
    """The library's pacer, with bursts that a timer can space."""

    def update_rate(self, congestion_window: int, smoothed_rtt: float) -> None:
        super().update_rate(congestion_window, smoothed_rtt)
        if self.packet_time is not None:
            burst = min(BURST_SECONDS, BURST_DATAGRAMS * self.packet_time)
            self.bucket_max = max(self.bucket_max, burst)


register_congestion_control(ALGORITHM, UsedReno)
