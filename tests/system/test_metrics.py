"""The daemon's pages and files, over its real life."""

from __future__ import annotations

import json
import re
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from tests.system.daemon import daemon


def get(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=10) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


@pytest.mark.timeout(120)
def test_metrics_health_and_access_log_of_a_running_daemon(tmp_path: Path) -> None:
    access, dump = tmp_path / "access.jsonl", tmp_path / "metrics.jsonl"
    arguments = (
        *("--demo", "--listen", "127.0.0.1:0", "--set", "demo.consumer_listen=127.0.0.1:0"),
        *("--debug-listen", "127.0.0.1:0", "--access-log", str(access)),
        *("--metrics-dump", str(dump), "--metrics-interval", "0.2"),
    )
    with daemon(tmp_path, *arguments) as running:
        demo = running.wait_for(r"demo: curl (http://\S+)").group(1)
        base = running.wait_for(r"metrics on (http://\S+)/metrics").group(1)
        assert get(f"{base}/health")[0] == 200
        assert get(f"{base}/ready") == (200, '{"status":"ready"}')
        assert get(demo)[0] == 200
        finished: list[dict[str, object]] = []
        deadline = time.monotonic() + 20
        while not finished and time.monotonic() < deadline:
            time.sleep(0.1)
            records = map(json.loads, access.read_text().splitlines() if access.exists() else ())
            finished = [record for record in records if record["outcome"] == "finished"]
        assert int(str(finished[0]["bytes_down"])) > 0
        text = get(f"{base}/metrics")[1]
        assert re.search(r"^trunkline_agents_connected 2\.0$", text, re.MULTILINE)
        assert re.search(r"^trunkline_bytes_forwarded_total [1-9]", text, re.MULTILINE)
        assert re.search(r'^trunkline_actor_exits_total\{reason="normal"\} ', text, re.MULTILINE)
        assert 'trunkline_quic_events_total{event="handshake_ok"} 2.0' in text
        assert re.search(r"^trunkline_udp_datagrams_in_total [1-9]", text, re.MULTILINE)
        assert json.loads(dump.read_text().splitlines()[-1])["counters"]["policy_cache_misses"] > 0
        # A relay that cannot serve says so.
        running.ctl("suspend", "/control/registry")
        status, body = get(f"{base}/ready")
        assert status == 503
        assert "/control/registry" in json.loads(body)["missing"]
        running.ctl("resume", "/control/registry")
        assert get(f"{base}/ready")[0] == 200
        assert running.stop() == 0
