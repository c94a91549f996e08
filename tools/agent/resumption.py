"""One attempt to bring a parked stream back over a connection: STREAM_RESUME, then the echo.

Source: protocol sheet ORP 3.7, 3.8.
"""

from __future__ import annotations

from collections.abc import Callable

from actors.runtime import Guard
from actors.transport.stream import CloseReason, Stream
from tools.agent.resumable import ResumableStream
from wire.errors import PeerError
from wire.orp.close_codes import ResetCode
from wire.orp.frame import FrameReader
from wire.orp.limits import MAX_FIRST_FRAME_PAYLOAD_BYTES
from wire.orp.messages import StreamResume, decode

#: Answers after which another attempt makes sense.
_AGAIN = (ResetCode.RELAY_FAULT, ResetCode.GOING_AWAY)


class Resumption:
    """A resource of the link.

    Args:
        stream: parked.
        path: a fresh stream of the connection; taken over.
        on_end: called once: None when the stream goes on, else whether to try again.
        guard: wraps the callbacks.
        code: of the reset when it is given up.
        direct: the path leads to the other agent, not to a relay.
    """

    def __init__(
        self,
        stream: ResumableStream,
        path: Stream,
        on_end: Callable[[Resumption, bool | None], object],
        guard: Guard,
        *,
        code: int = ResetCode.SOURCE_FAILED,
        direct: bool = False,
    ) -> None:
        self._code = code
        self._direct = direct
        self.stream = stream
        self._path = path
        self._on_end = on_end
        self._reader = FrameReader(MAX_FIRST_FRAME_PAYLOAD_BYTES)
        self._done = False
        path.on_data = guard("resume", self._data)
        path.on_eof = guard("resume", lambda: self._failed(again=False))
        path.on_reset = guard("resume", lambda code: self._failed(again=code in _AGAIN))
        path.on_lost = guard("resume", self._lost)
        path.start()
        path.write((stream.positions() if direct else stream.claim()).encode())

    def abort(self) -> None:
        """Give up; idempotent."""
        if not self._done:
            self._done = True
            self._path.abort(self._code)

    def _lost(self, reason: CloseReason) -> None:
        self._failed(again=True)

    def _failed(self, *, again: bool) -> None:
        if not self._done:
            self.abort()
            self._on_end(self, again)

    def _data(self, chunk: bytes) -> None:
        path = self._path
        try:
            self._reader.feed(chunk)
            frame = self._reader.next_frame()
            if frame is None:
                path.consume(len(chunk))
                return
            rest = bytes(self._reader.take_rest())
            path.consume(len(chunk) - len(rest))
            echo = decode(frame)
        except PeerError:
            self._failed(again=False)
            return
        if not isinstance(echo, StreamResume) or echo.stream_id != self.stream.stream_id:
            self._failed(again=False)
            return
        path.pause()
        path.forget_callbacks()
        if not self.stream.pathless:
            self.abort()  # its pump ended meanwhile
            self._on_end(self, False)
        elif self.stream.return_(path, echo, rest, direct=self._direct):
            self._done = True
            self._on_end(self, None)
        else:
            self._failed(again=False)
