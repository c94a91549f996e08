"""The real daemon as a subprocess, on free ports, with its state in a temporary directory."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


class Running:
    """A program whose output goes to a file."""

    def __init__(self, process: subprocess.Popen[str], log: Path) -> None:
        self.process = process
        self._log = log

    @property
    def output(self) -> str:
        """Everything it wrote so far."""
        return self._log.read_text()

    def wait_for(self, pattern: str, *, seconds: float = 60.0) -> re.Match[str]:
        """The first match of a pattern in its output."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            match = re.search(pattern, self.output)
            if match:
                return match
            if self.process.poll() is not None:
                raise AssertionError(f"it ended: {self.output}")
            time.sleep(0.05)
        raise AssertionError(f"no {pattern!r} in {seconds} s: {self.output}")

    def stop(self, *, seconds: float = 30.0) -> int:
        """SIGTERM; the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(seconds)


class RunningDaemon(Running):
    """A daemon, and its control socket."""

    def __init__(self, process: subprocess.Popen[str], state: Path, log: Path) -> None:
        super().__init__(process, log)
        self.socket = state / "control.sock"
        self.state = state

    def ctl(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run `trunkline ctl`."""
        command = [sys.executable, "-m", "tools.entry", "ctl", "--socket", str(self.socket)]
        result = subprocess.run(
            [*command, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=60
        )
        if check and result.returncode:
            raise AssertionError(f"ctl {arguments}: {result.stdout}{result.stderr}")
        return result

    def tree(self) -> dict[str, dict[str, Any]]:
        """The tree by path."""
        found: dict[str, dict[str, Any]] = {}

        def walk(node: dict[str, Any]) -> None:
            found[node["path"]] = node
            for child in node["children"]:
                walk(child)

        walk(json.loads(self.ctl("tree", "--json").stdout))
        return found


@contextmanager
def daemon(
    tmp_path: Path, *arguments: str, program: tuple[str, ...] = ("supervisor.py",)
) -> Iterator[RunningDaemon]:
    """Run `python supervisor.py`, or another program like it, until the block ends."""
    state = tmp_path / "s"
    log = tmp_path / "daemon.log"
    process = _start(log, *program, "--state-directory", str(state), *arguments)
    with _ended(process):
        yield RunningDaemon(process, state, log)


@contextmanager
def agent(log: Path, *arguments: str) -> Iterator[Running]:
    """Run `trunkline agent` with these arguments until the block ends."""
    process = _start(log, "-m", "tools.entry", "agent", *arguments)
    with _ended(process):
        yield Running(process, log)


def _start(log: Path, *program: str) -> subprocess.Popen[str]:
    with log.open("w") as output:
        return subprocess.Popen(
            [sys.executable, *program],
            cwd=ROOT,
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )


@contextmanager
def _ended(process: subprocess.Popen[str]) -> Iterator[None]:
    """It does not outlive the block, and neither do its children."""
    try:
        yield
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait(5)
