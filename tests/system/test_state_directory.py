"""One daemon has a state directory, and nobody else's hands are in it."""

from __future__ import annotations

import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import PkiFixture
from tests.system.daemon import ROOT, daemon

NOBODY = 65534
EXIT_RESOURCE = 71


def serve(pki: PkiFixture, state: Path, *more: str) -> list[str]:
    return [
        sys.executable, "supervisor.py", "--state-directory", str(state),
        "--listen", "127.0.0.1:0", "--cert", str(pki.relay.certificate),
        "--key", str(pki.relay.key), "--ca", str(pki.ca), *more,
    ]  # fmt: skip


def refused(command: list[str]) -> str:
    """Start it, see that it ends at once with the documented status and one sentence."""
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=50)
    assert ended.returncode == EXIT_RESOURCE, ended.stderr
    assert not ended.stdout
    lines = ended.stderr.splitlines()
    assert len(lines) == 1, ended.stderr
    return lines[0]


def endpoints(database: Path) -> list[str]:
    with sqlite3.connect(f"file:{database}?mode=ro", uri=True) as connection:
        rows = connection.execute("SELECT endpoint FROM relay_instances").fetchall()
    connection.close()
    return [row[0] for row in rows]


def test_a_second_daemon_touches_nothing(tmp_path: Path, pki: PkiFixture) -> None:
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    database = tmp_path / "elsewhere" / "control.db"
    mine = ("--listen", "127.0.0.1:0", "--advertise", "first.example:1")
    certificates = ("--cert", str(pki.relay.certificate), "--key", str(pki.relay.key),
                    "--ca", str(pki.ca))  # fmt: skip
    at = ("--set", f"control.database={database}")
    with daemon(tmp_path, *mine, *certificates, *at) as first:
        first.wait_for("control socket")
        deadline = time.monotonic() + 20
        while endpoints(database) != ["first.example:1"]:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        pid = first.process.pid
        other = tmp_path / "other"
        theirs = ("--advertise", "second.example:2", *at)
        said = refused(serve(pki, first.state, *theirs))
        assert said == (
            f"state directory {first.state} is in use by process {pid}: "
            "stop it, or name another with --state-directory"
        )
        # Nor with a part of it.
        said = refused(serve(pki, other, *theirs, "--control-socket", str(first.socket)))
        assert f"{first.socket} is in use by process {pid}: another daemon is running" in said
        said = refused(serve(pki, other, *theirs))
        assert said.startswith(f"database {database} is in use by process {pid}: stop it, or")
        assert endpoints(database) == ["first.example:1"]
        assert first.ctl("tree").returncode == 0
        # Nor when somebody removed the lock files: the socket still answers.
        for lock in [*first.state.glob("*.lock"), *database.parent.glob("*.lock")]:
            lock.unlink()
        said = refused(serve(pki, first.state, *theirs, *at))
        assert f"{first.socket}: something that is not this daemon answers here" in said
        assert endpoints(database) == ["first.example:1"]
        # However the first ends, the next one may have it.
        os.killpg(pid, signal.SIGKILL)
        first.process.wait(10)
    with daemon(tmp_path, *mine, *certificates, *at) as again:
        again.wait_for("control socket")
        assert again.stop() == 0


def test_a_database_in_anothers_state_directory_is_its_own(tmp_path: Path, pki: PkiFixture) -> None:
    with daemon(tmp_path, *serve(pki, tmp_path)[4:]) as first:
        first.wait_for("control socket")
        database = first.state / "control.db"
        command = serve(pki, tmp_path / "other", "--set", f"control.database={database}")
        assert refused(command).startswith(f"database {database} is in use by process")


def test_paths_that_are_not_ours_alone_are_refused(tmp_path: Path, pki: PkiFixture) -> None:
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    link = tmp_path / "link"
    link.symlink_to(state)
    if os.geteuid() == 0:
        os.lchown(link, NOBODY, NOBODY)
    assert f"{link}: is a symbolic link" in refused(serve(pki, link))
    state.chmod(0o777)
    assert f"chmod go-w {state}" in refused(serve(pki, state))
    state.chmod(0o700)
    (state / "control.db").touch()
    (state / "control.db").chmod(0o660)
    assert f"chmod 600 {state / 'control.db'}" in refused(serve(pki, state))
    if os.geteuid() == 0:
        os.chown(state / "control.db", NOBODY, NOBODY)
        assert f"control.db: belongs to uid {NOBODY}" in refused(serve(pki, state))
        os.chown(state, NOBODY, NOBODY)
        assert f"{state}: belongs to uid {NOBODY}" in refused(serve(pki, state))
        os.chown(state, 0, 0)
    (state / "control.db").unlink()
    key = tmp_path / "relay.key"
    key.write_bytes(pki.relay.key.read_bytes())
    key.chmod(0o644)
    command = serve(pki, state)
    command[command.index(str(pki.relay.key))] = str(key)
    assert f"chmod 600 {key}" in refused(command)


def test_an_agent_does_not_use_a_key_that_others_can_read(tmp_path: Path, pki: PkiFixture) -> None:
    key = tmp_path / "agent.key"
    key.write_bytes(pki.provider.key.read_bytes())
    key.chmod(0o640)
    command = [
        sys.executable, "-m", "tools.entry", "agent", "provide", "--service", "web",
        "--target", "127.0.0.1:9", "--cert", str(pki.provider.certificate), "--key", str(key),
        "--ca", str(pki.ca),
    ]  # fmt: skip
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30)
    assert ended.returncode == 2
    assert ended.stderr == f"{key}: open to other users (mode 640): chmod 600 {key}\n"


@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_modes_do_not_depend_on_the_umask(tmp_path: Path, pki: PkiFixture, umask: int) -> None:
    before = os.umask(umask)
    try:
        with daemon(tmp_path, *serve(pki, tmp_path)[4:]) as running:
            running.wait_for("control socket")
            modes = {
                path.name: path.lstat().st_mode & 0o777
                for path in (running.state, *running.state.iterdir())
            }
    finally:
        os.umask(before)
    assert modes.pop("s") == 0o700
    assert {"control.db", "control.db-wal", "control.sock", "daemon.lock"} <= set(modes)
    assert "control.db.lock" in modes
    assert set(modes.values()) == {0o600}, modes


@pytest.mark.parametrize("closed", ["<&-", "<&- >&-", "<&- >&- 2>&-", "2>&-"])
def test_a_daemon_without_standard_streams(tmp_path: Path, pki: PkiFixture, closed: str) -> None:
    """Its sockets do not get the numbers of what is printed to."""
    state = tmp_path / "s"
    script = f'exec "$@" {closed}'
    process = subprocess.Popen(["sh", "-c", script, "sh", *serve(pki, state)], cwd=ROOT,
                               stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL)  # fmt: skip
    try:
        client = [
            sys.executable,
            "-m",
            "tools.entry",
            "ctl",
            "--socket",
            str(state / "control.sock"),
        ]
        deadline = time.monotonic() + 30
        while True:
            try:
                with socket.socket(socket.AF_UNIX) as probe:
                    probe.connect(str(state / "control.sock"))
                break
            except OSError:
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.05)
        for number in (0, 1, 2):
            assert os.readlink(f"/proc/{process.pid}/fd/{number}") == os.devnull
        # A tool without them, too; and the line the daemon logs for it goes to nobody.
        asked = subprocess.run(["sh", "-c", script, "sh", *client, "kill", "/control/registry"],
                               cwd=ROOT, timeout=30)  # fmt: skip
        assert asked.returncode == 0
        assert process.poll() is None
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0


ADDRESSES = {
    "edge.listen": ("--listen",),
    "edge.listen_tcp": ("--listen-tcp",),
    "edge.forward.listen": ("--listen-forward",),
    "metrics.listen": ("--debug-listen",),
    "control.serve.listen": ("--set", "control.serve.enabled=true", "--set"),
    "demo.consumer_listen": ("--demo", "--set"),
}


@pytest.mark.parametrize("setting", ADDRESSES)
def test_an_address_in_use_ends_the_start_at_once(
    tmp_path: Path, pki: PkiFixture, setting: str
) -> None:
    """Status 71, and one line that says which setting and address, and what to do."""
    kind = socket.SOCK_STREAM
    if setting in ("edge.listen", "edge.forward.listen"):
        kind = socket.SOCK_DGRAM
    with socket.socket(socket.AF_INET, kind) as taken:
        taken.bind(("127.0.0.1", 0))
        if kind == socket.SOCK_STREAM:
            taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        *flags, last = ADDRESSES[setting]
        value = f"{setting}={address}" if last == "--set" else address
        told = not_started([*serve(pki, tmp_path / "s"), *flags, last, value])
    assert f"{setting}: {address} (" in told
    assert "Address already in use; another program listens there" in told


def test_a_store_that_is_none_ends_the_start_at_once(tmp_path: Path, pki: PkiFixture) -> None:
    database = tmp_path / "control.db"
    database.write_bytes(b"no database" * 100)
    database.chmod(0o600)
    told = not_started([*serve(pki, tmp_path / "s"), "--set", f"control.database={database}"])
    assert f"control.database: {database}: file is not a database" in told


def test_a_log_that_cannot_be_written_ends_the_start_at_once(
    tmp_path: Path, pki: PkiFixture
) -> None:
    told = not_started([*serve(pki, tmp_path / "s"), "--access-log", str(tmp_path)])
    assert f"log.access_file: {tmp_path}: Is a directory" in told


def not_started(command: list[str]) -> str:
    """The one line of the daemon that says why it does not start."""
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=50)
    assert ended.returncode == EXIT_RESOURCE, ended.stderr
    told = [line for line in ended.stderr.splitlines() if " INFO " not in line]
    assert len(told) == 1, ended.stderr
    return told[0]
