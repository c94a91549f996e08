"""Bytes of one stream that came together, as one event.

Peers send their streams in turn, a packet each, so the packet core hands out as many pieces as
there were packets. All who see a stream's bytes after that pay per piece.
"""

from __future__ import annotations

from actors.transport.quic.engine import Data

#: Longest event; what the core joins itself is no longer either.
MAX_BYTES = 64 * 1024


class _Gathered:
    """A `Data` that grows until it is handed out."""

    __slots__ = ("event", "pieces", "size")

    def __init__(self, event: Data, size: int) -> None:
        self.event = event
        self.pieces = [event.data]
        self.size = size

    def settle(self) -> None:
        if len(self.pieces) > 1:
            self.event.data = b"".join(self.pieces)


class Gathering:
    """The newest `Data` of every stream, until `settle`."""

    __slots__ = ("_open",)

    def __init__(self) -> None:
        self._open: dict[int, _Gathered] = {}

    def take(self, stream_id: int, data: bytes, size: int, *, end: bool) -> Data | None:
        """`size` bytes, and the stream's end if `end`. None: they are in an earlier event."""
        gathered = self._open.get(stream_id)
        if gathered is not None:
            if gathered.size + size <= MAX_BYTES:
                gathered.size += size
                gathered.pieces.append(data)
                gathered.event.end = end
                return None
            gathered.settle()
        event = Data(stream_id, data, end)
        self._open[stream_id] = _Gathered(event, size)
        return event

    def settle(self) -> None:
        """The events are complete."""
        for gathered in self._open.values():
            gathered.settle()
        self._open.clear()
