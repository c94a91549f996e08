"""How fast a ctrl stream is served: a flood of small frames waits in its own stream window.

A frame of ten bytes costs the relay more than the agent that sends it, and what came in one run of
datagrams would be served in one go. So a few hundred frames are served at once, and more at a rate
that one busy agent stays below; meanwhile the stream is not read, and its window stops the sender.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from actors.runtime import Actor, Timer
from actors.transport.stream import Stream

#: Frames per second. Agents tell of each of their streams ten times a second at most.
FRAMES_PER_SECOND: Final = 10_000.0
#: Frames served at once: some milliseconds.
BURST: Final = 500.0
#: Bytes between two looks at the count; no more than 128 frames fit.
PIECE_BYTES: Final = 1024


class CtrlPace:
    """A resource of the actor; `data` is the stream's `on_data`.

    Args:
        serve: gets the bytes, which are consumed then.
        frames: how many frames were served so far.
    """

    def __init__(
        self,
        actor: Actor,
        stream: Stream,
        serve: Callable[[bytes], object],
        frames: Callable[[], int],
    ) -> None:
        self._actor = actor
        self._timers = actor.system.timers
        self._stream = stream
        self._serve = serve
        self._frames = frames
        self._left = BURST
        self._at = actor.now()
        #: Of one chunk; bound: the stream's window, because the stream is paused meanwhile.
        self._held = memoryview(b"")
        self._timer: Timer | None = None

    def data(self, chunk: bytes) -> None:
        """What arrived."""
        self._held = memoryview(chunk)
        self._run()

    def abort(self) -> None:
        """The actor ended; idempotent."""
        self._held = memoryview(b"")
        if self._timer is not None:
            self._timers.cancel(self._timer)
            self._timer = None

    def _run(self) -> None:
        while self._held:
            now = self._actor.now()
            self._left = min(BURST, self._left + (now - self._at) * FRAMES_PER_SECOND)
            self._at = now
            if self._left <= 0:
                self._stream.pause()
                pause = (BURST / 2 - self._left) / FRAMES_PER_SECOND
                self._timer = self._timers.after(pause, self._actor.guard("ctrl", self._go_on))
                return
            piece, self._held = bytes(self._held[:PIECE_BYTES]), self._held[PIECE_BYTES:]
            before = self._frames()
            self._stream.consume(len(piece))
            self._serve(piece)
            self._left -= self._frames() - before

    def _go_on(self) -> None:
        self._timer = None
        self._run()
        if self._timer is None:
            self._stream.start()
