"""The file of a Unix socket: who may have it, and whether somebody still answers on it."""

from __future__ import annotations

import socket
import stat
from pathlib import Path

from actors.files.lock import LockFile
from actors.files.ownership import FileRefused

#: Seconds to find out whether somebody answers.
PROBE_SECONDS = 0.5


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
