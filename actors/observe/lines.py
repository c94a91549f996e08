"""A file that lines are appended to: 0600 below a directory made 0750, reopened when it is gone.

It does not grow for ever: a full one is renamed to `NAME.1`, in the place of the one before. Who
rotates it otherwise sooner never sees that.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path


class LineFile:
    """A resource. Writing appends whole lines, so several processes may share the file.

    Args:
        path: made when it does not exist; a rotated file (renamed or removed) is made anew.
        most: bytes; 0: any number.
    """

    def __init__(self, path: Path, most: int = 0) -> None:
        self._path = path
        self._most = most
        self._descriptor = -1

    def open(self) -> None:
        """Open it now, so that a path that cannot be used is known before there is a line.

        Raises:
            OSError: see `append`.
        """
        self._open_if_gone()

    def append(self, lines: bytes) -> None:
        """Write.

        Raises:
            OSError: the file cannot be opened, renamed or written.
        """
        self._open_if_gone()
        if self._is_full(len(lines)):
            self._path.replace(self._path.with_name(self._path.name + ".1"))
            self._open_if_gone()
        view = memoryview(lines)
        while view:
            view = view[os.write(self._descriptor, view) :]

    def _is_full(self, more: int) -> bool:
        if not self._most:
            return False
        found = os.fstat(self._descriptor)
        return stat.S_ISREG(found.st_mode) and 0 < found.st_size > self._most - more

    def _open_if_gone(self) -> None:
        if self._descriptor >= 0:
            ours = os.fstat(self._descriptor)
            try:
                there = os.stat(self._path)
            except FileNotFoundError:
                there = None
            if there is not None and os.path.samestat(there, ours):
                return
            self.abort()
        self._path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        self._descriptor = os.open(self._path, flags, 0o600)

    def abort(self) -> None:
        """Close it; idempotent."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)
