"""The access log: one JSON line for every stream that was asked for, written when it ended.

Whoever ends a stream tells a record and does not wait. Lines are written in batches; what does not
fit into the queue, or cannot be written, is counted as lost. No payload, no addresses of users:
who, what, how long, how much, and how it ended.
"""

from __future__ import annotations

from collections import deque
from itertools import islice
from pathlib import Path

import orjson

from actors.observe.lines import LineFile
from actors.observe.meters import Meters
from actors.observe.records import StreamRecord
from actors.runtime import Actor, ExitReason, MailboxSpec, handles, naming

#: Records waiting to be written; a record more is lost, and counted.
QUEUE = 8192
#: Lines per write, and seconds a line waits for company.
BATCH = 512
FLUSH_SECONDS = 0.25


class _Flush:
    """The oldest line waited long enough."""

    __slots__ = ()


class _Stop:
    """Everything told before the stop was asked for is in the queue now."""

    __slots__ = ("reason",)

    def __init__(self, reason: ExitReason) -> None:
        self.reason = reason


class AccessLog(Actor):
    mailbox = MailboxSpec(bound=QUEUE)

    def __init__(self, meters: Meters, path: Path, most: int = 0) -> None:
        self._most = most
        self._counters = meters.counters
        self._path = path
        self._waiting: deque[StreamRecord] = deque()
        self._last_error = ""

    def init(self) -> None:
        """Begin."""
        self._file = self.own(LineFile(self._path, self._most), "file")
        with naming("log.access_file"):
            self._file.open()

    def on_stop(self, reason: ExitReason) -> bool:
        """Take in what was told before, then stop."""
        return not self.ref.try_tell(_Stop(reason))

    @handles(_Stop)
    def _stop(self, message: _Stop) -> None:
        self.stop(message.reason)

    def terminate(self, reason: ExitReason) -> None:
        """Write what waits."""
        while self._waiting:
            self._write()

    def describe(self) -> dict[str, object]:
        """How it goes."""
        return {
            "path": str(self._path),
            "waiting": len(self._waiting),
            "written": self._counters["access_log_lines_total"],
            "lost": self._counters["access_log_lost_total"],
            "last_error": self._last_error,
        }

    @handles(StreamRecord)
    def _record(self, record: StreamRecord) -> None:
        if not self._waiting:
            self.start_timer(FLUSH_SECONDS, _Flush(), "flush")
        self._waiting.append(record)
        if len(self._waiting) >= BATCH:
            self._write()

    @handles(_Flush)
    def _flush(self, _: _Flush) -> None:
        self._write()
        if self._waiting:
            self.start_timer(FLUSH_SECONDS, _Flush(), "flush")

    def _write(self) -> None:
        batch = list(islice(self._waiting, BATCH))
        for _ in batch:
            self._waiting.popleft()
        lines = b"".join(orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE) for record in batch)
        try:
            self._file.append(lines)
            self._counters["access_log_lines_total"] += len(batch)
            self._last_error = ""
        except OSError as error:
            self._counters["access_log_lost_total"] += len(batch)
            if not self._last_error:
                self.log.warning("access log: {}", error)
            self._last_error = str(error)
