"""`trunkline chaos` against a real daemon: it finds relay and certificates itself, and judges."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.system.daemon import ROOT, RunningDaemon, daemon

FREE_PORTS = ("--demo", "--listen", "127.0.0.1:0", "--set", "demo.consumer_listen=127.0.0.1:0")


def _chaos(running: RunningDaemon, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tools.entry", "chaos", "--socket", str(running.socket)]
    return subprocess.run(
        [*command, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=120
    )


@pytest.mark.timeout(200)
def test_chaos_finds_everything_itself_and_judges(tmp_path: Path) -> None:
    with daemon(tmp_path, *FREE_PORTS) as running:
        running.wait_for("demo: curl")
        # A tolerance for a loaded machine: what is exact to the second is measured elsewhere.
        # The demo's processes are left alone, because they take seconds to come back.
        result = _chaos(running, "--duration", "2", "--rate", "3", "--streams", "20",
                        "--within", "5", "--only", "/[ce]*")  # fmt: skip
        last = result.stdout.strip().splitlines()[-1]
        assert result.returncode == 0, result.stdout + result.stderr
        assert last.startswith("verdict: ok; seed 1: "), last
        faults, streams = re.search(r"(\d+) faults, .* (\d+) streams", last).groups()  # type: ignore[union-attr]
        assert int(faults) >= 2
        assert int(streams) > 20
        # Its agents are gone with it, and it left no certificate behind.
        assert sum(path.startswith("/edge/agents/") for path in running.tree()) <= 2
        assert not list((running.state / "pki").glob("*chaos*"))

        # A promise nobody can keep: the status says so.
        broken = _chaos(running, "--duration", "0.5", "--streams", "2", "--within", "0.000001",
                        "--only", "/control/registry")  # fmt: skip
        assert broken.returncode == 1, broken.stdout + broken.stderr
        assert broken.stdout.strip().splitlines()[-1].startswith("verdict: broken: ")
        assert "invariant 16: no new stream worked within" in broken.stdout

        # A stop in the middle of restarts ends in order, and in time.
        for place in ("/edge", "/control", "/node/web"):
            running.ctl("kill", place)
        assert running.stop(seconds=15) == 0


def test_chaos_says_what_it_cannot_do(tmp_path: Path) -> None:
    nobody = _run("--socket", str(tmp_path / "none.sock"), "--streams", "0")
    assert nobody.returncode == 3
    assert nobody.stdout.startswith("verdict: broken: no daemon answers")


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tools.entry", "chaos", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
