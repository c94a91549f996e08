"""What the native engine has delivered and nobody has consumed yet, and when that is too much.

The packet core gives the peer credit when an event is taken out of it. So nothing is taken out
while `held` is true; see `native_engine` for what that means for the peer and for other streams.
"""

from __future__ import annotations


class ReceiveCredit:
    """Byte counts of one connection.

    Args:
        stream_limit: most unconsumed bytes of one stream before a hold.
        connection_limit: the same for all streams together.
    """

    __slots__ = ("_connection_limit", "_stalled", "_stream_limit", "_streams", "_total")

    def __init__(self, stream_limit: int, connection_limit: int) -> None:
        self._stream_limit = stream_limit
        self._connection_limit = connection_limit
        self._streams: dict[int, int] = {}
        self._stalled: set[int] = set()
        self._total = 0

    @property
    def held(self) -> bool:
        """True while a limit is exceeded."""
        return bool(self._stalled) or self._total > self._connection_limit

    @property
    def unconsumed(self) -> int:
        """Delivered and unconsumed bytes of all streams."""
        return self._total

    def delivered(self, stream_id: int, count: int) -> None:
        """Bytes were taken out of the core."""
        held = self._streams.get(stream_id, 0) + count
        self._streams[stream_id] = held
        self._total += count
        if held > self._stream_limit:
            self._stalled.add(stream_id)

    def consumed(self, stream_id: int, count: int) -> None:
        """Their reader is through with `count` bytes; more than there are counts as all."""
        held = self._streams.get(stream_id, 0)
        left = max(0, held - count)
        self._total -= held - left
        if left:
            self._streams[stream_id] = left
        else:
            self._streams.pop(stream_id, None)
        if left <= self._stream_limit:
            self._stalled.discard(stream_id)

    def settled(self, stream_id: int) -> None:
        """Nobody will read what is left."""
        self.consumed(stream_id, self._streams.get(stream_id, 0))
