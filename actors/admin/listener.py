"""The listening Unix socket of a node: who may have it, and what becomes of its file.

The file is mode 0600, in a directory that only its owner may write (0700 when made here). A lock
file beside it, held by the process before it opens anything else or at least for as long as the
socket is open, tells a live daemon from a file a dead one left behind. Releasing removes the socket
file only while it is still ours.

Source: unix(7).
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

from actors.files.lock import LockFile
from actors.files.ownership import FileRefused, shared_directory
from actors.files.socket_file import check_stale, socket_lock
from actors.runtime import Guard
from actors.transport.gate import Place
from actors.transport.tcp.acceptor import AcceptLimits, Acceptor
from wire.admin.limits import MAX_CLIENTS

SOCKET_MODE = 0o600
#: Connections between accept and the actor that owns them.
LIMITS = AcceptLimits(MAX_CLIENTS, MAX_CLIENTS)


class ControlSocketBusy(Exception):
    """The control socket cannot be taken: the text says by whom or why."""


class ControlListener:
    """The bound, listening socket; a resource of its actor.

    Args:
        path: of the socket. Missing directories are made.
        lock: its lock when the process has it already; it is not let go here.

    Raises:
        ControlSocketBusy: a live daemon has it, something else than a socket is there, or others
            may write into the directory.
        OSError: the path cannot be bound.
    """

    def __init__(self, path: Path, lock: LockFile | None = None) -> None:
        self._path = path
        self._acceptor: Acceptor | None = None
        self._lock: LockFile | None = None
        try:
            shared_directory(path.parent)
            if lock is None:
                self._lock = socket_lock(path)
        except FileRefused as error:
            raise ControlSocketBusy(str(error)) from None
        try:
            check_stale(path)
            self.sock = _bind(path)
        except FileRefused as error:
            self._unlock()
            raise ControlSocketBusy(str(error)) from None
        except BaseException:
            self._unlock()
            raise
        self._identity = _identity(path)

    def start(
        self,
        take: Callable[[socket.socket, object, Place], object],
        guard: Guard,
        log: Callable[[str], object],
    ) -> None:
        """Hand connections to `take`; see `Acceptor`."""
        self._acceptor = Acceptor(LIMITS, take, name="control socket", log=log)
        self._acceptor.attach(self.sock, guard)

    def refused(self, why: str) -> None:
        """Tell of a connection that was turned away."""
        if self._acceptor is not None:
            self._acceptor.refusals.note(why)

    def abort(self) -> None:
        """Stop listening, remove the file if it is still ours, drop the lock; idempotent."""
        if self.sock.fileno() < 0:
            return
        if self._acceptor is not None:
            self._acceptor.abort()
        self.sock.close()
        if _identity(self._path) == self._identity:
            self._path.unlink(missing_ok=True)
        self._unlock()

    def _unlock(self) -> None:
        if self._lock is not None:
            self._lock.abort()


def _bind(path: Path) -> socket.socket:
    """Bind and listen; the lock is ours, so nobody comes between the two steps."""
    path.unlink(missing_ok=True)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    # The file must not exist with a wider mode for a moment; bind(2) has no mode argument.
    before = os.umask(0o777 & ~SOCKET_MODE)
    try:
        sock.bind(str(path))
        sock.listen(MAX_CLIENTS)
    except BaseException:
        sock.close()
        raise
    finally:
        os.umask(before)
    return sock


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.lstat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
