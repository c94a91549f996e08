"""Ctrl frames between the two relays of a link: checkpoints and candidates of their agents.

An extension: the relay that dialled opens one stream and writes PING on it; a relay that knows the
extension answers PONG, and from then on both copy there what agents say to the other relay's
agents. A relay that does not know it ends the stream, and such frames are dropped, as the sheet's
relays do.

Frames are verbatim copies, one after the other. Bound: what the stream's backlog takes; a frame
more is dropped and counted (checkpoints repeat themselves, and candidates are offered again). The
last checkpoint of every stream is said again when a connection to that relay is made: the way it
took may have been lost with it, and a stream that ended would be waited for.

Source: protocol sheet ORP 3.6, 3.9, 3.11; 6.4 X6.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from actors.runtime import Guard
from actors.transport.stream import CloseReason, Stream
from wire.errors import PeerError
from wire.orp.close_codes import ResetCode
from wire.orp.events import PeerFrame
from wire.orp.frame import FrameReader
from wire.orp.messages import (
    CandidateAnswer,
    CandidateOffer,
    MigrateToP2P,
    Ping,
    Pong,
    StreamCheckpoint,
    decode,
)


class Signalling:
    """Ctrl frames between the two relays of a link: checkpoints and candidates of their agents. A
    resource: abort it with its owner.

    Args:
        stream: ours, or the other relay's behind its PING, paused.
        on_frame: gets what the other relay's agents said.
        counters: of the door.
    """

    def __init__(
        self, stream: Stream, on_frame: Callable[[PeerFrame], object], counters: Counter[str]
    ) -> None:
        self._stream = stream
        self._on_frame = on_frame
        self._counters = counters
        self._reader = FrameReader()
        self.open = False  #: the other relay knows the extension
        self._on_answer: Callable[[bool], object] | None = None

    def offer(self, guard: Guard, on_answer: Callable[[bool], object]) -> None:
        """We dialled: ask; `on_answer` is told whether the other relay knows the extension."""
        self._on_answer = on_answer
        self._stream.write(Ping().encode())
        self._listen(guard)
        self._stream.start()

    def accept(self, guard: Guard, early: bytes) -> None:
        """The other relay dialled, and asked."""
        self.open = True
        self._stream.write(Pong().encode())
        self._listen(guard)
        if early:
            self._data(early)
        self._stream.start()

    def send(self, event: PeerFrame) -> bool:
        """Copy a frame to the other relay. False: dropped and counted."""
        stream = self._stream
        if not self.open or stream.write_closed or stream.room <= 0:
            self._counters["relay_frame_dropped"] += 1
            return False
        stream.write(event.frame.encode())
        return True

    def abort(self) -> None:
        """The connection's owner ended."""
        self.open = False
        self._stream.abort(ResetCode.NONE)

    def _listen(self, guard: Guard) -> None:
        stream = self._stream
        stream.on_data = guard("signalling", self._data)
        stream.on_eof = guard("signalling", self._over)
        stream.on_reset = guard("signalling", self._over)
        stream.on_stop_sending = guard("signalling", self._over)
        stream.on_lost = guard("signalling", self._lost)

    def _lost(self, reason: CloseReason) -> None:
        self.open = False

    def _over(self, _: int = 0) -> None:
        self.abort()
        self._answered(knows=False)

    def _answered(self, *, knows: bool) -> None:
        on_answer, self._on_answer = self._on_answer, None
        if on_answer is not None:
            self.open = knows
            on_answer(knows)

    def _data(self, chunk: bytes) -> None:
        self._stream.consume(len(chunk))
        try:
            self._reader.feed(chunk)
            for frame in self._reader:
                message = decode(frame)
                if isinstance(message, Pong):
                    self._answered(knows=True)
                elif isinstance(
                    message, StreamCheckpoint | CandidateOffer | CandidateAnswer | MigrateToP2P
                ):
                    self._on_frame(PeerFrame(message, frame))
                else:
                    self._counters["relay_frame_unknown"] += 1
        except PeerError as error:
            self._counters[f"relay_frame_{error.label}"] += 1
            self.abort()
