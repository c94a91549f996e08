"""A door is one folder and one line: everything an operator has works for it at once."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from aioquic.asyncio.client import connect as stock_connect
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import DatagramFrameReceived, QuicEvent

from actors.pki.certificates import create_ca, create_leaf, relay_identity
from tests.system.daemon import ROOT, RunningDaemon, daemon

PROGRAM = ("-m", "tests.doors.serve")
ECHO = ("--demo", "--listen", "127.0.0.1:0", "--set", "demo.consumer_listen=127.0.0.1:0",
        "--debug-listen", "127.0.0.1:0", "--set", "echo.listen=127.0.0.1:0",
        "--set", "echo.datagrams=127.0.0.1:0")  # fmt: skip


def _wait(condition: Callable[[], object], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _doors(running: RunningDaemon) -> dict[str, dict[str, Any]]:
    return {row["door"]: row for row in json.loads(running.ctl("doors", "--json").stdout)}


def _connect(address: list[Any]) -> socket.socket:
    host, port = address
    client = socket.create_connection((host, port), timeout=10)
    client.sendall(b"hello")
    assert client.recv(5) == b"hello"
    return client


class _Client(QuicConnectionProtocol):
    """A stock client that waits for one datagram."""

    def quic_event_received(self, event: QuicEvent) -> None:
        if isinstance(event, DatagramFrameReceived):
            self.answer.set_result(event.data)

    answer: asyncio.Future[bytes]


async def _echo_datagrams(ca: Path, address: list[Any]) -> None:
    configuration = QuicConfiguration(
        is_client=True, alpn_protocols=["echo"], max_datagram_frame_size=16_383,
        server_name="localhost",
    )  # fmt: skip
    configuration.load_verify_locations(str(ca))
    host, port = address
    async with (
        asyncio.timeout(20),
        stock_connect(host, port, configuration=configuration, create_protocol=_Client) as client,
    ):
        assert isinstance(client, _Client)
        client.answer = asyncio.get_running_loop().create_future()
        client._quic.send_datagram_frame(b"over QUIC")
        client.transmit()
        assert await client.answer == b"over QUIC"


@pytest.mark.timeout(120)
def test_a_door_is_a_folder_and_a_line(tmp_path: Path) -> None:
    with daemon(tmp_path, *ECHO, program=PROGRAM) as running:
        running.wait_for("demo: curl")
        # ctl, and the line at the start.
        place, datagrams = _doors(running)["echo"]["listening"]
        assert _doors(running)["edge"]["pairs"] == ["/edge/streams"]
        address = place["address"]
        running.wait_for(rf"on 127\.0\.0\.1:{address[1]} \(TCP\)")
        client = _connect(address)
        running.wait_for(rf"on 127\.0\.0\.1:{datagrams['address'][1]} \(QUIC\)")
        asyncio.run(_echo_datagrams(running.state / "pki" / "ca.crt", datagrams["address"]))
        # The tree, as the inspector and `ctl tree` have it.
        (connection,) = (p for p in running.tree() if p.startswith("/echo/connections/c"))
        # Metrics and readiness.
        metrics = running.wait_for(r"metrics on (http://\S+)/metrics").group(1)
        page = urllib.request.urlopen(f"{metrics}/metrics", timeout=10).read().decode()
        assert 'echo_events_total{event="echoed_bytes"} 5.0' in page
        assert 'echo_events_total{event="echoed_datagrams"} 1.0' in page
        assert urllib.request.urlopen(f"{metrics}/ready", timeout=10).status == 200
        # Kill: the listener keeps its port, and the connection does not notice.
        running.ctl("kill", "/echo/listener")
        _wait(lambda: running.tree()["/echo/listener"]["state"] == "running")
        _connect(address).close()
        running.ctl("kill", "/echo/datagrams")
        _wait(lambda: running.tree()["/echo/datagrams"]["state"] == "running")
        asyncio.run(_echo_datagrams(running.state / "pki" / "ca.crt", datagrams["address"]))
        client.sendall(b"still")
        assert client.recv(5) == b"still"
        # Reload reaches it.
        running.process.send_signal(signal.SIGHUP)
        running.wait_for("reloaded: ")
        page = urllib.request.urlopen(f"{metrics}/metrics", timeout=10).read().decode()
        assert 'echo_events_total{event="reloads"} 1.0' in page
        # Chaos knows what carries its streams, and finds victims in it.
        chaos = subprocess.run(
            [sys.executable, "-m", "tools.entry", "chaos", "--socket", str(running.socket),
             "--streams", "0", "--only", "/echo/*", "--duration", "1", "--rate", "4"],
            cwd=ROOT, capture_output=True, text=True, timeout=90,
        )  # fmt: skip
        assert chaos.returncode == 0, chaos.stdout + chaos.stderr
        assert "/echo/" in chaos.stdout
        # Drain waits for what is open.
        client.close()
        client = _connect(address)
        running.process.send_signal(signal.SIGTERM)
        _wait(lambda: "draining" in running.output)
        client.sendall(b"again")
        assert client.recv(5) == b"again"
        assert running.process.poll() is None
        client.close()
        assert running.process.wait(20) == 0
    assert connection.startswith("/echo/connections/c")


class _OwnCertificate:
    """Of a CA that the relay network does not know."""

    def __init__(self, directory: Path) -> None:
        self.chain, self.key, self.ca = (
            directory / name for name in ("door.crt", "door.key", "door-ca.crt")
        )
        self.renew()

    def renew(self) -> None:
        """By another CA each time."""
        now = datetime.now(UTC)
        ca = create_ca(now)
        leaf = create_leaf(ca, relay_identity("eu", "door"), lifetime=timedelta(days=1), now=now)
        self.ca.write_bytes(ca.certificate_pem())
        self.chain.write_bytes(leaf.certificate_pem())
        self.key.touch(mode=0o600)
        self.key.write_bytes(leaf.key_pem())


@pytest.mark.timeout(120)
def test_a_door_shows_a_certificate_of_its_own_and_a_new_one_after_a_reload(
    tmp_path: Path,
) -> None:
    own = _OwnCertificate(tmp_path)
    options = ("--set", f"echo.tls_certificate={own.chain}", "--set", f"echo.tls_key={own.key}")
    with daemon(tmp_path, *ECHO, *options, program=PROGRAM) as running:
        running.wait_for("demo: curl")  # the edge shows that of the relay network
        address = _doors(running)["echo"]["listening"][1]["address"]
        asyncio.run(_echo_datagrams(own.ca, address))
        own.renew()
        running.process.send_signal(signal.SIGHUP)
        running.wait_for("reloaded: ")
        asyncio.run(_echo_datagrams(own.ca, address))
        own.chain.write_bytes(b"not a certificate")
        running.process.send_signal(signal.SIGHUP)
        running.wait_for(r"reload refused: not usable PEM: one of \S+door.crt")
        asyncio.run(_echo_datagrams(own.ca, address))


def test_serve_check_knows_the_settings_of_a_further_door() -> None:
    def check(*assignments: str) -> subprocess.CompletedProcess[str]:
        options = [part for one in assignments for part in ("--set", one)]
        command = [sys.executable, *PROGRAM, "--check", "--demo", *options]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)

    assert check("echo.listen=127.0.0.1:0").returncode == 0
    wrong = check("echo.listen=nowhere")
    assert wrong.returncode == 2
    assert "echo.listen" in wrong.stderr
    half = check("echo.tls_certificate=/dev/null")
    assert "echo: set both of tls_certificate and tls_key, or none" in half.stderr
    unknown = check("echo.lisen=127.0.0.1:0")
    assert "did you mean echo.listen?" in unknown.stderr
