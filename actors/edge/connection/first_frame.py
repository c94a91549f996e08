"""Reads the first frame of a data stream and hands the stream on.

It is a resource of the agent's connection, not an actor: it exists for a round trip, and ends in
exactly one of: the frame was read, the stream ended or failed, the deadline passed.
"""

from __future__ import annotations

from collections.abc import Callable

from actors.runtime import ActorSystem
from actors.transport.quota import Ticket
from actors.transport.stream import CloseReason, Stream
from wire.errors import PeerError
from wire.orp.close_codes import ResetCode
from wire.orp.frame import Frame, FrameReader
from wire.orp.limits import MAX_FIRST_FRAME_PAYLOAD_BYTES


class FirstFrame:
    """See the module docstring.

    Args:
        stream: not started yet; owned until `on_frame` takes it.
        deadline: seconds.
        on_frame: gets stream, frame, and the bytes that followed in the same chunk. Called with
            the stream paused; of the bytes read, only the frame's are consumed.
        on_failed: gets a counter label; the stream is finished already.
        ticket: given back at the end.
    """

    def __init__(
        self,
        system: ActorSystem,
        stream: Stream,
        deadline: float,
        on_frame: Callable[[FirstFrame, Frame, bytes], object],
        on_failed: Callable[[FirstFrame, str], object],
        ticket: Ticket,
    ) -> None:
        self.stream = stream
        self._reader = FrameReader(MAX_FIRST_FRAME_PAYLOAD_BYTES)
        self._on_frame = on_frame
        self._on_failed = on_failed
        self._ticket = ticket
        self._timers = system.timers
        self._timer = self._timers.after(deadline, lambda: self._fail("first_frame_timeout"))
        self._done = False

    def start(self, early: bytes = b"") -> None:
        """Begin to read.

        Args:
            early: delivered before, and not consumed.
        """
        stream = self.stream
        stream.on_data = self._data
        stream.on_eof = self._eof
        stream.on_reset = self._reset
        stream.on_lost = self._lost
        if early:
            self._data(early)
        if not self._done:
            stream.start()

    def abort(self) -> None:
        """The connection's actor ended."""
        if not self._done:
            self._finish()
            self.stream.abort(ResetCode.RELAY_FAULT)

    def _data(self, chunk: bytes) -> None:
        try:
            self._reader.feed(chunk)
            frame = self._reader.next_frame()
        except PeerError as error:
            self._fail(error.label)
            return
        if frame is None:
            self.stream.consume(len(chunk))
            return
        rest = bytes(self._reader.take_rest())
        self.stream.consume(len(chunk) - len(rest))
        self.stream.pause()
        self._finish()
        self.stream.forget_callbacks()
        self._on_frame(self, frame, rest)

    def _eof(self) -> None:
        self._fail("first_frame_eof")

    def _reset(self, code: int) -> None:
        self._fail("first_frame_reset")

    def _lost(self, reason: CloseReason) -> None:
        if not self._done:
            self._finish()
            self._on_failed(self, "first_frame_lost")

    def _fail(self, label: str) -> None:
        if self._done:
            return
        self._finish()
        code = ResetCode.DEADLINE if label == "first_frame_timeout" else ResetCode.MALFORMED
        self.stream.abort(code)
        self._on_failed(self, label)

    def _finish(self) -> None:
        self._done = True
        self._ticket.abort()
        self._timers.cancel(self._timer)
