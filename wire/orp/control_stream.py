"""The ctrl stream as both sessions see it: frames in, bytes out, counters, one deadline.

Knows neither messages nor states. Holds at most one unfinished frame (8 bytes and 64 KiB) and the
bytes its owner has not taken yet.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from wire.orp.errors import FrameTimeout, SessionMisuse
from wire.orp.frame import Frame, FrameReader
from wire.orp.limits import FRAME_TIMEOUT_SECONDS, MAX_CTRL_PAYLOAD_BYTES, MAX_UNTAKEN_BYTES


class ControlStatistics(NamedTuple):
    """Counters since the session began."""

    bytes_received: int  #: everything fed, including what came after the session closed
    bytes_sent: int  #: everything handed out by `data_to_send`
    bytes_pending: int  #: of an unfinished frame, now
    frames_received: int  #: complete frames, including skipped ones
    frames_skipped: int  #: of an unknown type, or of one that has no meaning here
    frames_irregular: int  #: with another version, reserved bits or flags; handled as usual
    frames_dropped: int  #: outgoing, refused because too many bytes were held back


class ControlStream:
    """Frame reader and outgoing bytes of one ctrl stream.

    `now` is in seconds of any monotonic clock.
    """

    __slots__ = (
        "_bytes_received",
        "_bytes_sent",
        "_frames_irregular",
        "_frames_received",
        "_outgoing",
        "_reader",
        "frame_deadline",
        "frames_dropped",
        "frames_skipped",
    )

    def __init__(self) -> None:
        self._reader = FrameReader(MAX_CTRL_PAYLOAD_BYTES)
        # Bound: MAX_UNTAKEN_BYTES plus what one chunk causes: no more than its own length (relay)
        # or the queued REGISTERs (agent). Overflow: SessionMisuse, because the owner takes the
        # bytes after each call.
        self._outgoing = bytearray()
        self._bytes_received = 0
        self._bytes_sent = 0
        self._frames_received = 0
        self._frames_irregular = 0
        self.frames_skipped = 0
        self.frames_dropped = 0
        #: When the unfinished frame must be complete; None at a frame border.
        self.frame_deadline: float | None = None

    def frames(self, chunk: bytes | bytearray | memoryview, now: float) -> Iterator[Frame]:
        """The frames that `chunk` completes. Exhaust it, or never call it again.

        Raises:
            FrameTooLarge: see `FrameReader.next_frame`.
        """
        self._bytes_received += len(chunk)
        self._reader.feed(chunk)
        for frame in self._reader:
            self._frames_received += 1
            self._frames_irregular += frame.irregular
            self.frame_deadline = None  # whatever follows is another frame, begun now
            yield frame
        if not self._reader.pending:
            self.frame_deadline = None
        elif self.frame_deadline is None:
            self.frame_deadline = now + FRAME_TIMEOUT_SECONDS

    def ignore(self, chunk: bytes | bytearray | memoryview) -> None:
        """Count bytes that came after the session closed."""
        self._bytes_received += len(chunk)

    def end(self) -> None:
        """The stream ended; raises `TruncatedFrame` when that happened inside a frame."""
        self._reader.eof()

    def check_frame_deadline(self, now: float) -> None:
        """Raises `FrameTimeout` when the unfinished frame is overdue."""
        if self.frame_deadline is not None and now >= self.frame_deadline:
            pending = self._reader.pending
            raise FrameTimeout(f"{pending} bytes of a frame after {FRAME_TIMEOUT_SECONDS:g} s")

    def answer(self, data: bytes) -> None:
        """Queue what a received frame causes; never refused, or a peer could make us fail."""
        self._outgoing += data

    def send(self, data: bytes) -> None:
        """Queue bytes the owner wants sent.

        Raises:
            SessionMisuse: more than MAX_UNTAKEN_BYTES wait for `data_to_send`.
        """
        if len(self._outgoing) + len(data) > MAX_UNTAKEN_BYTES:
            raise SessionMisuse(f"{len(self._outgoing)} bytes not taken by data_to_send")
        self._outgoing += data

    def data_to_send(self) -> bytes:
        """The bytes to write to the ctrl stream now, in order; empties the queue."""
        data = bytes(self._outgoing)
        self._outgoing.clear()
        self._bytes_sent += len(data)
        return data

    def statistics(self) -> ControlStatistics:
        """A snapshot of the counters."""
        return ControlStatistics(
            bytes_received=self._bytes_received,
            bytes_sent=self._bytes_sent,
            bytes_pending=self._reader.pending,
            frames_received=self._frames_received,
            frames_skipped=self.frames_skipped,
            frames_irregular=self._frames_irregular,
            frames_dropped=self.frames_dropped,
        )
