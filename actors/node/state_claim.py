"""What belongs to one daemon while it runs: its state directory, and what is kept elsewhere.

Taken before anything is opened, bound or announced: a second daemon must not touch the store of the
first, nor tell a controller where it would have listened. The locks are the process's, not an
actor's: they outlive every restart in the tree and end with the process, however it ends.
"""

from __future__ import annotations

import os
from pathlib import Path

from actors.files.lock import LockFile
from actors.files.ownership import (
    check_directory,
    open_private,
    private_directory,
    shared_directory,
)
from actors.files.socket_file import check_stale, socket_lock
from config.paths import IN_MEMORY, StatePaths

#: Below the state directory.
LOCK_NAME = "daemon.lock"


class StateClaim:
    """What belongs to one daemon while it runs: its state directory, and what is kept elsewhere. A
    resource.

    Args:
        paths: of this daemon.
        database: the store is in a file there; False when a controller keeps it.

    Raises:
        FileRefused: another daemon has one of them (`InUse`), or it is not ours alone; the text is
            one sentence with the remedy.
        OSError: one cannot be made or opened.
    """

    def __init__(self, paths: StatePaths, *, database: bool) -> None:
        self._locks: list[LockFile] = []
        state = paths.state_directory
        try:
            private_directory(state)
            self._take(
                state / LOCK_NAME,
                f"state directory {state}",
                "stop it, or name another with --state-directory",
            )
            shared_directory(paths.control_socket.parent)
            self.socket = socket_lock(paths.control_socket)
            self._locks.append(self.socket)
            check_stale(paths.control_socket)
            if database and paths.database != IN_MEMORY:
                self._take_database(Path(paths.database), state)
        except BaseException:
            self.abort()
            raise

    def _take(self, path: Path, what: str, remedy: str) -> None:
        self._locks.append(LockFile(path, what, remedy))

    def _take_database(self, path: Path, state: Path) -> None:
        if path.parent != state:
            check_directory(path.parent)
        # Also one in the state directory: another daemon may be told to use it.
        lock = path.with_name(path.name + ".lock")
        self._take(lock, f"database {path}", "stop it, or name another in control.database")
        os.close(open_private(path, narrow=True))

    def abort(self) -> None:
        """Let everything go; idempotent."""
        while self._locks:
            self._locks.pop().abort()
