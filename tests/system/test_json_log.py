"""Whoever asks for JSON gets nothing else: announcements, refusals, usage, tracebacks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import PkiFixture
from tests.system.daemon import ROOT, daemon

JSON = ("--log-format", "json")


def _records(text: str) -> list[dict[str, Any]]:
    """Every line, each of which must be a record of the log."""
    found = [json.loads(line) for line in text.splitlines()]
    assert all({"time", "level", "message"} <= set(one) for one in found), text
    return found


def _ended(*program: str, env: dict[str, str] | None = None) -> tuple[int, list[dict[str, Any]]]:
    done = subprocess.run(
        [sys.executable, *program],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=50,
        env={**os.environ, **(env or {})},
    )
    return done.returncode, _records(done.stdout)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("how", ["--demo", "--demo=cluster"])
def test_a_life_of_the_demo(tmp_path: Path, how: str) -> None:
    quiet = ("--listen", "127.0.0.1:0", "--set", "demo.consumer_listen=127.0.0.1:0")
    with daemon(tmp_path, how, *JSON, *quiet) as running:
        running.wait_for(r'"message":"demo: curl http://')
        assert running.stop() == 0
        said = [one["message"] for one in _records(running.output)]
    assert any(one.startswith("trunkline: control socket ") for one in said)


@pytest.mark.parametrize("program", [("-m", "tools.entry", "serve"), ("supervisor.py",)])
@pytest.mark.parametrize(
    "more, code, said",
    [
        (("--log-level", "LOUD"), 2, "log.level: must be one of"),
        (("--bogus",), 2, "No such option '--bogus'"),
        (("--cert", "/no", "--key", "/no", "--ca", "/no"), 2, "node.tls.key: /no: no such file"),
        (("--demo", "--check"), 0, "settings are valid"),
        (("--demo", "--listen", "192.0.2.1:1"), 71, "not started: edge.listen: 192.0.2.1:1"),
    ],
)
def test_refused_starts_of_the_daemon(
    tmp_path: Path, program: tuple[str, ...], more: tuple[str, ...], code: int, said: str
) -> None:
    state = ("--state-directory", str(tmp_path / "s"))
    ended, records = _ended(*program, *JSON, *state, *more)
    assert ended == code
    assert said in " ".join(one["message"] for one in records)


def test_the_settings_file_says_it_too(tmp_path: Path) -> None:
    file = tmp_path / "trunkline.toml"
    file.write_text('[log]\nformat = "json"\n[edge]\nlisen = []\n')
    code, records = _ended("supervisor.py", "--config", str(file))
    assert code == 2
    assert "edge.lisen: unknown setting; did you mean" in records[0]["message"]
    code, records = _ended("supervisor.py", env={"TRUNKLINE_CONFIG": str(file)})
    assert code == 2


def test_refused_starts_of_an_agent(pki: PkiFixture) -> None:
    agent = ("-m", "tools.entry", "agent", "provide", "--service", "x", "--target", "127.0.0.1:9")
    leaf = pki.provider
    files = ("--cert", str(leaf.certificate), "--ca", str(pki.ca), "--key")
    wrong = str(pki.consumer.key)
    code, records = _ended(*agent, *files, wrong, *JSON)
    assert (code, len(records)) == (2, 1)
    assert records[0]["message"] == f"{wrong} is not the key of {leaf.certificate}"
    env = {"TRUNKLINE_AGENT_LOG_FORMAT": "json"}
    code, records = _ended(*agent, *files, str(leaf.key), "--log-level", "LOUD", env=env)
    assert (code, len(records)) == (2, 1)
    assert "Invalid value for '--log-level'" in records[0]["message"]
    code, records = _ended(*agent, *files, str(leaf.key), "--check", env=env)
    assert [one["message"] for one in records] == [f"settings are valid: {leaf.identity}"]


@pytest.mark.parametrize(
    "fault",
    [
        "raise RuntimeError('boom')",
        "import threading; t = threading.Thread(target=lambda: 1 / 0); t.start(); t.join()",
        "import warnings; warnings.warn('boom')",
        "import asyncio; asyncio.get_event_loop_policy().new_event_loop()"
        ".call_exception_handler({'message': 'boom', 'exception': RuntimeError('boom')})",
        "exec('class A:\\n def __del__(self): raise RuntimeError(\"boom\")'); A()",
    ],
)
def test_what_nobody_caught(fault: str) -> None:
    _, records = _ended(
        "-W",
        "ignore::DeprecationWarning",
        "-c",
        "from actors.node.logging import install\n"
        "from actors.node.early_words import log_the_uncaught\n"
        f"install('INFO', 'json')\nlog_the_uncaught()\n{fault}\n",
    )
    assert records
    text = str(records)
    assert "boom" in text or "ZeroDivisionError" in text


def test_a_bad_log_level_of_the_forwarder_is_one_sentence() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tools.entry", "forward", "--to", "127.0.0.1:1", "--local",
         "127.0.0.1:2", "--log-level", "LOUD"],
        cwd=ROOT, capture_output=True, text=True, timeout=50,
    )  # fmt: skip
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "Invalid value for '--log-level'" in done.stderr
