"""`ctl agents`, `services` and `streams` of a real daemon with the demo's agents and a stream."""

from __future__ import annotations

import http.client
import json
from pathlib import Path
from typing import Any

import pytest

from tests.system.daemon import RunningDaemon, daemon

QUIET = ("--demo", "--listen", "127.0.0.1:0", "--set", "demo.consumer_listen=127.0.0.1:0")


def _rows(running: RunningDaemon, *arguments: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(running.ctl(*arguments, "--json").stdout)
    return found


@pytest.mark.timeout(120)
def test_what_the_relay_does_is_listed(tmp_path: Path) -> None:
    with daemon(tmp_path, *QUIET, "--listen-rendezvous", "127.0.0.1:0") as running:
        port = int(running.wait_for(r"demo: curl http://127\.0\.0\.1:(\d+)").group(1))
        agents = _rows(running, "agents", "--over", "0")
        assert [row["door"] for row in agents] == ["edge", "edge"]
        provider = next(row for row in agents if row["services"])
        consumer = next(row for row in agents if not row["services"])
        (service,) = _rows(running, "services")
        assert service["provider"] == provider["agent"]
        assert service["tenant"] == provider["tenant"]
        assert [service["service"]] == provider["services"]
        assert running.ctl("streams").stderr.endswith("no streams\n")

        request = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        request.request("GET", "/stream")
        assert request.getresponse().read(1)
        (stream,) = _rows(running, "streams", "--over", "1.2")
        assert (stream["consumer"], stream["provider"]) == (consumer["agent"], provider["agent"])
        assert (stream["service"], stream["state"]) == (service["service"], "open")
        assert stream["bytes_up"] > 0 < stream["bytes_down"]
        assert stream["rate_up"] == 0 < stream["rate_down"]
        assert stream["seconds"] > 1
        assert stream["path"] in running.tree()
        assert _rows(running, "services")[0]["streams"] == 1

        named = ("--over", "0", "--agent", provider["agent"])
        assert len(_rows(running, "streams", *named)) == 1
        assert _rows(running, "streams", "--service", "other") == []
        assert _rows(running, "streams", "--filter", "no such text") == []
        assert _rows(running, "agents", "--tenant", "other") == []
        assert _rows(running, "streams", "--door", "rendezvous") == []
        assert _rows(running, "agents", *named)[0]["streams"] == 1
        few = running.ctl("agents", "--over", "0", "--limit", "1")
        assert "1 more: --limit" in few.stderr
        assert f"{consumer['agent']} -> {provider['agent']}" in running.ctl("streams").stdout
        request.close()
