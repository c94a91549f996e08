"""One attempt to bring a parked stream back over a connection: STREAM_RESUME, then the echo.

Source: protocol sheet ORP 3.7, 3.8.
"""

from __future__ import annotations

from collections.abc import Callable

from actors.runtime import Actor
from actors.transport.first_message import FirstMessage, NoMessage
from actors.transport.stream import Stream
from tools.agent.resumable import ResumableStream
from wire.orp.close_codes import ResetCode
from wire.orp.messages import FirstMessageReader, FirstWord, StreamResume

#: Answers after which another attempt makes sense.
_AGAIN = (ResetCode.RELAY_FAULT, ResetCode.GOING_AWAY)


class Resumption:
    """A resource of the link.

    Args:
        owner: the link.
        stream: parked.
        path: a fresh stream of the connection; taken over.
        on_end: called once: None when the stream goes on, else whether to try again.
        code: of the reset when it is given up.
        direct: the path leads to the other agent, not to a relay.
    """

    def __init__(
        self,
        owner: Actor,
        stream: ResumableStream,
        path: Stream,
        on_end: Callable[[Resumption, bool | None], object],
        *,
        code: int = ResetCode.SOURCE_FAILED,
        direct: bool = False,
    ) -> None:
        self._code = code
        self._direct = direct
        self.stream = stream
        self._path = path
        self._on_end = on_end
        self._done = False
        self._reading = FirstMessage[FirstWord](
            owner, path, FirstMessageReader(), self._echoed, self._no_echo, code=code, kind="resume"
        )
        self._reading.start()
        path.write((stream.positions() if direct else stream.claim()).encode())

    def abort(self) -> None:
        """Give up; idempotent."""
        if not self._done:
            self._done = True
            self._reading.release()
            self._path.abort(self._code)

    def _failed(self, *, again: bool) -> None:
        if not self._done:
            self.abort()
            self._on_end(self, again)

    def _no_echo(self, why: NoMessage) -> None:
        self._failed(again=why.why == "lost" or (why.why == "reset" and why.code in _AGAIN))

    def _echoed(self, echo: FirstWord, rest: bytes) -> None:
        path = self._path
        if not isinstance(echo, StreamResume) or echo.stream_id != self.stream.stream_id:
            self._failed(again=False)
        elif not self.stream.pathless:
            self._failed(again=False)  # its pump ended meanwhile
        elif self.stream.return_(path, echo, rest, direct=self._direct):
            self._done = True
            self._on_end(self, None)
        else:
            self._failed(again=False)
