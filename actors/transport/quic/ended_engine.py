"""What stands in a connection's engine's place once that was let go of."""

from __future__ import annotations

from collections.abc import Sequence

from actors.transport.quic.engine import Address, Engine, Event, PathStatistics


class EndedEngine:
    """`Engine` of a connection that is over: it remembers the last figures, and does nothing.

    Whoever still holds the connection, for its address or counters, holds no buffers with it.
    """

    terminated = True

    def __init__(self, engine: Engine) -> None:
        self.name = engine.name
        self.source_cid = engine.source_cid
        self.peer_address = engine.peer_address
        self.round_trip = engine.round_trip
        self.path: PathStatistics = engine.path

    def connect(self, address: Address, now: float) -> None:
        """Nothing."""

    def receive(self, data: bytes, address: Address, now: float) -> None:
        """Nothing."""

    def receive_many(self, datagrams: Sequence[bytes], address: Address, now: float) -> None:
        """Nothing."""

    def receive_segments(self, buffer: bytes, size: int, address: Address, now: float) -> None:
        """Nothing."""

    def take_stateless_reset(self, data: bytes, address: Address, now: float) -> bool:
        """It is over already."""
        return False

    def events(self) -> list[Event]:
        """None."""
        return []

    def transmit(self, now: float) -> list[tuple[bytes, Address]]:
        """Nothing."""
        return []

    def next_timer(self) -> float | None:
        """None."""
        return None

    def handle_timer(self, now: float) -> None:
        """Nothing."""

    def ping(self) -> None:
        """Nothing."""

    @property
    def streams_allowed(self) -> int:
        """None."""
        return 0

    def open_stream(self) -> int | None:
        """None."""
        return None

    def write(self, stream_id: int, data: bytes | bytearray | memoryview, *, end: bool) -> None:
        """Nothing."""

    def reset(self, stream_id: int, code: int) -> None:
        """Nothing."""

    def stop_sending(self, stream_id: int, code: int) -> None:
        """Nothing."""

    def consume(self, stream_id: int, count: int) -> bool:
        """Nothing."""
        return False

    def release_credit(self, stream_id: int) -> None:
        """Nothing."""

    def forget(self, stream_id: int) -> None:
        """Nothing."""

    def backlog(self, stream_id: int) -> int:
        """None."""
        return 0

    largest_datagram = datagram_room = 0

    def send_datagram(self, data: bytes) -> None:
        """Nothing."""

    def close(self, code: int, text: str, *, application: bool) -> None:
        """Nothing."""

    def release(self) -> None:
        """Nothing."""
