"""Incremental splitting of a byte stream into lines, with a bound.

Knows nothing of JSON. The buffer never holds more than one unfinished line of at most
`max_bytes` bytes; what a single call delivers beyond that is the caller's read size.
"""

from __future__ import annotations

from wire.admin.errors import LineTooLong
from wire.admin.limits import MAX_LINE_BYTES

NEWLINE = 0x0A


class LineReader:
    """Collects bytes and gives back complete lines, without their newline.

    After `LineTooLong` the reader is spent: the stream has no known boundary any more.
    """

    __slots__ = ("_buffer", "_max", "_scanned")

    def __init__(self, max_bytes: int = MAX_LINE_BYTES) -> None:
        self._buffer = bytearray()
        self._max = max_bytes
        self._scanned = 0

    @property
    def pending(self) -> int:
        """Bytes of the unfinished line held back."""
        return len(self._buffer)

    def receive(self, data: bytes | bytearray | memoryview) -> list[bytes]:
        """Take bytes in; returns the lines they complete, empty lines left out.

        The caller keeps `data`; nothing refers to it afterwards.

        Raises:
            LineTooLong: a line, finished or not, is longer than the limit. Lines before it in
                the same call are lost with the connection.
        """
        buffer = self._buffer
        buffer += data
        lines: list[bytes] = []
        start = 0
        while True:
            end = buffer.find(NEWLINE, max(start, self._scanned))
            if end < 0:
                break
            if end - start > self._max:
                raise LineTooLong(f"a line of {end - start} bytes, limit {self._max}")
            line = bytes(buffer[start:end]).strip(b"\r \t")
            if line:
                lines.append(line)
            start = end + 1
            self._scanned = start
        if start:
            del buffer[:start]
        self._scanned = len(buffer)
        if self._scanned > self._max:
            raise LineTooLong(f"a line of more than {self._scanned} bytes, limit {self._max}")
        return lines
