"""The TLS key log: secrets of every connection, for Wireshark and the like.

Whoever reads the file reads all traffic, so it exists only when it is asked for by name, never by
an environment variable, and is readable for its owner alone.

Source: https://www.ietf.org/archive/id/draft-ietf-tls-keylogfile-02.html
"""

from __future__ import annotations

import os
from pathlib import Path


class KeyLog:
    """An append-only file; one line per secret. Also what aioquic writes to.

    Raises:
        OSError: the file cannot be opened, or others may read it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self._descriptor = os.open(path, flags, 0o600)
        if os.fstat(self._descriptor).st_mode & 0o077:
            os.close(self._descriptor)
            raise PermissionError(1, "the key log must have mode 0600", str(path))

    def write(self, line: str) -> None:
        """Append a line; a full disk costs the line, not the connection."""
        try:
            os.write(self._descriptor, line.encode("ascii"))
        except OSError:
            return

    def flush(self) -> None:
        """Every line is written at once."""

    def close(self) -> None:
        """Release the file."""
        os.close(self._descriptor)
