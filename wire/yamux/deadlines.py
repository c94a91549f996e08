"""Deadlines that all lie equally far ahead, so that they expire in the order they were set."""

from __future__ import annotations


class Deadlines:
    """One kind of deadline, by stream; bound: the streams of the session.

    Args:
        delay: seconds; 0: there are none.
    """

    __slots__ = ("_delay", "_until")

    def __init__(self, delay: float) -> None:
        self._delay = delay
        self._until: dict[int, float] = {}

    def set(self, stream_id: int, now: float) -> None:
        """From now on, unless it runs already."""
        if self._delay:
            self._until.setdefault(stream_id, now + self._delay)

    def clear(self, stream_id: int) -> None:
        """What was waited for came, or the stream is gone."""
        self._until.pop(stream_id, None)

    @property
    def next(self) -> float | None:
        """When the first expires; None: never."""
        return next(iter(self._until.values()), None)

    def expired(self, now: float) -> list[int]:
        """The streams whose time is over; each is named once."""
        over: list[int] = []
        for stream_id, until in self._until.items():
            if until > now:
                break
            over.append(stream_id)
        for stream_id in over:
            del self._until[stream_id]
        return over
