"""STUN messages and channel data on one byte stream (RFC 8656 section 3.5).

On a stream channel data is padded to four bytes; the padding is not counted in its length.
"""

from __future__ import annotations

from wire.stun.address import COOKIE
from wire.stun.errors import StunError
from wire.stun.message import HEADER_BYTES


class Frames:
    """Cuts a stream into frames; holds at most one that is incomplete, 64 KiB."""

    __slots__ = ("_held",)

    def __init__(self) -> None:
        self._held = b""

    def receive(self, data: bytes) -> list[memoryview]:
        """Frames that are complete now, channel data with its head and without padding.

        Raises:
            StunError: this is neither; nothing that follows can be read.
        """
        held = self._held + data if self._held else data
        view = memoryview(held)
        frames: list[memoryview] = []
        at, size = 0, len(held)
        while size - at >= 4:
            length = held[at + 2] << 8 | held[at + 3]
            kind = held[at] & 0xC0
            if kind == 0x40:
                end, next_at = at + 4 + length, at + 4 + length + (-length & 3)
            elif kind == 0:
                if length % 4:
                    raise StunError("length", f"{length} is no multiple of 4")
                there = held[at + 4 : at + 8]
                if there != COOKIE[: len(there)]:
                    raise StunError("cookie")
                end = next_at = at + HEADER_BYTES + length
            else:
                raise StunError("first_bits")
            if next_at > size:
                break
            frames.append(view[at:end])
            at = next_at
        self._held = held[at:]
        return frames

    @property
    def rest(self) -> bytes:
        """What is no complete frame yet."""
        return self._held
