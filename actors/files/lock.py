"""A lock file: one process at a time, known by its number, let go however the process ends.

The file stays when the lock is let go: removing it would let two processes hold locks on two files
of one name.

Source: flock(2).
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from actors.files.ownership import FileRefused, open_private


class InUse(FileRefused):
    """Another process has it; `holder` is its number, 0 when it did not tell."""

    def __init__(self, text: str, holder: int) -> None:
        super().__init__(text)
        self.holder = holder


class LockFile:
    """An exclusive lock on `path`, taken at once or not at all. A resource.

    Args:
        path: of the lock file itself.
        what: what it stands for, for the text of a refusal.
        remedy: what to do when another process has it.

    Raises:
        InUse: another process has it.
        FileRefused: the file is not ours, or open to others.
        OSError: it cannot be opened.
    """

    def __init__(self, path: Path, what: str, remedy: str) -> None:
        self.path = path
        self._descriptor = open_private(path)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = self._holder()
            self.abort()
            who = f"process {holder}" if holder else "another process"
            raise InUse(f"{what} is in use by {who}: {remedy}", holder) from None
        except BaseException:
            self.abort()
            raise
        try:
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, b"%d\n" % os.getpid(), 0)
        except OSError:
            pass  # a full disk: the number is for the text only

    def _holder(self) -> int:
        text = os.pread(self._descriptor, 32, 0).strip()
        return int(text) if text.isdigit() else 0

    def abort(self) -> None:
        """Let it go; idempotent."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)
