"""A healthy start and stop has no warning, no error and no traceback: who reads a log at night is
told of what is wrong, and of nothing else. A stream is open at the stop, and is interrupted.
"""

from __future__ import annotations

import re
import signal
import urllib.request
from pathlib import Path

import pytest

from actors.pki.dev_pki import ensure_dev_pki
from tests.system.daemon import RunningDaemon, agent, daemon

LOUD = re.compile(r"^.*(?:WARNING|ERROR|CRITICAL|Traceback|Warning:|everything is denied).*$", re.M)
QUIET = (
    *("--listen", "127.0.0.1:0", "--set", "demo.consumer_listen=127.0.0.1:0"),
    # On a machine with too much to do the loop is held up by others.
    *("--set", "node.watchdog_stall_seconds=5"),
)


def _assert_quiet(output: str) -> None:
    assert LOUD.findall(output) == [], output


@pytest.mark.timeout(150)
@pytest.mark.parametrize("how", ["--demo", "--demo=cluster"])
def test_the_demo_comes_and_goes_without_a_warning(tmp_path: Path, how: str) -> None:
    with daemon(tmp_path, how, *QUIET) as running:
        url = running.wait_for(r"demo: curl (http://\S+)")[1]
        with urllib.request.urlopen(url, timeout=10) as answer:
            assert b"Trunkline demo" in answer.read()
        with urllib.request.urlopen(f"{url}stream", timeout=10) as live:
            assert live.readline() == b"1\n"
            # What is open is waited for; the second signal is who does not want to wait.
            running.process.send_signal(signal.SIGTERM)
            running.wait_for("draining")
            if how == "--demo":  # the relays of the cluster stop after the agents
                running.wait_for("waiting for 1 streams of edge")
        assert running.process.wait(40) == 0
        _assert_quiet(running.output)


def _configured(tmp_path: Path) -> tuple[tuple[str, ...], dict[str, tuple[str, ...]]]:
    """The arguments of a relay with its own certificate, and those of its agents."""
    pki = ensure_dev_pki(tmp_path / "pki")
    rules = tmp_path / "rules.toml"
    rules.write_text(
        '[[rule]]\nid = "all"\ntenant = "acme"\ncaller = "*"\ntarget = "*"\ndecision = "allow"\n'
    )
    relay = pki.relay
    serve = (
        *("--cert", str(relay.certificate), "--key", str(relay.key)),
        *("--ca", str(pki.ca_certificate), "--policy", str(rules), *QUIET),
    )
    agents: dict[str, tuple[str, ...]] = {
        name: (
            *("--cert", str(leaf.certificate), "--key", str(leaf.key)),
            *("--ca", str(pki.ca_certificate)),
        )
        for name, leaf in pki.agents.items()
    }
    return serve, agents


def _relay(running: RunningDaemon) -> tuple[str, str]:
    return "--relay", running.wait_for(r"on (127\.0\.0\.1:\d+) \(QUIC\)")[1]


@pytest.mark.timeout(120)
@pytest.mark.parametrize("first", ["agent", "relay"])
def test_a_relay_and_its_agent_come_and_go_without_a_warning(tmp_path: Path, first: str) -> None:
    """Whoever of them is stopped first."""
    serve, agents = _configured(tmp_path)
    with daemon(tmp_path, *serve) as running:
        here = (*_relay(running), *agents["provider"])
        both = ("run", "--provide", "web=127.0.0.1:9", "--consume", "web=127.0.0.1:0", *here)
        with agent(tmp_path / "agent.log", *both) as one:
            one.wait_for("connected to")
            if first == "agent":
                assert one.stop() == 0
            assert running.stop() == 0
            if first == "relay":
                one.wait_for("goes away")
                assert one.stop() == 0
        _assert_quiet(running.output)
        _assert_quiet(one.output.split("goes away")[0])  # then nobody is there: worth a warning
