"""State on the disk: private whatever the umask is, whole whenever the writer dies, locked."""

from __future__ import annotations

import os
import signal
import socket
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from actors.files.atomic import ABANDONED_SECONDS, create_file, replace_file
from actors.files.lock import InUse, LockFile
from actors.files.ownership import (
    FileRefused,
    check_secret,
    open_private,
    private_directory,
    shared_directory,
)

NOBODY = 65534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="gives files to another user")


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o777])
def test_modes_do_not_depend_on_the_umask(tmp_path: Path, umask: int) -> None:
    state = tmp_path / "a" / "b"
    before = os.umask(umask)
    try:
        private_directory(state)
        os.close(open_private(state / "db"))
        replace_file(state / "secret", b"1")
        create_file(state / "public", b"2", 0o644)
        LockFile(state / "lock", "it", "wait").abort()
    finally:
        os.umask(before)
    assert (_mode(state), _mode(state.parent)) == (0o700, 0o700)
    modes = {path.name: _mode(path) for path in state.iterdir()}
    assert modes == {"db": 0o600, "secret": 0o600, "public": 0o644, "lock": 0o600}


def _killed_at(step: int, work: Callable[[], object]) -> bool:
    """Do it in a child that is killed before its `step`th line. False: it was done before."""
    child = os.fork()
    if child == 0:
        left = step

        def trace(frame: FrameType, event: str, _: Any) -> Any:
            nonlocal left
            if not frame.f_code.co_filename.endswith("/actors/files/atomic.py"):
                return None
            if event == "line":
                left -= 1
                if left < 0:
                    os.kill(os.getpid(), signal.SIGKILL)
            return trace

        sys.settrace(trace)
        try:
            work()
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def test_a_replaced_file_is_the_old_or_the_new_one(tmp_path: Path) -> None:
    path = tmp_path / "state"
    old, new = b"old" * 1000, b"new" * 5000
    seen, leftovers = set(), 0
    for step in range(1000):
        replace_file(path, old)
        killed = _killed_at(step, lambda: replace_file(path, new))
        seen.add(path.read_bytes())
        if not killed:
            break
        left = [one for one in tmp_path.iterdir() if one != path]
        leftovers += len(left)
        for one in left:  # what killed writers left goes with a later write
            os.utime(one, (1, 1))
        replace_file(path, old)
        assert list(tmp_path.iterdir()) == [path]
    assert seen == {old, new}
    assert path.read_bytes() == new
    assert leftovers > 5


def test_a_created_file_is_whole_or_not_there(tmp_path: Path) -> None:
    path = tmp_path / "key"
    for step in range(1000):
        killed = _killed_at(step, lambda: create_file(path, b"secret" * 1000))
        if path.exists():
            assert path.read_bytes() == b"secret" * 1000
        for left in tmp_path.iterdir():
            left.unlink()
        if not killed:
            break
    create_file(path, b"first")
    with pytest.raises(FileExistsError):
        create_file(path, b"second")
    assert path.read_bytes() == b"first"


def test_what_another_writer_is_writing_is_left_to_it(tmp_path: Path) -> None:
    young = tmp_path / ".state.123.new"
    young.write_text("being written")
    assert ABANDONED_SECONDS > 60
    replace_file(tmp_path / "state", b"1")
    assert young.exists()


def test_links_are_not_followed(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir(mode=0o700)
    link = tmp_path / "link"
    link.symlink_to(target)
    if os.geteuid() == 0:
        os.lchown(link, NOBODY, NOBODY)
    with pytest.raises(FileRefused, match="symbolic link"):
        private_directory(link)
    precious = tmp_path / "precious"
    precious.write_text("precious")
    for name in ("db", "dangling"):
        (target / name).symlink_to(precious if name == "db" else tmp_path / "nowhere")
        with pytest.raises(FileRefused, match="symbolic link"):
            open_private(target / name)
        with pytest.raises(FileExistsError):
            create_file(target / name, b"x")
        replace_file(target / name, b"x")  # the link goes, not what it points to
        assert not (target / name).is_symlink()
    assert precious.read_text() == "precious"
    assert not (tmp_path / "nowhere").exists()


def test_a_file_that_others_could_read_is_narrowed_or_refused(tmp_path: Path) -> None:
    path = tmp_path / "db"
    path.write_text("x")
    for mode in (0o644, 0o640, 0o604):
        path.chmod(mode)
        with pytest.raises(FileRefused, match=f"mode {mode:o}"):
            open_private(path)
        os.close(open_private(path, narrow=True))
        assert _mode(path) == 0o600
    for mode in (0o620, 0o602, 0o666, 0o601):
        path.chmod(mode)
        with pytest.raises(FileRefused, match=f"mode {mode:o}"):
            open_private(path, narrow=True)


@as_root
def test_what_belongs_to_others_is_refused(tmp_path: Path) -> None:
    state = tmp_path / "state"
    private_directory(state)
    os.close(open_private(state / "db"))
    os.chown(state / "db", NOBODY, NOBODY)
    with pytest.raises(FileRefused, match=f"belongs to uid {NOBODY}"):
        open_private(state / "db")
    with pytest.raises(FileRefused, match=f"belongs to uid {NOBODY}"):
        check_secret(state / "db")
    with pytest.raises(FileRefused, match=f"belongs to uid {NOBODY}"):
        LockFile(state / "db", "it", "wait")
    os.chown(state, NOBODY, NOBODY)
    with pytest.raises(FileRefused, match=f"belongs to uid {NOBODY}"):
        private_directory(state)
    with pytest.raises(FileRefused, match=f"belongs to uid {NOBODY}"):
        shared_directory(state)


def test_what_others_may_write_is_refused(tmp_path: Path) -> None:
    state = tmp_path / "state"
    private_directory(state)
    state.chmod(0o770)
    with pytest.raises(FileRefused, match=r"mode 770.*chmod go-w"):
        private_directory(state)
    state.chmod(0o755)
    private_directory(state)
    tmp_path.chmod(0o777)
    try:
        with pytest.raises(FileRefused, match=f"chmod o-w {tmp_path}"):
            private_directory(state)
        tmp_path.chmod(0o1777)
        private_directory(state)
        shared_directory(tmp_path)
    finally:
        tmp_path.chmod(0o700)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(state / "s"))
    os.mkfifo(state / "pipe", 0o600)
    for name in ("pipe", "s"):
        with pytest.raises(OSError):  # noqa: PT011  # a socket cannot even be opened
            open_private(state / name)
    (state / "file").write_text("")
    with pytest.raises(FileRefused, match="not a directory"):
        private_directory(state / "file")


def test_a_lock_names_its_holder_and_ends_with_it(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        LockFile(path, "it", "wait")
        os.write(writer, b"x")
        signal.pause()
        os._exit(0)
    assert os.read(reader, 1) == b"x"
    os.close(reader)
    os.close(writer)
    with pytest.raises(InUse, match=f"^it is in use by process {child}: wait$") as caught:
        LockFile(path, "it", "wait")
    assert caught.value.holder == child
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    mine = LockFile(path, "it", "wait")
    assert path.read_text() == f"{os.getpid()}\n"
    mine.abort()
    mine.abort()
