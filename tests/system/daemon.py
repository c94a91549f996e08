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


class RunningDaemon:
    """A daemon that printed its ready lines."""

    def __init__(self, process: subprocess.Popen[str], state: Path, log: Path) -> None:
        self.process = process
        self.socket = state / "control.sock"
        self.state = state
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
                raise AssertionError(f"the daemon ended: {self.output}")
            time.sleep(0.05)
        raise AssertionError(f"no {pattern!r} in {seconds} s: {self.output}")

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

    def stop(self, *, seconds: float = 30.0) -> int:
        """SIGTERM; the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(seconds)


@contextmanager
def daemon(
    tmp_path: Path, *arguments: str, program: tuple[str, ...] = ("supervisor.py",)
) -> Iterator[RunningDaemon]:
    """Run `python supervisor.py`, or another program like it, until the block ends."""
    state = tmp_path / "s"
    log = tmp_path / "daemon.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, *program, "--state-directory", str(state), *arguments],
            cwd=ROOT,
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
    running = RunningDaemon(process, state, log)
    try:
        yield running
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait(5)
