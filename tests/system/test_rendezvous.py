"""`trunkline serve --listen-rendezvous` and the real forwarder: what an operator has."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.system.daemon import ROOT, daemon

QUIET = ("--demo", "--listen", "127.0.0.1:0", "--set", "demo.consumer_listen=127.0.0.1:0")


def _wait(condition: Callable[[], object], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@contextmanager
def _forwarder(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "tools.entry", *arguments],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def _echo(port: int, server: socket.socket) -> tuple[socket.socket, socket.socket]:
    user = socket.create_connection(("127.0.0.1", port), timeout=20)
    user.sendall(b"hello")
    near, _ = server.accept()
    near.settimeout(20)
    assert near.recv(5) == b"hello"
    near.sendall(b"hi")
    assert user.recv(2) == b"hi"
    return user, near


@pytest.mark.timeout(120)
def test_a_service_as_its_operator_sees_it(tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    flags = ("--listen-rendezvous", "127.0.0.1:0", "--access-log", str(log),
             "--debug-listen", "127.0.0.1:0")  # fmt: skip
    with (
        daemon(tmp_path, *QUIET, *flags) as running,
        socket.create_server(("127.0.0.1", 0)) as server,
    ):
        server.settimeout(20)
        running.wait_for("demo: curl")
        base = running.wait_for(r"on 127\.0\.0\.1:(\d+) \(TCP, rendezvous\)").group(1)
        local = f"127.0.0.1:{server.getsockname()[1]}"
        arguments = ("forward", "--to", f"127.0.0.1:{base}", "--local", local, "--name", "web")
        with _forwarder(*arguments) as forwarder:
            assert forwarder.stdout is not None
            line = forwarder.stdout.readline()
            port = int(re.fullmatch(r"127\.0\.0\.1:(\d+)\n", line)[1])  # type: ignore[index]
            user, near = _echo(port, server)
            rows = json.loads(running.ctl("rendezvous", "list", "--json").stdout)
            assert [(row["port"], row["name"], row["users"]) for row in rows] == [(port, "web", 1)]
            assert f"{port}  multiplex  web" in running.ctl("rendezvous", "list").stdout
            places = [place for place in running.tree() if "/rendezvous/services/" in place]
            assert any("/users/u" in place for place in places)
            metrics = running.wait_for(r"metrics on (http://\S+)/metrics").group(1)
            page = urllib.request.urlopen(f"{metrics}/metrics", timeout=10).read().decode()
            assert 'rendezvous_users_total{protocol="multiplex"} 1.0' in page
            assert "rendezvous_proxy_counts_multiplex 1.0" in page
            assert "rendezvous_connection_counts_multiplex 1.0" in page
            user.close()
            near.close()
            _wait(lambda: log.exists() and '"method":"multiplex"' in log.read_text())
            record = json.loads(
                next(one for one in log.read_text().splitlines() if '"method":"multiplex"' in one)
            )
            assert (record["service"], record["outcome"]) == ("web", "finished")
            assert (record["bytes_up"], record["bytes_down"]) == (5, 2)
            # Closed by hand, it comes back by itself: the same source gets the same port.
            assert running.ctl("rendezvous", "close", "web").stdout == "closed: 1\n"
            assert forwarder.stdout.readline() == line
            user, near = _echo(port, server)
            # The daemon drains: who is here is served, and the daemon waits.
            running.process.send_signal(signal.SIGTERM)
            _wait(lambda: "draining" in running.output)
            near.sendall(b"still")
            assert user.recv(5) == b"still"
            assert running.process.poll() is None
            user.close()
            near.close()
            assert running.process.wait(20) == 0


def test_the_command_line_of_the_original(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        base = probe.getsockname()[1]
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        _forwarder("compat", "relay", str(base)) as relay,
    ):
        server.settimeout(20)
        _wait(lambda: _connects(base) or relay.poll() is not None)
        local = f"--localForwardPort={server.getsockname()[1]}"
        with _forwarder("compat", "relay", local, "127.0.0.1", str(base)) as forwarder:
            assert forwarder.stdout is not None
            line = forwarder.stdout.readline()
            match = re.fullmatch(r"established relay address: 127\.0\.0\.1:(\d+)\n", line)
            assert match is not None
            for end in _echo(int(match[1]), server):
                end.close()


def _connects(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True
