"""What the link does for streams that outlive its connections.

A stream that lost its path is parked; the next connection resumes it, until its window is over. A
stream that ended lingers until the other agent confirmed it. Checkpoints tell the other agents how
far their streams were read.

Source: protocol sheet ORP 3.6 to 3.8.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from actors.runtime import Actor, handles
from actors.transport.connection import Connection
from actors.transport.stream import CloseReason, Stream
from tools.agent.resumable import ResumableStream
from tools.agent.resumption import Resumption
from tools.agent.settings import AgentSettings
from tools.agent.stream_table import StreamTable
from wire.orp.agent_session import AgentSession
from wire.orp.messages import StreamCheckpoint

#: Pause before a stream that the relay could not take back is tried again, seconds (with jitter).
RESUME_AGAIN = 0.1
#: A stream that ended waits so long for the other agent to confirm it, seconds; then twice as long.
LINGER_SECONDS = 0.5
#: Period of checkpoints (sheet 3.6), and how many are sent each time.
CHECKPOINT_SECONDS = 0.1
#: A path that the other agent left is kept so long for what it sent there, and for it to come by
#: another one, seconds.
LEFT_SECONDS = 30.0
MAX_CHECKPOINTS = 256


class _Expired:
    """A parked stream did not come back in time."""

    __slots__ = ("stream",)

    def __init__(self, stream: ResumableStream) -> None:
        self.stream = stream


class _ResumeAgain:
    """The relay could not take the stream back at once."""

    __slots__ = ("stream",)

    def __init__(self, stream: ResumableStream) -> None:
        self.stream = stream


class _Unconfirmed:
    """A stream that ended cleanly: does the other agent have everything?"""

    __slots__ = ("pause", "since", "stream")

    def __init__(self, stream: ResumableStream, pause: float, since: float) -> None:
        self.stream = stream
        self.pause = pause
        self.since = since


class _StillLeft:
    """The other agent left this path a while ago."""

    __slots__ = ("path", "stream")

    def __init__(self, stream: ResumableStream, path: Stream) -> None:
        self.stream = stream
        self.path = path


class _Checkpoint:
    """Tell the other agents how far their streams were read."""

    __slots__ = ()


class StreamKeeper(Actor, ABC):
    """What the link does for streams that outlive its connections. The link is one, and gives it a
    connection and takes it away.
    """

    def __init__(self, settings: AgentSettings, table: StreamTable) -> None:
        self._settings = settings
        self._table = table
        #: Attempts under way; bound: one per live stream.
        self._resumptions: dict[ResumableStream, Resumption] = {}
        self._resumed = 0
        self._expired = 0
        self._connection: Connection | None = None
        self._session: AgentSession | None = None
        #: The relay took our HELLO and our services.
        self._ready = False

    @abstractmethod
    def _write_ctrl(self) -> None:
        """Send what the session has to say."""

    def _keep_streams(self) -> None:
        """Begin; streams that lost their path with an earlier incarnation are parked already."""
        self._table.on_parked = self.guard("park", self._parked)
        self._table.on_ended = self.guard("end", self._stream_ended)
        self._table.on_lingering = self.guard("linger", self._lingering)
        self._table.on_left = self.guard("left", self._left)
        for stream in self._table.parked():
            self._parked(stream)
        self.ref.tell(_Checkpoint())

    def left_relay(self, stream: ResumableStream) -> None:
        self._forget_attempt(stream)
        self.cancel_timer(("park", stream.stream_id))
        self.cancel_timer(("again", stream.stream_id))

    def _forget_attempt(self, stream: ResumableStream) -> None:
        attempt = self._resumptions.pop(stream, None)
        if attempt is not None:
            self.disown(attempt)
            attempt.abort()

    def _parked(self, stream: ResumableStream) -> None:
        stream.parked_at = self.now()
        window = self._settings.resume_window
        if stream.patience is not None:
            window = min(window, stream.patience)
        self.start_timer(window, _Expired(stream), ("park", stream.stream_id))
        self._resume(stream)

    def _left(self, stream: ResumableStream, path: Stream) -> None:
        self.start_timer(LEFT_SECONDS, _StillLeft(stream, path), ("left", stream.stream_id))

    @handles(_StillLeft)
    def _still_left(self, message: _StillLeft) -> None:
        """The other agent did not come by another path: ask the relay for it."""
        if message.stream.still_on(message.path):
            message.stream.park()

    def _stream_ended(self) -> None:
        self.start_timer(0.0, _Checkpoint(), "checkpoint")

    def _lingering(self, stream: ResumableStream) -> None:
        self._look_again(_Unconfirmed(stream, LINGER_SECONDS, self.now()))

    def _look_again(self, look: _Unconfirmed) -> None:
        self.start_timer(look.pause, look, ("linger", look.stream.stream_id))

    @handles(_Unconfirmed)
    def _unconfirmed(self, look: _Unconfirmed) -> None:
        """Nobody confirmed the stream: ask the relay, which may have lost what it took."""
        stream = look.stream
        if not stream.lingering:
            return
        if self.now() - look.since > self._settings.resume_window:
            stream.linger_over()
            return
        stream.path_lost()
        self._look_again(_Unconfirmed(stream, look.pause * 2, look.since))

    def _resume_all(self) -> None:
        for stream in self._table.parked():
            if not self._resume(stream):
                return

    def _resume(self, stream: ResumableStream) -> bool:
        """Begin an attempt; False when no connection allows one now."""
        if not self._ready or self._connection is None:
            return False
        if not stream.parked or stream in self._resumptions:
            return True
        path = self._connection.open_stream()
        if path is None:
            return False
        attempt = Resumption(self, stream, path, self._resume_ended)
        self._resumptions[stream] = attempt
        self.own(attempt, "resumption")
        return True

    def _resume_ended(self, attempt: Resumption, again: bool | None) -> None:
        stream = attempt.stream
        self._resumptions.pop(stream, None)
        self.disown(attempt)
        if again is None:
            self._resumed += 1
            self.cancel_timer(("park", stream.stream_id))
        elif again:
            pause = RESUME_AGAIN * self.system.rng.uniform(0.5, 1.5)
            self.start_timer(pause, _ResumeAgain(stream), ("again", stream.stream_id))
        else:
            self.cancel_timer(("park", stream.stream_id))
            stream.fail(CloseReason("transport", text="not resumed"))

    @handles(_ResumeAgain)
    def _resume_again(self, message: _ResumeAgain) -> None:
        self._resume(message.stream)

    @handles(_Expired)
    def _park_expired(self, message: _Expired) -> None:
        stream = message.stream
        if not stream.parked:
            return
        self._expired += 1
        self._forget_attempt(stream)
        stream.fail(CloseReason("transport", text="not resumed in time"))

    def _repeat_checkpoints(self) -> None:
        """The relay may have lost our last words of streams that ended: it would wait for us."""
        if self._session is not None:
            for stream_id, (sent, received) in self._table.ended.items():
                self._session.send(StreamCheckpoint(stream_id, sent, received, ended=True))
            self._table.ended.clear()

    @handles(_Checkpoint)
    def _checkpoint(self, _: _Checkpoint) -> None:
        moved = self._table.moved
        if moved and self._ready and self._session is not None:
            for stream in list(moved)[:MAX_CHECKPOINTS]:
                del moved[stream]
                self._session.send(stream.checkpoint())
            self._write_ctrl()
        self.start_timer(CHECKPOINT_SECONDS, _Checkpoint(), "checkpoint")
