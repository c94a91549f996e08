"""What waits for one client whose kernel takes nothing.

Messages of ours go first, and are few; those of other peers are bounded in bytes and in number, and
newer ones are dropped: a slow client slows nobody.

Source: protocol sheet peer 9 W2.
"""

from __future__ import annotations

from collections import deque
from typing import Final

#: Messages of ours that may wait; a client that lets more wait is gone.
MAX_CONTROL: Final = 1024
#: Bytes handed over at a time, so that messages of ours do not wait for all.
BATCH: Final = 64 * 1024


class Outbox:
    """What waits for one client whose kernel takes nothing.

    Args:
        most_bytes, most_messages: of other peers.

    Attributes:
        bytes: of other peers.
    """

    __slots__ = ("_control", "_data", "_most_bytes", "_most_messages", "bytes")

    def __init__(self, most_bytes: int, most_messages: int) -> None:
        self._most_bytes = most_bytes
        self._most_messages = most_messages
        self._control: deque[bytes] = deque()
        self._data: deque[bytes] = deque()
        self.bytes = 0

    def __bool__(self) -> bool:
        return bool(self._control or self._data)

    def put_control(self, frame: bytes) -> bool:
        """A frame of ours. False: there are too many."""
        self._control.append(frame)
        return len(self._control) <= MAX_CONTROL

    def has_room(self, size: int) -> bool:
        """True when a frame of so many bytes may be added."""
        return len(self._data) < self._most_messages and self.bytes + size <= self._most_bytes

    def add(self, frame: bytes) -> None:
        """A frame of another peer."""
        self._data.append(frame)
        self.bytes += len(frame)

    def take(self) -> list[bytes]:
        """What goes next: all frames of ours, and some of the others."""
        taken = list(self._control)
        self._control.clear()
        room = BATCH
        while self._data and room > 0:
            frame = self._data.popleft()
            self.bytes -= len(frame)
            room -= len(frame)
            taken.append(frame)
        return taken

    def clear(self) -> None:
        """Nobody wants it any more."""
        self._control.clear()
        self._data.clear()
        self.bytes = 0
