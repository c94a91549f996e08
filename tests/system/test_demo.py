"""The tour of the README: run, curl, look, kill, see it recover, stop."""

from __future__ import annotations

import hashlib
import json
import stat
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from tests.system.daemon import RunningDaemon, daemon

FREE_PORTS = (
    "--demo",
    "--listen",
    "127.0.0.1:0",
    "--set",
    "demo.consumer_listen=127.0.0.1:0",
)


def _get(url: str, *, seconds: float = 10.0) -> bytes:
    """A GET that is repeated until it works: an actor may be restarting."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                return bytes(answer.read())
        except (OSError, urllib.error.URLError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def _demo_url(running: RunningDaemon) -> str:
    return running.wait_for(r"demo: curl (http://\S+)")[1]


@pytest.mark.timeout(150)
def test_the_demo_carries_real_http_and_survives_kills(tmp_path: Path) -> None:
    with daemon(tmp_path, *FREE_PORTS) as running:
        url = _demo_url(running)
        page = _get(url).decode()
        assert "1. consumer agent: /node/consumer/bridges/" in page
        assert "2. relay: /edge/streams/" in page
        assert "3. provider agent: /node/provider/bridges/" in page
        body = _get(f"{url}big?bytes=3000000")
        assert hashlib.sha256(body[:-65]).hexdigest() == body[-65:].decode().strip()

        tree = running.tree()
        for place in (
            "/",
            "/control/store",
            "/control/registry",
            "/control/policy",
            "/control/audit",
            "/edge/listeners/quic",
            "/node/provider",
            "/node/provider/link",
            "/ops/control",
        ):
            assert tree[place]["state"] in ("running", "busy"), place
        assert stat.S_IMODE(running.socket.stat().st_mode) == 0o600

        # A stream that is open while others die keeps flowing.
        with urllib.request.urlopen(f"{url}stream", timeout=10) as live:
            first = int(live.readline())
            for victim in ("/control/registry", "/control/policy", "/edge/listeners/quic"):
                running.ctl("kill", victim, "--reason", "test")
                assert int(live.readline()) > first
                assert "relay: /edge/streams/" in _get(url).decode()
        after = running.tree()
        for victim in ("/control/registry", "/control/policy", "/edge/listeners/quic"):
            assert after[victim]["incarnation"] > tree[victim]["incarnation"]
        assert after["/control/store"]["incarnation"] == tree["/control/store"]["incarnation"]

        # A process child is restarted like any other actor.
        running.ctl("kill", "/node/provider")
        assert "relay: /edge/streams/" in _get(url, seconds=30).decode()
        events = running.ctl("events", "--last", "500", "--seconds", "1", "--json").stdout
        kinds = [json.loads(line) for line in events.splitlines()]
        assert any(
            event["kind"] == "exited" and event["path"] == "/node/provider" for event in kinds
        )
        assert running.stop() == 0
        assert not running.socket.exists()


@pytest.mark.timeout(60)
def test_ctl_says_what_is_wrong_by_exit_code(tmp_path: Path) -> None:
    with daemon(tmp_path, *FREE_PORTS) as running:
        _demo_url(running)
        assert running.ctl("kill", "/nobody", check=False).returncode == 1
        assert running.ctl("kill", "/", check=False).returncode == 1
        assert running.ctl("describe", check=False).returncode == 2
        assert running.stop() == 0
        assert running.ctl("tree", check=False).returncode == 3
