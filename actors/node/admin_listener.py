"""The listening Unix socket of a node: who may have it, and what becomes of its file.

The file is mode 0600, in a directory that only its owner may write (0700 when made here). A lock
file beside it, held by the process before it opens anything else or at least for as long as the
socket is open, tells a live daemon from a file a dead one left behind. Releasing removes the socket
file only while it is still ours.

Source: unix(7).
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path

from actors.files.lock import LockFile
from actors.files.ownership import FileRefused, shared_directory
from actors.node.state_claim import socket_lock
from wire.admin.limits import MAX_CLIENTS

SOCKET_MODE = 0o600
#: Seconds to find out whether somebody answers on a socket nobody holds the lock of.
PROBE_SECONDS = 0.5
#: Connections accepted per turn of the event loop.
ACCEPT_BATCH = 16
#: Seconds without accepting after the process ran out of descriptors or memory: the socket stays
#: readable, and trying again at once would spin.
ACCEPT_PAUSE_SECONDS = 0.2
_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


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
        self._loop = asyncio.get_running_loop()
        self._pause: asyncio.TimerHandle | None = None
        self._accept: Callable[[], None] | None = None
        self._lock: LockFile | None = None
        try:
            shared_directory(path.parent)
            if lock is None:
                self._lock = socket_lock(path)
        except FileRefused as error:
            raise ControlSocketBusy(str(error)) from None
        try:
            _check_stale(path)
            self.sock = _bind(path)
        except BaseException:
            self._unlock()
            raise
        self._identity = _identity(path)

    def start(self, accept: Callable[[], None]) -> None:
        """Call `accept` whenever connections wait; it takes them with `take`."""
        self._accept = accept
        self._loop.add_reader(self.sock, accept)

    def take(self) -> list[socket.socket]:
        """The connections that wait, at most `ACCEPT_BATCH`; pauses when resources ran out."""
        taken: list[socket.socket] = []
        for _ in range(ACCEPT_BATCH):
            try:
                sock, _address = self.sock.accept()
            except (BlockingIOError, InterruptedError):
                break
            except ConnectionAbortedError:
                continue
            except OSError as error:
                if error.errno not in _EXHAUSTED:
                    raise
                self._loop.remove_reader(self.sock)
                self._pause = self._loop.call_later(ACCEPT_PAUSE_SECONDS, self._resume)
                break
            taken.append(sock)
        return taken

    def _resume(self) -> None:
        self._pause = None
        if self._accept is not None and self.sock.fileno() >= 0:
            self._loop.add_reader(self.sock, self._accept)

    def abort(self) -> None:
        """Stop listening, remove the file if it is still ours, drop the lock; idempotent."""
        if self.sock.fileno() < 0:
            return
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None
        self._loop.remove_reader(self.sock)
        self.sock.close()
        if _identity(self._path) == self._identity:
            self._path.unlink(missing_ok=True)
        self._unlock()

    def _unlock(self) -> None:
        if self._lock is not None:
            self._lock.abort()


def _check_stale(path: Path) -> None:
    """Refuse to take the place of anything but the socket of a dead process."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise ControlSocketBusy(f"{path} exists and is not a socket: remove it, or name another")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(PROBE_SECONDS)
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return
        except OSError as error:
            text = f"{path}: cannot tell whether somebody answers: {error.strerror or error}"
            raise ControlSocketBusy(text) from None
    raise ControlSocketBusy(f"{path}: something that is not this daemon answers here")


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
