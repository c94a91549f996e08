"""What belongs to one daemon while it runs: its state directory, and what is kept elsewhere.

Taken before anything is opened, bound or announced: a second daemon must not touch the store of the
first, nor tell a controller where it would have listened. The locks are the process's, not an
actor's: they outlive every restart in the tree and end with the process, however it ends.
"""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

from actors.files.lock import LockFile
from actors.files.ownership import (
    FileRefused,
    check_directory,
    open_private,
    private_directory,
    shared_directory,
)
from config.paths import IN_MEMORY, StatePaths

#: Seconds to find out whether somebody answers on a control socket.
PROBE_SECONDS = 0.5
#: Below the state directory.
LOCK_NAME = "daemon.lock"


def socket_lock(path: Path) -> LockFile:
    """The lock of a control socket, in a file beside it.

    Raises:
        InUse: a live process has it.
        FileRefused: the lock file is not ours.
        OSError: it cannot be opened.
    """
    lock = path.with_name(path.name + ".lock")
    return LockFile(lock, str(path), "another daemon is running here, stop it or name another")


def check_stale(path: Path) -> None:
    """See that a control socket has no other place than that of a dead process's.

    A lock file that somebody removed protects nobody: the socket itself still tells.

    Raises:
        FileRefused: something else is there, or somebody answers.
    """
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise FileRefused(f"{path} exists and is not a socket: remove it, or name another")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(PROBE_SECONDS)
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return
        except OSError as error:
            why = error.strerror or error
            raise FileRefused(f"{path}: cannot tell whether somebody answers: {why}") from None
    raise FileRefused(
        f"{path}: something that is not this daemon answers here, stop it or name another"
    )


class StateClaim:
    """See the module docstring. A resource.

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
