"""A thread that notices when the event loop is held up, and by what.

Nothing in Python interrupts synchronous code, so a handler that computes or blocks for long stops
every actor at once, signals included. The loop beats (a timer writes the time); a thread watches
the beat. A pause above `stall_seconds` is logged once it is over, with the stack that was running
and the name of its task. A pause above DUMP_SECONDS writes all stacks to stderr while it lasts; one
above `abort_seconds` does so and aborts the process, for a service manager to start it again.

The thread never takes a lock the loop's thread could hold (it does not log; faulthandler writes
straight to the descriptor), so it works however the loop is stuck.
"""

from __future__ import annotations

import asyncio
import faulthandler
import os
import sys
import threading
import time
import traceback
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

from loguru import logger

#: Beats per allowed stall: the error of a measured pause is at most one beat.
BEATS_PER_STALL: Final = 4
#: A pause this long is reported while it lasts, not only afterwards.
DUMP_SECONDS: Final = 5.0
#: Innermost frames kept of a stalled stack.
STACK_FRAMES: Final = 12
#: Seconds `stop` waits for the thread, which only ever sleeps for one beat.
JOIN_SECONDS: Final = 2.0
_STDERR: Final = 2


@dataclass(slots=True)
class _Stall:
    task: str
    stack: str


class Watchdog:
    """Watches the running loop from `start` to `stop`; a context manager does both.

    Args:
        stall_seconds: a longer pause of the loop is logged.
        abort_seconds: a longer pause aborts the process (SIGABRT); 0 never does.
    """

    def __init__(self, stall_seconds: float, abort_seconds: float = 0.0) -> None:
        self._period = stall_seconds / BEATS_PER_STALL
        self._stall_seconds = stall_seconds
        self._abort_seconds = abort_seconds
        #: Pauses above `stall_seconds` so far.
        self.stalls = 0
        #: The longest of them.
        self.longest_seconds = 0.0
        self._beat_at = 0.0
        self._observed: _Stall | None = None
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._loop_thread = 0

    def start(self) -> None:
        """Begin, from inside the loop to watch."""
        self._loop = asyncio.get_running_loop()
        self._loop_thread = threading.get_ident()
        self._beat_at = time.monotonic()
        self._stopping.clear()
        self._timer = self._loop.call_later(self._period, self._beat)
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End; safe to call twice."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(JOIN_SECONDS)
            self._thread = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    # In the loop's thread.

    def _beat(self) -> None:
        now = time.monotonic()
        pause = now - self._beat_at - self._period
        self._beat_at = now
        observed, self._observed = self._observed, None
        if pause > self._stall_seconds:
            self._report(pause, observed)
        if self._loop is not None:
            self._timer = self._loop.call_later(self._period, self._beat)

    def _report(self, pause: float, observed: _Stall | None) -> None:
        self.stalls += 1
        self.longest_seconds = max(self.longest_seconds, pause)
        task = "unknown" if observed is None else observed.task
        stack = "(over before it was looked at)" if observed is None else observed.stack
        logger.bind(task=task, seconds=round(pause, 3)).warning(
            "the event loop was held up\n{}", stack
        )

    # In the watchdog's thread.

    def _watch(self) -> None:
        dumped = False
        while not self._stopping.wait(self._period):
            pause = time.monotonic() - self._beat_at - self._period
            if pause <= self._stall_seconds:
                dumped = False
                continue
            if self._observed is None:
                self._observed = self._look()
            must_abort = 0 < self._abort_seconds < pause
            if must_abort or (pause > DUMP_SECONDS and not dumped):
                dumped = True
                self._dump(pause)
            if must_abort:
                os.abort()

    def _look(self) -> _Stall:
        frame = sys._current_frames().get(self._loop_thread)
        stack = "" if frame is None else "".join(traceback.format_stack(frame)[-STACK_FRAMES:])
        task = asyncio.current_task(self._loop)
        return _Stall("none" if task is None else task.get_name(), stack.rstrip("\n"))

    @staticmethod
    def _dump(pause: float) -> None:
        try:
            os.write(_STDERR, f"event loop held up for {pause:.1f} s; all stacks:\n".encode())
            faulthandler.dump_traceback(_STDERR, all_threads=True)
        except OSError:
            pass  # stderr is gone; aborting must not depend on it
