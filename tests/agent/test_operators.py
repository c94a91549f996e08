"""An agent from a file, and what operators see of it: control socket, metrics, readiness."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.conftest import PkiFixture
from tests.system.daemon import ROOT, agent, daemon
from tools.agent.main import cli

RULES = '[[rule]]\nid = "all"\ntenant = "acme"\ncaller = "*"\ntarget = "*"\ndecision = "allow"\n'


def _file(tmp_path: Path, pki: PkiFixture, more: str) -> Path:
    path = tmp_path / "agent.toml"
    leaf = pki.provider
    files = f'cert = "{leaf.certificate}"\nkey = "{leaf.key}"\nca = "{pki.ca}"\n'
    path.write_text(files + more)
    return path


def _ctl(file: Path, *arguments: str) -> str:
    command = [sys.executable, "-m", "tools.entry", "ctl", "--config", str(file), *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def _page(address: str, page: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://{address}{page}", timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_an_agent_from_a_file_is_asked_like_a_relay(tmp_path: Path, pki: PkiFixture) -> None:
    rules = tmp_path / "rules.toml"
    rules.write_text(RULES)
    relay = pki.relay
    serve = (
        *("--listen", "127.0.0.1:0", "--policy", str(rules), "--ca", str(pki.ca)),
        *("--cert", str(relay.certificate), "--key", str(relay.key)),
    )
    with daemon(tmp_path, *serve) as running:
        where = running.wait_for(r"relay r1 on (\S+) \(QUIC\)")[1]
        file = _file(
            tmp_path,
            pki,
            f'relay = ["{where}"]\ncontrol_socket = "own/agent.sock"\n'
            'metrics_listen = "127.0.0.1:0"\n[provide]\nweb = ["127.0.0.1:9", "127.0.0.1:10"]\n',
        )
        with agent(tmp_path / "agent.log", "--config", str(file)) as one:
            one.wait_for("connected to")
            tree = json.loads(_ctl(file, "tree", "--json"))
            assert {"/link", "/bridges", "/ops"} <= {child["path"] for child in tree["children"]}
            link = json.loads(_ctl(file, "describe", "/link", "--json"))["describe"]
            assert link["agent_uri"] == pki.provider.identity
            assert link["registered"] == ["web"]
            assert "certificates read again" in _ctl(file, "reload")
            web = json.loads(_ctl(file, "describe", "/observe/http", "--json"))["describe"]
            assert _page(web["address"], "/ready")[0] == 200
            assert "\ntrunkline_agent_connected 1.0\n" in _page(web["address"], "/metrics")[1]
            assert (
                "\ntrunkline_certificate_expires_seconds " in _page(web["address"], "/metrics")[1]
            )
            assert running.stop() == 0
            one.wait_for("no relay answers|relay connection lost|goes away")
            code, text = _page(web["address"], "/ready")
            assert (code, "/link" in text) == (503, True)
            assert one.stop() == 0


@pytest.mark.parametrize(
    "more, said",
    [
        ('rely = ["127.0.0.1:1"]\n', "agent.toml: rely: no such setting; did you mean relay?"),
        ("[provide]\nweb = 80\n", "agent.toml: '80': "),
        ("provide = 3\n", "agent.toml: provide: a table is wanted"),
        ("cert = [[]]\n", "agent.toml: not TOML: Cannot overwrite a value"),
        ("[intercept]\nservice = 'a'\n", "did you mean intercept.services?"),
        (
            "log_level = 'LOUD'\n[provide]\na = '127.0.0.1:9'\n",
            "agent.toml: Invalid value for '--log-l",
        ),
        ("", "nothing to do"),
    ],
)
def test_a_bad_file_is_one_sentence(tmp_path: Path, pki: PkiFixture, more: str, said: str) -> None:
    result = CliRunner().invoke(cli, ["--config", str(_file(tmp_path, pki, more)), "--check"])
    assert result.exit_code == 2
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert said in line
    assert str(tmp_path) in line


def test_the_environment_wins_over_the_file(tmp_path: Path, pki: PkiFixture) -> None:
    file = _file(
        tmp_path, pki, "key = 'k'\n".replace("key", "uri") + "[provide]\na = '127.0.0.1:9'\n"
    )
    code = CliRunner().invoke(cli, ["--config", str(file), "--check"])
    assert code.exit_code == 2
    assert "it is of" in code.stderr
    env = {"TRUNKLINE_AGENT_URI": pki.provider.identity}
    assert CliRunner().invoke(cli, ["--config", str(file), "--check"], env=env).exit_code == 0


def test_a_socket_that_cannot_be_had_is_one_line(tmp_path: Path, pki: PkiFixture) -> None:
    taken = tmp_path / "taken"
    taken.write_text("a file")
    file = _file(tmp_path, pki, f'control_socket = "{taken}"\n[provide]\na = "127.0.0.1:9"\n')
    command = [sys.executable, "-m", "tools.entry", "agent", "--config", str(file)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 71
    (line,) = [line for line in ended.stderr.splitlines() if "ERROR" in line]
    assert f"not started: control_socket: {taken} exists and is not a socket" in line


def test_the_unit_runs_what_there_is() -> None:
    unit = (ROOT / "config" / "trunkline-agent.service").read_text()
    (start,) = [line for line in unit.splitlines() if line.startswith("ExecStart=")]
    assert start.endswith("/trunkline agent --config /etc/trunkline/agent.toml")
    assert "log_format" in {option.name for option in cli.commands["run"].params}
    assert "Environment=TRUNKLINE_AGENT_LOG_FORMAT=json" in unit
