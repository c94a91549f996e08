"""Who may have had a hand in a directory or file: owner, mode, symbolic links.

Everything is made with its final mode whatever the umask is. A refusal is one sentence that names
the path and the remedy. Root may do what it likes anyway, so what belongs to root is trusted where
we only read.

Source: path_resolution(7), open(2).
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Final

DIRECTORY_MODE: Final = 0o700
SECRET_MODE: Final = 0o600
_WRITABLE_BY_OTHERS: Final = stat.S_IWGRP | stat.S_IWOTH


class FileRefused(PermissionError):
    """A path is not safe to use, or is in use; the text is a sentence for the operator."""


def private_directory(path: Path) -> None:
    """Make it and what is missing above it, 0700; or see that an existing one is ours alone.

    Raises:
        FileRefused: see `check_directory`.
        OSError: it cannot be made.
    """
    _make(path)
    check_directory(path)


def shared_directory(path: Path) -> None:
    """As `private_directory`, for a name that others cannot take away although the directory is
    not ours: root's, or one with the sticky bit such as /tmp.

    Raises:
        FileRefused: others may replace what we put there.
        OSError: it cannot be made.
    """
    _make(path)
    found = path.stat()
    if not stat.S_ISDIR(found.st_mode):
        raise FileRefused(f"{path}: not a directory")
    if found.st_uid not in (0, os.geteuid()):
        raise FileRefused(f"{path}: {_foreign(found.st_uid)}: use a directory of your own")
    if found.st_mode & _WRITABLE_BY_OTHERS and not found.st_mode & stat.S_ISVTX:
        raise FileRefused(_writable(path, found.st_mode))
    _check_above(path)


def _make(path: Path) -> None:
    missing = [one for one in (path, *path.parents) if not os.path.lexists(one)]
    for one in reversed(missing):
        try:
            one.mkdir(mode=DIRECTORY_MODE)
        except FileExistsError:
            continue  # somebody was faster: checked like any other
        one.chmod(DIRECTORY_MODE)


def check_directory(path: Path) -> None:
    """See that nobody but us (and root) can put something into it, or something in its place.

    Raises:
        FileRefused: a symbolic link (unless root made it for us), not a directory, not ours, or
            writable by others; or anybody may replace a directory above it.
        OSError: it cannot be looked at.
    """
    found = path.lstat()
    if stat.S_ISLNK(found.st_mode):
        # systemd's DynamicUser= makes such links; one of our own is a mistake or a trap.
        if found.st_uid != 0 or os.geteuid() == 0:
            raise FileRefused(
                f"{path}: is a symbolic link to {path.readlink()}: name the directory itself"
            )
        found = path.stat()
    if not stat.S_ISDIR(found.st_mode):
        raise FileRefused(f"{path}: exists and is not a directory: remove it or name another")
    if found.st_uid != os.geteuid():
        raise FileRefused(f"{path}: {_foreign(found.st_uid)}: chown it or name another")
    if found.st_mode & _WRITABLE_BY_OTHERS:
        raise FileRefused(_writable(path, found.st_mode))
    _check_above(path)


def _check_above(path: Path) -> None:
    for above in path.resolve().parents:
        mode = above.stat().st_mode
        if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
            raise FileRefused(
                f"{path}: everybody may replace it, because {above} has mode "
                f"{stat.S_IMODE(mode):o}: chmod o-w {above}"
            )


def open_private(path: Path, flags: int = os.O_RDWR, *, narrow: bool = False) -> int:
    """Open a file of ours, or make it with mode 0600. Answer: the descriptor.

    Args:
        narrow: one that others could only read gets mode 0600; else it is refused like one they
            could write.

    Raises:
        FileRefused: a symbolic link, not a regular file, not ours, or open to others.
        OSError: it cannot be opened.
    """
    flags |= os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    # A pipe in its place must not hold us up.
    if path.is_symlink():
        raise FileRefused(f"{path}: is a symbolic link: name the file itself")
    try:
        descriptor = os.open(path, flags | os.O_EXCL, SECRET_MODE)
    except FileExistsError:
        descriptor = os.open(path, flags | os.O_NONBLOCK, SECRET_MODE)
        try:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                raise FileRefused(f"{path}: not a regular file")
            _check_file(path, found, stat.S_IRGRP | stat.S_IROTH if narrow else 0)
            if narrow and found.st_mode & 0o077:
                os.fchmod(descriptor, SECRET_MODE)
        except BaseException:
            os.close(descriptor)
            raise
    else:
        os.fchmod(descriptor, SECRET_MODE)  # whatever the umask was
    return descriptor


def check_secret(path: Path) -> None:
    """See that a key file is nobody else's: ours with mode 0600, or root's, which a group may read.

    Raises:
        FileRefused: it belongs to somebody else, or is open to others.
        OSError: it cannot be looked at.
    """
    found = path.stat()
    if found.st_uid == 0 and os.geteuid() != 0:
        _check_file(path, found, stat.S_IRGRP, root=True)
    else:
        _check_file(path, found, 0)


def _check_file(path: Path, found: os.stat_result, allowed: int, *, root: bool = False) -> None:
    if found.st_uid != os.geteuid() and not (root and found.st_uid == 0):
        raise FileRefused(f"{path}: {_foreign(found.st_uid)}: chown it or name another")
    if found.st_mode & 0o077 & ~allowed:
        mode = stat.S_IMODE(found.st_mode)
        raise FileRefused(f"{path}: open to other users (mode {mode:o}): chmod 600 {path}")


def _foreign(owner: int) -> str:
    return f"belongs to uid {owner}, and we are uid {os.geteuid()}"


def _writable(path: Path, mode: int) -> str:
    return f"{path}: others may write into it (mode {stat.S_IMODE(mode):o}): chmod go-w {path}"
