"""Cuts a byte stream into headers and pieces of payload, however it arrives.

Payload is handed on as it comes: a frame may be larger than any buffer, and is never waited for.
"""

from __future__ import annotations

from wire.yamux.errors import YamuxError
from wire.yamux.frame import HEADER, HEADER_BYTES, VERSION, FrameType


class FrameParser:
    """Feed it with `feed`, then call `next_header` and `payload` in turn until both give nothing.

    Attributes:
        pending: payload bytes of the present DATA frame still to come.
    """

    __slots__ = ("_data", "_partial", "_position", "pending")

    def __init__(self) -> None:
        self._partial = b""  # of a header; at most HEADER_BYTES - 1
        self._data = b""
        self._position = 0
        self.pending = 0

    def feed(self, data: bytes) -> None:
        """More bytes, behind what was not used yet."""
        if self._position < len(self._data):
            if not data:
                return
            data = self._data[self._position :] + data
        self._data = self._partial + data if self._partial else data
        self._partial = b""
        self._position = 0

    def payload(self) -> bytes:
        """What is there of the present frame's payload."""
        if not self.pending:
            return b""
        start = self._position
        end = min(start + self.pending, len(self._data))
        self._position = end
        self.pending -= end - start
        return self._data[start:end]

    def next_header(self) -> tuple[int, int, int, int] | None:
        """Type, flags, stream id and length; None: it is not complete.

        For DATA the caller sets `pending` to the length.

        Raises:
            YamuxError: version or type is unknown.
        """
        start = self._position
        if len(self._data) - start < HEADER_BYTES:
            self._partial = self._data[start:]
            self._data = b""
            self._position = 0
            return None
        version, frame_type, flags, stream_id, length = HEADER.unpack_from(self._data, start)
        self._position = start + HEADER_BYTES
        if version != VERSION:
            raise YamuxError("bad_version", f"version {version}, expected {VERSION}")
        if frame_type > FrameType.GO_AWAY:
            raise YamuxError("bad_type", f"frame type {frame_type}, at most {FrameType.GO_AWAY}")
        return frame_type, flags, stream_id, length
