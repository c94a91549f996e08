"""The control socket's file: private, never taken from a live daemon, always from a dead one."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
from pathlib import Path

import pytest

from actors.admin.listener import ControlListener, ControlSocketBusy
from tests.admin.rig import node
from tests.conftest import run

NOBODY = 65534


def _bound(path: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.bind(str(path))
    return sock


def test_the_file_is_private_and_gone_afterwards(tmp_path: Path) -> None:
    path = tmp_path / "state" / "run" / "control.sock"

    async def main() -> None:
        old = os.umask(0)
        try:
            listener = ControlListener(path)
        finally:
            os.umask(old)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        assert stat.S_IMODE(path.parent.parent.stat().st_mode) == 0o700
        listener.abort()
        listener.abort()

    run(main())
    assert not path.exists()


def test_a_live_daemon_keeps_its_socket(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"

    async def main() -> None:
        first = ControlListener(path)
        with pytest.raises(ControlSocketBusy, match="another daemon is running"):
            ControlListener(path)
        assert path.exists()
        first.abort()
        ControlListener(path).abort()

    run(main())


def test_the_socket_of_a_dead_process_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    _bound(path).close()

    async def main() -> None:
        listener = ControlListener(path)
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            client.connect(str(path))
        listener.abort()

    run(main())


def test_a_stranger_that_answers_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"

    async def main() -> None:
        with _bound(path) as other:
            other.listen()
            with pytest.raises(ControlSocketBusy, match="answers here"):
                ControlListener(path)
            assert path.exists()

    run(main())


def test_a_file_is_never_deleted(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    path.write_text("precious")

    async def main() -> None:
        with pytest.raises(ControlSocketBusy, match="not a socket"):
            ControlListener(path)

    run(main())
    assert path.read_text() == "precious"


def test_a_directory_others_may_write_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)

    async def main() -> None:
        with pytest.raises(ControlSocketBusy, match="chmod go-w"):
            ControlListener(tmp_path / "control.sock")

    run(main())


def test_a_file_that_took_our_place_is_not_removed(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"

    async def main() -> None:
        listener = ControlListener(path)
        path.unlink()
        path.write_text("somebody else's")
        listener.abort()

    run(main())
    assert path.exists()


def test_another_user_is_told_so_and_turned_away(monkeypatch: pytest.MonkeyPatch) -> None:
    as_root = os.geteuid() == 0
    if not as_root:  # then we are the stranger: the daemon believes to be somebody else
        own = os.geteuid()
        monkeypatch.setattr(os, "geteuid", lambda: own + 1)

    async def main() -> bytes:
        async with node() as one:
            one.socket.parent.chmod(0o755)
            one.socket.chmod(0o666)
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stranger:
                if as_root:
                    os.seteuid(NOBODY)
                try:
                    stranger.connect(str(one.socket))
                finally:
                    if as_root:
                        os.seteuid(0)
                stranger.setblocking(False)
                async with asyncio.timeout(5.0):
                    answer = await asyncio.get_running_loop().sock_recv(stranger, 4096)
                    assert await asyncio.get_running_loop().sock_recv(stranger, 4096) == b""
            return answer

    assert b'"refused"' in run(main())
