"""A file is there whole, as it was or as it is to be, whenever the writer is killed.

What is written goes into a file beside it that is synced and then takes the name; the directory is
synced after that, so that a power loss does not bring the old one back after we said it was done.
What killed writers left behind goes with a later write of the same file.
"""

from __future__ import annotations

import errno
import os
import secrets
import time
from pathlib import Path
from typing import Final

from actors.files.ownership import SECRET_MODE

#: Seconds after which a half-written file has no writer any more.
ABANDONED_SECONDS: Final = 3600.0
_NO_LINKS: Final = frozenset({errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK})


def replace_file(path: Path, data: bytes, mode: int = SECRET_MODE) -> None:
    """Write a file with exactly this mode, in the place of whatever has its name.

    Raises:
        OSError: it cannot be written; what was there is untouched.
    """
    temporary = _write_beside(path, data, mode)
    try:
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def create_file(path: Path, data: bytes, mode: int = SECRET_MODE) -> None:
    """Write a file that must not exist yet, with exactly this mode.

    Raises:
        FileExistsError: it does (a dangling symbolic link counts); it is untouched.
        OSError: it cannot be written, and is not there.
    """
    if os.path.lexists(path):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
    temporary = _write_beside(path, data, mode)
    try:
        try:
            os.link(temporary, path)  # unlike a rename it takes nobody's place
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            temporary.rename(path)  # a file system without hard links
    finally:
        temporary.unlink(missing_ok=True)
    sync_directory(path.parent)


def _write_beside(path: Path, data: bytes, mode: int) -> Path:
    _forget_abandoned(path)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}.new")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(temporary, flags, SECRET_MODE)
    try:
        with open(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fchmod(file.fileno(), mode)  # whatever the umask was
            os.fsync(file.fileno())
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return temporary


def _forget_abandoned(path: Path) -> None:
    prefix = f".{path.name}."
    for entry in abandoned(path.parent, prefix):
        if entry.name.endswith(".new"):
            try:
                entry.unlink()
            except OSError:
                continue  # another writer was faster, or it is not ours


def abandoned(directory: Path, prefix: str) -> list[Path]:
    """What begins with `prefix` and was not touched for so long that its writer is gone."""
    before = time.time() - ABANDONED_SECONDS
    found = []
    for entry in directory.iterdir():
        if entry.name.startswith(prefix):
            try:
                if entry.lstat().st_mtime < before:
                    found.append(entry)
            except FileNotFoundError:
                continue
    return found


def sync_directory(directory: Path) -> None:
    """Make the names in it last over a power loss.

    Raises:
        OSError: they may not.
    """
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a file system that does not know this
            raise
    finally:
        os.close(descriptor)
