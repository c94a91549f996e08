"""Walks the tour of README.md: the code blocks of its steps, as they are written there.

A program of its own, `python -m tests.system.tour DIRECTORY`, because the tour has fixed ports: it
takes a network of its own where the kernel gives one. Ends with 0 when every step did what it says.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import pty
import re
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000
SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 1


def blocks() -> list[str]:
    """The shell blocks of the tour, in order."""
    text = (ROOT / "README.md").read_text()
    tour = text[text.index("## A five-minute tour") : text.index("## What works today")]
    found = re.findall(r"^( *)```sh\n(.*?)^\1```$", tour, re.MULTILINE | re.DOTALL)
    return ["\n".join(line.strip() for line in block.splitlines()) for _, block in found]


def own_network() -> None:
    """Leave the network of the machine, if that is allowed; else its ports must be free."""
    libc = ctypes.CDLL(None, use_errno=True)
    wanted = CLONE_NEWNET if os.geteuid() == 0 else CLONE_NEWUSER | CLONE_NEWNET
    if libc.unshare(wanted):
        return
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        request = struct.pack("16sh14x", b"lo", 0)
        (flags,) = struct.unpack("16xh14x", fcntl.ioctl(sock, SIOCGIFFLAGS, request))
        fcntl.ioctl(sock, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", flags | IFF_UP))


def until(what: str, condition: Callable[[], object], seconds: float = 30.0) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {seconds:g} s"
        time.sleep(0.05)


class Terminal:
    """A program in a terminal of its own, whose screen goes to a file."""

    def __init__(self, directory: Path, name: str, command: str) -> None:
        self.log = directory / f"{name}.log"
        # What goes to standard error may come in the middle of a line: curl shows its progress.
        self.errors = directory / f"{name}.errors"
        with self.log.open("w") as log, self.errors.open("w") as errors:
            self.process = subprocess.Popen(
                ["bash", "-c", f"exec {command}"],
                cwd=directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=errors,
                start_new_session=True,
            )

    def says(self, what: str, seconds: float = 60.0) -> None:
        def said() -> object:
            return re.search(what, self.log.read_text()) or re.search(what, self.errors.read_text())

        until(f"{what!r} in {self.log.name}", said, seconds)

    def grows(self) -> None:
        """More comes."""
        size = self.log.stat().st_size
        until(f"more in {self.log.name}", lambda: self.log.stat().st_size > size, 15.0)

    def ctrl_c(self) -> int:
        """As a terminal does it: everybody in the foreground gets the signal."""
        os.killpg(self.process.pid, signal.SIGINT)
        return self.process.wait(45)

    def close(self) -> None:
        """Kill what is left of it."""
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return
        self.process.wait(10)


class Shell:
    """The third terminal: one shell for all that is typed there."""

    def __init__(self, directory: Path) -> None:
        self._process = subprocess.Popen(
            ["bash"],
            cwd=directory,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def type(self, line: str, seconds: float = 60.0) -> tuple[int, str]:
        """Run a line; exit status and what it printed."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{line}\n__=$?; echo; echo ++$__++\n")
        self._process.stdin.flush()
        said, deadline = "", time.monotonic() + seconds
        while (end := re.search(r"^\+\+(\d+)\+\+$", said, re.MULTILINE)) is None:
            ready, _, _ = select.select([self._process.stdout], [], [], deadline - time.monotonic())
            assert ready, f"{line}: nothing after {seconds:g} s: {said}"
            said += os.read(self._process.stdout.fileno(), 65536).decode()
        return int(end[1]), said[: end.start()]

    def works(self, line: str, seconds: float = 60.0) -> str:
        code, said = self.type(line, seconds)
        assert code == 0, f"{line}: {code}: {said}"
        return said

    def close(self) -> None:
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(10)


def inspect(command: str, directory: Path) -> None:
    """A terminal that a person looks at: the tree is drawn, and `q` leaves."""
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(directory)
        os.environ |= {"TERM": "xterm-256color", "LINES": "40", "COLUMNS": "120"}
        os.execvp("bash", ["bash", "-c", f"exec {command}"])
    fcntl.ioctl(terminal, 0x5414, struct.pack("HHHH", 40, 120, 0, 0))  # TIOCSWINSZ
    seen = b""
    deadline = time.monotonic() + 40
    while b"registry" not in seen:
        assert time.monotonic() < deadline, f"no tree: {seen[-2000:]!r}"
        if select.select([terminal], [], [], 1.0)[0]:
            seen += os.read(terminal, 65536)
    os.write(terminal, b"q")
    while True:
        assert time.monotonic() < deadline, "it does not leave"
        try:
            if select.select([terminal], [], [], 1.0)[0] and not os.read(terminal, 65536):
                break
        except OSError:  # EIO: the other end is closed
            break
    _, status = os.waitpid(child, 0)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(status) == 0


def walk(directory: Path) -> None:
    """All steps."""
    run, curl, look, kill, lose, own, rain, cluster, relay = blocks()
    opened: list[Terminal] = []

    def terminal(name: str, command: str) -> Terminal:
        opened.append(Terminal(directory, name, command))
        return opened[-1]

    shell = Shell(directory)
    try:
        first = terminal("first", run)
        url, stream = curl.splitlines()
        first.says(f"(?m)^demo: {re.escape(url)}$")
        assert "1. consumer agent: " in shell.works(url)
        live = terminal("second", stream)
        live.says("1\n2\n")

        path, inspector, *looks, events = look.splitlines()
        shell.works(path)
        bin_path = f'PATH="{directory}/.venv/bin:$PATH"'
        inspect(f"env {bin_path} {inspector}", directory)
        for line in looks:
            assert "registry" in shell.works(line) or "demo" in shell.works(line)
        decisions = terminal("events", f"env {bin_path} {events}")

        for line in kill.splitlines():
            said = shell.works(line)
            live.grows()
            if line.startswith("curl"):
                assert "1. consumer agent: " in said
        decisions.says("registry")
        decisions.ctrl_c()
        shell.works(lose)
        until("the stream is lost", lambda: live.process.poll() is not None)
        until("curl works again", lambda: shell.type(url)[0] == 0)

        for line in own.splitlines()[:-1]:
            shell.works(line)
        last = own.splitlines()[-1]
        until("the own service", lambda: "Directory listing" in shell.type(last)[1])

        code, said = shell.type(rain, 120.0)
        assert code in (0, 1), said
        assert "seed 1" in said

        first.ctrl_c()  # make ends by the signal, the daemon in order
        first.says("stopped: shutdown")
        second = terminal("cluster", cluster)
        second.says("demo: stop a relay with")
        live = terminal("stream", stream)
        live.says("1\n2\n")
        shell.works(relay)
        live.grows()
        live.grows()
        assert live.process.poll() is None
        assert second.ctrl_c() == 0
    finally:
        shell.close()
        for one in opened:
            one.close()


def main() -> None:
    directory = Path(sys.argv[1])
    # A checkout as it is after the installation, with a state of its own.
    (directory / ".venv").mkdir(parents=True)
    (directory / ".venv" / "bin").symlink_to(ROOT / ".venv" / "bin")
    for name in ("Makefile", "pyproject.toml", "requirements.lock", "requirements-run.lock"):
        shutil.copy(ROOT / name, directory)
    (directory / ".venv" / ".installed-to-run").touch()
    own_network()
    walk(directory)


if __name__ == "__main__":
    main()
