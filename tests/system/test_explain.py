"""`ctl explain` of a real daemon: what is missing is named, and what it says to do helps."""

from __future__ import annotations

import json
import shlex
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import PkiFixture
from tests.system.daemon import RunningDaemon, daemon

QUIET = ("--demo", "--listen", "127.0.0.1:0", "--set", "demo.consumer_listen=127.0.0.1:0")


def _steps(running: RunningDaemon, *arguments: str) -> tuple[int, list[dict[str, Any]]]:
    done = running.ctl("explain", *arguments, "--json", check=False)
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return done.returncode, found


def _missing(steps: list[dict[str, Any]]) -> list[str]:
    return [one["step"] for one in steps if one["ok"] is False]


def _do(running: RunningDaemon, remedy: str) -> None:
    """Run the command that a remedy names."""
    words = shlex.split(remedy[remedy.index("trunkline ctl ") :])
    running.ctl(*words[2:])


def _agents(running: RunningDaemon) -> tuple[str, str, str]:
    """Consumer, provider and service of the demo, once both are here."""
    deadline = time.monotonic() + 60
    while True:
        rows = json.loads(
            running.ctl("agents", "--over", "0", "--json", check=False).stdout or "[]"
        )
        providers = [row for row in rows if row["services"]]
        if len(rows) == 2 and providers:
            consumer = next(row for row in rows if not row["services"])
            return consumer["agent"], providers[0]["agent"], providers[0]["services"][0]
        assert time.monotonic() < deadline, rows
        time.sleep(0.1)


@pytest.mark.timeout(150)
def test_what_is_missing_is_named_with_the_rule_to_add(tmp_path: Path, pki: PkiFixture) -> None:
    rules = tmp_path / "rules.toml"
    rules.write_text(
        '[[rule]]\nid = "shut"\ntenant = "demo"\ncaller = "*"\ntarget = "outrelay://*"\n'
        'decision = "deny"\n'
    )
    flags = ("--policy", str(rules), "--set", "demo.tenant=demo")
    with daemon(tmp_path, *QUIET, *flags) as running:
        consumer, provider, service = _agents(running)
        about = ("--caller", consumer, "--service", service)
        code, steps = _steps(running, *about)
        assert [one["step"] for one in steps] == [
            "certificate", "connection", "first rule", "registration", "second rule", "target",
            "room",
        ]  # fmt: skip
        assert (code, _missing(steps)) == (1, ["first rule", "second rule"])
        assert "no matching rule" in steps[2]["says"]
        assert "rule shut (file): * -> outrelay://*" in steps[4]["says"]
        _do(running, steps[2]["remedy"])
        _do(running, steps[4]["remedy"])
        code, steps = _steps(running, *about)
        assert (code, _missing(steps)) == (0, [])
        assert steps[3]["says"] == f"{service} is provided by {provider} here"
        listen = running.wait_for(r"demo: curl (http://\S+)")[1]
        assert urllib.request.urlopen(listen, timeout=10).status == 200

        # A part of the URI is enough, a service nobody has is named with the one that is there.
        wrong = service[:-1]
        code, steps = _steps(running, "--caller", consumer[-8:], "--service", wrong)
        assert (code, _missing(steps)) == (1, ["first rule", "registration"])
        assert f"is {service} meant?" in steps[3]["remedy"]
        # Nothing is recorded that nobody did.
        assert running.ctl("audit", "query", "--tenant", "demo", "--target", wrong).stdout == ""
        # Nothing is recorded that nobody did.
        assert running.ctl("audit", "query", "--tenant", "demo", "--target", wrong).stdout == ""
        # Who is not here; and a certificate of another CA.
        stranger = pki.foreign_agent
        code, steps = _steps(running, "--cert", str(stranger.certificate), "--service", service)
        assert {"certificate", "connection"} <= set(_missing(steps))
        assert "a CA that this relay does not trust" in steps[0]["says"]
        own = running.state / "pki"
        mine = next(one for one in own.glob("*.crt") if "consumer" in one.name)
        code, steps = _steps(running, "--cert", str(mine), "--service", service)
        assert (code, steps[0]["ok"]) == (0, True)
        nobody = running.ctl("explain", "--caller", "zz", "--service", service, check=False)
        assert (nobody.returncode, nobody.stdout) == (1, "")
        assert "no agent that is connected has zz" in nobody.stderr
        shown = running.ctl("explain", *about).stdout.splitlines()
        assert shown[0].startswith("ok      certificate   accepted when it connected")
