"""Two daemons: one serves its embedded controller, the other uses it; by command line only."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from tests.conftest import PkiFixture
from tests.controller.rig import free_port
from tests.system.daemon import RunningDaemon, daemon
from tests.system.test_demo import FREE_PORTS, _demo_url, _get


def _until(running: RunningDaemon, *arguments: str, holds: str, seconds: float = 20.0) -> str:
    deadline = time.monotonic() + seconds
    while True:
        output = running.ctl(*arguments, check=False).stdout
        if holds in output:
            return output
        assert time.monotonic() < deadline, f"no {holds!r} in {output!r}\n{running.output}"
        time.sleep(0.2)


@pytest.mark.timeout(150)
def test_a_relay_serves_on_while_its_controller_is_away(tmp_path: Path, pki: PkiFixture) -> None:
    address = str(free_port())
    for name in ("first", "again", "relay"):
        (tmp_path / name).mkdir()
    first = (
        *("--listen", "127.0.0.1:0", "--cert", str(pki.relay.certificate)),
        *("--key", str(pki.relay.key), "--ca", str(pki.ca)),
        *("--set", "control.serve.enabled=true", "--set", f"control.serve.listen={address}"),
        *("--set", f"control.database={tmp_path / 'shared.db'}"),
    )
    second = (*FREE_PORTS, "--relay-id", "r2", "--controller", address)
    with daemon(tmp_path / "relay", *second) as relay:
        with daemon(tmp_path / "first", *first) as controller:
            controller.wait_for(rf"controller on {address} \(gRPC\)")
            url = _demo_url(relay)
            assert b"consumer agent" in _get(url, seconds=30)
            rule = ("policy", "add", "--tenant", "acme", "--caller", "*", "--target", "new")
            added = controller.ctl(*rule, "--decision", "deny", "--controller", address).stdout
            _until(relay, "policy", "list", holds=added.strip())
            told = controller.ctl(
                *("audit", "query", "--tenant", "acme", "--controller", address, "--json")
            ).stdout
            decisions = [json.loads(line) for line in told.splitlines()]
            assert any(one["decision"] == "allow" for one in decisions)
            assert controller.stop() == 0
        _until(relay, "describe", "/control/link", "--json", holds='"watching": false')
        for _ in range(5):
            assert b"consumer agent" in _get(url, seconds=1)
        with daemon(tmp_path / "again", *first) as controller:
            controller.wait_for(rf"controller on {address} \(gRPC\)")
            _until(relay, "describe", "/control/link", "--json", holds='"watching": true')
            _until(controller, "describe", "/control/audit", holds="stored")
            assert controller.stop() == 0
        assert relay.stop() == 0
