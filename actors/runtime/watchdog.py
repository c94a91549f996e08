"""A thread that notices when the event loop is held up, and by which actor.

Nothing in Python interrupts synchronous code, so a handler that computes or blocks for long stops
every actor at once, signals included. The loop beats (a timer writes the time); a thread watches
the beat. A pause above `stall_seconds` is logged once, when it is over, with its length, the path
of the actor that was running and the stack of that moment; it is also an event of the tree
(`stalled`). A pause above DUMP_SECONDS writes all stacks to stderr while it lasts; one above
`abort_seconds` does so and aborts the process, for its supervisor or service manager to start it
again.

The thread never takes a lock the loop's thread could hold (it does not log; faulthandler writes
straight to the descriptor), so it works however the loop is stuck.

Every beat is also a sample of the loop's lag: `lag()` has its percentiles.

Source: docs/runtime.md section 10.
"""

from __future__ import annotations

import asyncio
import faulthandler
import os
import sys
import threading
import time
import traceback
from collections import deque
from dataclasses import dataclass
from types import FrameType, TracebackType
from typing import Final, NamedTuple, Self

from loguru import logger

from .actor import GUARD_FRAME
from .cell import Cell
from .events import Event
from .life import LIFE_FRAME
from .owned_task import TASK_FRAME
from .system import ActorSystem

#: Seconds of a pause that is worth a log line, unless told otherwise.
STALL_SECONDS: Final = 0.25
#: Longest time between two beats; stalls are measured to within one beat.
BEAT_SECONDS: Final = 0.05
BEATS_PER_STALL: Final = 4
#: Beats whose lag is kept: a minute at BEAT_SECONDS.
LAG_SAMPLES: Final = 1200
#: A pause this long is reported while it lasts, not only afterwards.
DUMP_SECONDS: Final = 5.0
#: Innermost frames kept of a stalled stack.
STACK_FRAMES: Final = 12
#: Seconds `stop` waits for the thread, which only ever sleeps for one beat.
JOIN_SECONDS: Final = 2.0
_STDERR: Final = 2
#: Frames in which a variable `cell` is the actor whose code they run.
_ACTOR_FRAMES: Final = frozenset({GUARD_FRAME, LIFE_FRAME, TASK_FRAME})


class LagStatistics(NamedTuple):
    """How late the loop's beat was, over the last `LAG_SAMPLES` beats; seconds."""

    samples: int  #: beats in the window
    p50: float  #: median lag
    p99: float  #: 99th percentile
    worst: float  #: the worst of the window
    stalls: int  #: pauses above `stall_seconds` since `start`
    longest: float  #: the longest of them


@dataclass(slots=True)
class _Stall:
    path: str
    incarnation: int
    stack: str


class Watchdog:
    """Watches the running loop from `start` to `stop`; a context manager does both.

    Args:
        stall_seconds: a longer pause of the loop is logged.
        abort_seconds: a longer pause aborts the process (SIGABRT); 0 never does.
        system: gets an event for every stall, and the paths of its actors are known.
    """

    def __init__(
        self,
        stall_seconds: float = STALL_SECONDS,
        abort_seconds: float = 0.0,
        *,
        system: ActorSystem | None = None,
    ) -> None:
        self._period = min(BEAT_SECONDS, stall_seconds / BEATS_PER_STALL)
        self._stall_seconds = stall_seconds
        self._abort_seconds = abort_seconds
        self._system = system
        #: Pauses above `stall_seconds` so far.
        self.stalls = 0
        #: The longest of them.
        self.longest_seconds = 0.0
        self._lags: deque[float] = deque(maxlen=LAG_SAMPLES)
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
        self._observed = None
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

    def abort(self) -> None:
        """As `stop`: an actor may own a watchdog."""
        self.stop()

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

    def lag(self) -> LagStatistics:
        """The lag of the loop over the last minute."""
        lags = sorted(self._lags)
        if not lags:
            return LagStatistics(0, 0.0, 0.0, 0.0, self.stalls, self.longest_seconds)
        last = len(lags) - 1
        return LagStatistics(
            len(lags),
            lags[last // 2],
            lags[min(last, last * 99 // 100 + 1)],
            lags[last],
            self.stalls,
            self.longest_seconds,
        )

    # In the loop's thread.

    def _beat(self) -> None:
        assert self._loop is not None
        now = time.monotonic()
        pause = max(0.0, now - self._beat_at - self._period)
        self._beat_at = now
        self._lags.append(pause)
        observed, self._observed = self._observed, None
        if pause > self._stall_seconds:
            self._report(pause, observed or _Stall("", 0, "(over before it was looked at)"))
        self._timer = self._loop.call_later(self._period, self._beat)

    def _report(self, pause: float, stall: _Stall) -> None:
        self.stalls += 1
        self.longest_seconds = max(self.longest_seconds, pause)
        who = stall.path or "code outside every actor"
        logger.bind(actor=stall.path, seconds=round(pause, 3)).warning(
            "the event loop was held up by {}\n{}", who, stall.stack
        )
        if self._system is not None:
            fields: dict[str, object] = {"seconds": round(pause, 3), "stack": stall.stack}
            event = Event("stalled", stall.path or "/", stall.incarnation, fields)
            self._system.events.publish(event)

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
        if frame is None:
            return _Stall("", 0, "")
        stack = "".join(traceback.format_stack(frame)[-STACK_FRAMES:]).rstrip("\n")
        cell = _running(frame)
        return _Stall("", 0, stack) if cell is None else _Stall(cell.path, cell.incarnation, stack)

    def _dump(self, pause: float) -> None:
        observed = self._observed
        who = f" by {observed.path}" if observed is not None and observed.path else ""
        try:
            os.write(_STDERR, f"event loop held up{who} for {pause:.1f} s; all stacks:\n".encode())
            faulthandler.dump_traceback(_STDERR, all_threads=True)
        except OSError:
            pass  # stderr is gone; aborting must not depend on it


def _running(frame: FrameType) -> Cell | None:
    """The actor whose code a stack runs: the innermost frame that belongs to one."""
    current: FrameType | None = frame
    while current is not None:
        if current.f_code in _ACTOR_FRAMES:
            cell = current.f_locals.get("cell")
            return cell if isinstance(cell, Cell) else None
        current = current.f_back
    return None
