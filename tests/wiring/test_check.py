"""`trunkline serve --check`: what a start would refuse, each with setting, value and cause."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from actors.wiring.check import problems
from config.schema import Settings
from tests.conftest import PkiFixture, run

ROOT = Path(__file__).resolve().parents[2]


def _problems(pki: PkiFixture, more: Mapping[str, object]) -> list[str]:
    tls = {"certificate": pki.relay.certificate, "key": pki.relay.key, "ca": pki.ca}
    quiet = {"edge": {"listen": ["127.0.0.1:0"], "listen_tcp": ["127.0.0.1:0"]}}
    return run(problems(Settings.model_validate({"node": {"tls": tls}, **quiet, **more})))


def test_nothing_is_wrong_with_good_settings(pki: PkiFixture) -> None:
    assert _problems(pki, {}) == []


def test_files_that_doors_read(pki: PkiFixture, tmp_path: Path) -> None:
    turn = {"turn": {"listen": ["127.0.0.1:0"], "secret_files": [tmp_path / "none"]}}
    found = [f"turn.secret_files: {tmp_path}/none: No such file or directory"]
    assert _problems(pki, turn) == found


def test_addresses_that_this_host_does_not_have(pki: PkiFixture) -> None:
    (line,) = _problems(pki, {"edge": {"listen": ["192.0.2.1:7443"], "listen_tcp": []}})
    assert line.startswith("edge.listen: 192.0.2.1:7443 (UDP): Cannot assign requested address; no")


def test_files_that_cannot_be_written(pki: PkiFixture, tmp_path: Path) -> None:
    dump = tmp_path / "nowhere" / "dump"
    (line,) = _problems(pki, {"metrics": {"dump": dump}})
    assert line == f"metrics.dump: {dump}: there is no directory {dump.parent}: make it"


@pytest.mark.parametrize("who", ["provider", "relay"])
def test_what_a_controller_is_shown(pki: PkiFixture, who: str) -> None:
    """A certificate for servers only gets nowhere as a client's; its key must be its own."""
    tls = {"certificate": pki.relay.certificate, "key": getattr(pki, who).key, "ca": pki.ca}
    found = _problems(pki, {"control": {"backend": "grpc", "tls": tls}})
    expected = f"{pki.provider.key} is not the key of {pki.relay.certificate}"
    assert found == ([] if who == "relay" else [expected])


def test_a_start_says_the_same_in_one_line(pki: PkiFixture, tmp_path: Path) -> None:
    settings = tmp_path / "t.toml"
    settings.write_text(
        f'[node]\nstate_directory = "{tmp_path}/state"\n[node.tls]\n'
        f'certificate = "{pki.relay.certificate}"\nkey = "{pki.relay.key}"\nca = "{pki.ca}"\n'
        '[edge]\nlisten = ["127.0.0.1:0"]\nlisten_tcp = ["127.0.0.1:0"]\n'
        f'[turn]\nlisten = ["127.0.0.1:0"]\nsecret_files = ["{tmp_path}/none"]\n'
    )
    command = [sys.executable, "supervisor.py", "--config", str(settings), "--log-level", "WARNING"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=50)
    assert ended.returncode == 71
    (line,) = ended.stderr.splitlines()
    assert line.endswith(
        f"ERROR    not started: turn.secret_files: {tmp_path}/none: No such file or directory"
    )
