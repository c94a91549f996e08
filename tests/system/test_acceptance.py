"""The scenarios of sheet 7.1 with the real programs, over loopback: two relays, agents, a service.

r1 holds the controller and serves it, r2 uses it. All rules come from the command line; the world
begins closed. docs/acceptance.md says which test stands for which line of the sheet.
"""

from __future__ import annotations

import contextlib
import http.server
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.controller.rig import free_port
from tests.edge.relay_rig import free_port as free_udp_port
from tests.system.daemon import ROOT, RunningDaemon, daemon

TENANT = ("--tenant", "acme")


def trunkline(*arguments: str, check: bool = True) -> str:
    """One command; its output."""
    command = [sys.executable, "-m", "tools.entry", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    if check and done.returncode:
        raise AssertionError(f"{arguments}: {done.stdout}{done.stderr}")
    return done.stdout


class Service(http.server.BaseHTTPRequestHandler):
    """Says who it is; `/slow` takes five seconds for it."""

    def do_GET(self) -> None:  # the library's name
        slow = self.path == "/slow"
        body = b"ok-slow from provider" if slow else b"ok from provider"
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if slow:
            time.sleep(5)
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Silence."""


class Agent:
    """A running agent process."""

    def __init__(self, process: subprocess.Popen[str], log: Path) -> None:
        self.process = process
        self._log = log

    @property
    def output(self) -> str:
        return self._log.read_text()

    def wait_for(self, pattern: str, seconds: float = 30) -> re.Match[str]:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            match = re.search(pattern, self.output)
            if match:
                return match
            time.sleep(0.05)
        raise AssertionError(f"no {pattern!r}: {self.output}")

    def url(self) -> str:
        """Where the consumer listens."""
        return "http://" + self.wait_for(r"web on (\S+:\d+)").group(1) + "/"


class World:
    """The PKI, the relays' addresses, and the processes."""

    def __init__(self, directory: Path, stack: ExitStack) -> None:
        self.directory = directory
        self.stack = stack
        self.pki = directory / "pki"
        self.controller = str(free_port())
        self.ports = {"r1": free_udp_port(), "r2": free_udp_port()}
        self.tcp = free_port().port
        out = ("--out", str(self.pki))
        trunkline("pki", "init", *out)
        for relay in self.ports:
            trunkline("pki", "issue-relay", *out, "--relay-id", relay, "--name", relay)
        for number, agent in enumerate(("provider", "consumer"), 1):
            uuid = f"00000000-0000-0000-0000-{number:012}"
            trunkline("pki", "issue-agent", *out, *TENANT, "--uuid", uuid, "--name", agent)
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Service)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        stack.callback(server.server_close)
        stack.callback(server.shutdown)
        self.target = f"127.0.0.1:{server.server_address[1]}"

    def _leaf(self, name: str) -> tuple[str, ...]:
        pair = ("--cert", str(self.pki / f"{name}.crt"), "--key", str(self.pki / f"{name}.key"))
        return (*pair, "--ca", str(self.pki / "ca.crt"))

    @contextmanager
    def relay(self, name: str) -> Iterator[RunningDaemon]:
        """A relay daemon; its state stays for the next one of the name."""
        home = self.directory / name
        home.mkdir(exist_ok=True)
        arguments = [
            *("--listen", f"127.0.0.1:{self.ports[name]}", "--relay-id", name),
            *("--set", 'edge.relays.accept=["*"]', *self._leaf(name)),
        ]
        if name == "r1":
            arguments += ["--set", "control.serve.enabled=true", "--listen-tcp"]
            arguments += [f"127.0.0.1:{self.tcp}"]
            arguments += ["--set", f"control.serve.listen={self.controller}"]
        else:
            arguments += ["--controller", self.controller]
        with daemon(home, *arguments) as running:
            running.wait_for(rf"relay {name} on ")
            yield running

    def agent(self, what: str, *arguments: str, relay: str | None) -> Agent:
        """An agent process; ends with the world."""
        log = self.directory / f"{what}-{time.monotonic_ns()}.log"
        name = "provider" if what == "provide" else "consumer"
        at = () if relay is None else ("--relay", f"127.0.0.1:{self.ports[relay]}")
        command = [sys.executable, "-m", "tools.entry", "agent", what, *arguments, *at]
        with log.open("w") as output:
            process = subprocess.Popen(
                [*command, *self._leaf(name), "--log-level", "DEBUG"],
                cwd=ROOT,
                stdout=output,
                stderr=subprocess.STDOUT,
                text=True,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
            )
        self.stack.callback(self._end, process)
        return Agent(process, log)

    @staticmethod
    def _end(process: subprocess.Popen[str]) -> None:
        if process.poll() is None:
            process.terminate()
            process.wait(20)

    def provide(self, relay: str, *more: str) -> Agent:
        """The web service, offered at a relay."""
        running = self.agent(
            "provide", "--service", "web", "--target", self.target, *more, relay=relay
        )
        running.wait_for("connected to")
        return running

    def consume(self, relay: str | None, *more: str) -> Agent:
        """A local address for it."""
        running = self.agent(
            "consume", "--service", "web", "--listen", "127.0.0.1:0", *more, relay=relay
        )
        running.wait_for("connected to")
        return running

    def rule(self, decision: str, target: str = "*", *more: str) -> str:
        """`policy add` at the controller; the id."""
        about = (*TENANT, "--caller", "*", "--target", target, "--decision", decision, *more)
        return trunkline("ctl", "policy", "add", *about, "--controller", self.controller).strip()


def curl(url: str, timeout: float = 10) -> str:
    """The body, or why there is none."""
    try:
        with urllib.request.urlopen(url, timeout=timeout) as response:
            return str(response.read().decode())
    except (OSError, urllib.error.URLError) as error:
        return f"failed: {error}"


def soon(url: str, want: str, seconds: float) -> None:
    """The body becomes what is wanted, in time."""
    deadline = time.monotonic() + seconds
    while (body := curl(url)) != want:
        assert time.monotonic() < deadline, body
        time.sleep(0.2)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with ExitStack() as stack:
        yield World(tmp_path, stack)


@pytest.mark.timeout(200)
def test_policy_relay_loss_and_controller_loss(world: World) -> None:
    """7.1: 00, 01, 03, 04, 07, 11."""
    with world.relay("r2") as second:
        with world.relay("r1") as first:
            world.provide("r2")
            near, far = world.consume("r2"), world.consume("r1")
            assert curl(near.url()).startswith("failed")  # closed world
            world.rule("allow")  # 00
            soon(near.url(), "ok from provider", 10)  # 01
            soon(far.url(), "ok from provider", 15)  # 11
            deny = world.rule("deny", "web")
            deadline = time.monotonic() + 3
            while not curl(near.url()).startswith("failed"):  # 07
                assert time.monotonic() < deadline
            about = (*TENANT, "--id", deny, "--controller", world.controller)
            assert "removed" in trunkline("ctl", "policy", "remove", *about)
            soon(near.url(), "ok from provider", 10)
            soon(far.url(), "ok from provider", 10)
            os.killpg(first.process.pid, signal.SIGKILL)
            first.process.wait(10)
        # 04: the controller is gone; what is known is served.
        assert curl(near.url()) == "ok from provider"
        with world.relay("r1"):
            listing = ("ctl", "policy", "list", *TENANT, "--controller", world.controller)
            deadline = time.monotonic() + 30
            while "(allow)" not in trunkline(*listing, check=False):
                assert time.monotonic() < deadline
                time.sleep(0.5)
            assert curl(near.url()) == "ok from provider"
            soon(far.url(), "ok from provider", 45)
            # 03: the relay of both agents stops, and starts again after five seconds.
            assert second.stop() == 0
            time.sleep(5)
            with contextlib.ExitStack() as again:
                again.enter_context(world.relay("r2"))
                soon(near.url(), "ok from provider", 45)


@pytest.mark.timeout(120)
def test_streams_leave_the_relay_where_they_can(world: World) -> None:
    """7.1: 05, 06, 08."""
    with world.relay("r1"):
        world.rule("allow")
        provider = world.provide("r1", "--p2p-listen", "127.0.0.1:0")
        consumer = world.consume("r1", "--p2p-listen", "127.0.0.1:0")
        slow = threading.Thread(target=lambda: bodies.append(curl(consumer.url() + "slow", 30)))
        bodies: list[str] = []
        slow.start()
        consumer.wait_for("p2p: migrated to direct", 6)  # 06, 08
        slow.join(30)
        assert bodies == ["ok-slow from provider"]
        provider.process.send_signal(signal.SIGTERM)
        provider.process.wait(20)
        consumer.process.send_signal(signal.SIGTERM)
        consumer.process.wait(20)
        # 05: this provider cannot be reached directly, as behind a symmetric NAT.
        world.provide("r1")
        other = world.consume("r1", "--p2p-listen", "127.0.0.1:0")
        bodies.clear()
        slow = threading.Thread(target=lambda: bodies.append(curl(other.url() + "slow", 30)))
        slow.start()
        other.wait_for("no candidate pair|stayed on relay", 10)
        slow.join(30)
        assert bodies == ["ok-slow from provider"]


@pytest.mark.timeout(120)
def test_an_agent_without_udp(world: World) -> None:
    """7.1: 09."""
    with world.relay("r1"):
        world.rule("allow")
        world.provide("r1")
        consumer = world.agent(
            *("consume", "--service", "web", "--listen", "127.0.0.1:0"),
            *("--relay", "127.0.0.1:9", "--relay-tcp", f"127.0.0.1:{world.tcp}"),
            relay=None,
        )
        consumer.wait_for("agent on TCP.TLS fallback", 30)
        assert curl(consumer.url()) == "ok from provider"


@pytest.mark.soak
@pytest.mark.timeout(300)
def test_a_minute_without_controller(world: World) -> None:
    """Streams and resolves go on for a minute, and no decision of that minute is lost."""
    with world.relay("r2"):
        with world.relay("r1") as first:
            world.provide("r2")
            near = world.consume("r2")
            world.rule("allow")
            soon(near.url(), "ok from provider", 10)
            bodies: list[str] = []
            slow = threading.Thread(target=lambda: bodies.append(curl(near.url() + "slow", 30)))
            slow.start()
            time.sleep(1)
            os.killpg(first.process.pid, signal.SIGKILL)
            first.process.wait(10)
        asked = 0
        until = time.monotonic() + 60
        while time.monotonic() < until:
            assert curl(near.url()) == "ok from provider"
            asked += 1
            time.sleep(0.5)
        slow.join(30)
        assert bodies == ["ok-slow from provider"]
        with world.relay("r1"):
            query = (*TENANT, "--since", "2m", "--limit", "10000")
            command = ("ctl", "audit", "query", *query, "--controller", world.controller)
            deadline = time.monotonic() + 30
            # Two decisions for every stream: the caller's and the callee's.
            while trunkline(*command, check=False).count("allow") < 2 * asked:
                assert time.monotonic() < deadline
                time.sleep(1)
