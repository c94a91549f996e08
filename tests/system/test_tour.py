"""The tour of the README, as it is written there; `tests.system.tour` walks it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.system.tour import ROOT, blocks


def test_every_command_of_the_tour_is_in_a_block() -> None:
    """`walk` goes through the blocks one by one: a step that is added there is added here."""
    assert len(blocks()) == 9


@pytest.mark.timeout(300)
def test_the_tour_does_what_it_says(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.system.tour", str(tmp_path / "checkout")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr[-5000:]
