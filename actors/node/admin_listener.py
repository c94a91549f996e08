"""The listening Unix socket of a node: who may have it, and what becomes of its file.

The file is mode 0600, in a directory that only its owner may write (0700 when made here). A lock
file beside it, held for as long as the socket is open, tells a live daemon from a file a dead one
left behind; the kernel drops the lock however the process ends. Releasing removes the socket file
only while it is still ours; the lock file stays, because removing it would let two daemons hold
locks on two files of one name.

Source: unix(7), flock(2).
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path

from wire.admin.limits import MAX_CLIENTS

SOCKET_MODE = 0o600
DIRECTORY_MODE = 0o700
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

    Raises:
        ControlSocketBusy: a live daemon has it, something else than a socket is there, or others
            may write into the directory.
        OSError: the path cannot be bound.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._loop = asyncio.get_running_loop()
        self._pause: asyncio.TimerHandle | None = None
        self._accept: Callable[[], None] | None = None
        _safe_directory(path.parent)
        self._lock = _take_lock(path)
        try:
            _check_stale(path)
            self.sock = _bind(path)
        except BaseException:
            os.close(self._lock)
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
        os.close(self._lock)


def _safe_directory(directory: Path) -> None:
    """Make it, or see that nobody else could put another socket in its place."""
    missing = [one for one in (directory, *directory.parents) if not one.exists()]
    for one in reversed(missing):
        one.mkdir(mode=DIRECTORY_MODE, exist_ok=True)
    status = directory.stat()
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not status.st_mode & stat.S_ISVTX:
        raise ControlSocketBusy(
            f"{directory} can be written by others (mode {stat.S_IMODE(status.st_mode):o}): "
            f"the control socket needs a directory of its owner alone, chmod go-w {directory}"
        )


def _take_lock(path: Path) -> int:
    lock = path.with_name(path.name + ".lock")
    handle = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, SOCKET_MODE)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise ControlSocketBusy(f"{path}: another daemon is running here") from None
    except BaseException:
        os.close(handle)
        raise
    return handle


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
