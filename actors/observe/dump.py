"""Appends a snapshot of the meters to a file, at the start and then once per interval.

A write that fails is counted and tried again with the next snapshot (the reference's dumper ends).

Source: protocol sheet ORP 5.
"""

from __future__ import annotations

from pathlib import Path

from actors.observe.exposition import json_line
from actors.observe.lines import LineFile
from actors.observe.meters import Meters
from actors.runtime import Actor, handles, naming


class _Write:
    """The interval is over."""

    __slots__ = ()


class MetricsDump(Actor):
    """Appends a snapshot of the meters to a file, at the start and then once per interval.

    Args:
        interval: seconds.
        most: bytes of the file.
    """

    def __init__(self, meters: Meters, path: Path, interval: float, most: int = 0) -> None:
        self._most = most
        self._meters = meters
        self._path = path
        self._interval = interval
        self._lines = 0
        self._failed = 0
        self._last_error = ""

    def init(self) -> None:
        """Begin."""
        self._file = self.own(LineFile(self._path, self._most), "file")
        with naming("metrics.dump"):
            self._file.open()
        self.ref.tell(_Write())

    def describe(self) -> dict[str, object]:
        """How it goes."""
        return {
            "path": str(self._path),
            "lines": self._lines,
            "failed": self._failed,
            "last_error": self._last_error,
        }

    @handles(_Write)
    def _write(self, _: _Write) -> None:
        try:
            self._file.append(json_line(self._meters))
            self._lines += 1
        except OSError as error:
            self._failed += 1
            if not self._last_error:
                self.log.warning("metrics dump: {}", error)
            self._last_error = str(error)
        else:
            self._last_error = ""
        self.start_timer(self._interval, _Write(), "write")
