"""What `make run` installs: run-time packages only, and the versions that are tested."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def _pins(name: str) -> dict[str, str]:
    text = (ROOT / name).read_text()
    return dict(re.findall(r"^([a-z0-9-]+)==(\S+)", text, re.MULTILINE))


def _names(requirements: list[str]) -> set[str]:
    return {re.split(r"[^A-Za-z0-9-]", one)[0] for one in requirements}


def test_the_packages_to_run_are_those_of_the_tests_without_their_tools() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    to_run, everything = _pins("requirements-run.lock"), _pins("requirements.lock")
    assert _names(project["dependencies"]) <= set(to_run)
    assert to_run.items() <= everything.items()
    tools = _names(project["optional-dependencies"]["dev"]) - {"setuptools"}
    assert not tools & set(to_run)


def test_make_run_installs_no_more(tmp_path: Path) -> None:
    done = subprocess.run(
        ["make", "-n", "run", f"VENV={tmp_path}/venv"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert "-r requirements-run.lock" in done.stdout
    assert "-r requirements.lock" not in done.stdout
