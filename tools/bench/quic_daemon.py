"""`trunkline bench quic`: the real daemon between two load processes, over loopback.

For every engine of the daemon and every kind of client, with and without a connection id,
alternating round by round: throughput by number of streams and direction with the daemon's CPU
seconds per GiB, stream opens and handshakes per second, 64-byte round trips. The load processes
always use the native engine; a row says when the one of them that measures needed more CPU than the
daemon, because then the load is the bottleneck.
"""

from __future__ import annotations

import asyncio
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import orjson

from actors.pki.dev_pki import DevPki, LeafFiles, ensure_dev_pki
from tools.bench.load_agent import SERVICE
from tools.control_client import ControlClient

Row = dict[str, Any]
MEBIBYTE = 1 << 20
#: Kinds of clients: those of quic-go have no connection id, and they are the deployed ones.
WITH_ID, WITHOUT_ID = "id", "bare"
TICKS = os.sysconf("SC_CLK_TCK")


class Process:
    """A child that answers JSON lines."""

    def __init__(self, arguments: Sequence[str]) -> None:
        self._child = subprocess.Popen(
            [sys.executable, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, command: dict[str, Any]) -> dict[str, Any]:
        """One command, one answer."""
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        self._child.stdin.write(orjson.dumps(command).decode() + "\n")
        self._child.stdin.flush()
        answer = self._child.stdout.readline()
        if not answer:
            raise RuntimeError("a load process ended")
        result: dict[str, Any] = orjson.loads(answer)
        return result

    def close(self) -> None:
        """End it."""
        self._child.kill()
        self._child.wait(10)
        for pipe in (self._child.stdin, self._child.stdout):
            if pipe is not None:
                pipe.close()


class Daemon:
    """A relay process with development certificates."""

    def __init__(self, directory: Path, pki: DevPki, engine: str, extra: Sequence[str]) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.bind(("127.0.0.1", 0))
            self.address = ("127.0.0.1", probe.getsockname()[1])
        self._log = (directory / "daemon.log").open("w")
        self._control = directory / "s"
        arguments = [
            *("-m", "tools.entry", "serve", "--state-directory", str(directory), "--no-policy"),
            *("--listen", f"127.0.0.1:{self.address[1]}", "--log-level", "WARNING"),
            *("--cert", str(pki.relay.certificate), "--key", str(pki.relay.key)),
            *("--ca", str(pki.ca_certificate), "--set", f"edge.quic_engine={engine}"),
            *("--control-socket", str(self._control)),
            *extra,
        ]
        self._arguments = arguments
        self.start()

    def start(self) -> None:
        """Begin (again), at the same address."""
        self._child = subprocess.Popen(
            [sys.executable, *self._arguments], stdout=self._log, stderr=self._log
        )

    def kill(self) -> None:
        """SIGKILL: no goodbyes."""
        self._child.kill()
        self._child.wait(10)

    def cpu(self) -> float:
        """CPU seconds it used."""
        fields = Path(f"/proc/{self._child.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def rss(self) -> int:
        """Resident bytes."""
        pages = int(Path(f"/proc/{self._child.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def descriptors(self) -> int:
        """Open file descriptors."""
        return len(os.listdir(f"/proc/{self._child.pid}/fd"))

    def registry_writes(self) -> int:
        """Transactions that changed the store, as the daemon counts them."""
        return int(self.describe("/control/store")["writes"])

    def describe(self, path: str) -> dict[str, Any]:
        """What one of its actors says of itself."""
        return asyncio.run(self._describe(path))

    async def _describe(self, path: str) -> dict[str, Any]:
        client = await ControlClient.connect(self._control)
        try:
            answer = await client.request("describe", path=path)
        finally:
            await client.close()
        described = answer["describe"]
        assert isinstance(described, dict)
        return described

    def close(self) -> None:
        """Stop it."""
        self._child.terminate()
        try:
            self._child.wait(10)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait(10)
        self._log.close()


def agent(
    leaf: LeafFiles, pki: DevPki, daemon: Daemon, services: list[str], *, without_id: bool = False
) -> Process:
    """A connected load agent, with or without a connection id of its own."""
    setup = {
        "certificate": str(leaf.certificate),
        "key": str(leaf.key),
        "ca": str(pki.ca_certificate),
        "address": daemon.address,
        "services": services,
        "datagram": 1350,
        "without_id": without_id,
    }
    deadline = time.monotonic() + 20
    while True:
        process = Process(["-m", "tools.bench.load_agent"])
        try:
            process.ask(setup)
        except RuntimeError:
            process.close()
            if time.monotonic() > deadline:
                raise
        else:
            return process


@contextmanager
def started(engine: str, extra: Sequence[str] = ()) -> Iterator[tuple[Daemon, DevPki, ExitStack]]:
    """A daemon, its certificates, and what ends with it."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-quic-")))
        pki = ensure_dev_pki(directory / "pki")
        daemon = Daemon(directory, pki, engine, extra)
        stack.callback(daemon.close)
        time.sleep(1.0)
        yield daemon, pki, stack


def pair(stack: ExitStack, pki: DevPki, daemon: Daemon, *, without_id: bool = False) -> Process:
    """A provider, and the consumer that is returned; see `agent`."""
    provider = agent(pki.agents["provider"], pki, daemon, [SERVICE], without_id=without_id)
    stack.callback(provider.close)
    consumer = agent(pki.agents["consumer"], pki, daemon, [], without_id=without_id)
    stack.callback(consumer.close)
    return consumer


def _percentile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] * 1000


def measure(
    engines: Sequence[str],
    clients: Sequence[str],
    streams: Sequence[int],
    directions: Sequence[str],
    mib: int,
    extra: Sequence[str] = (),
    *,
    rounds: int = 3,
) -> Iterator[Row]:
    """Rows of everything: each case engine by engine, then the next, and all of it `rounds` times.

    Every kind of client has daemons of its own.

    A row is the median of its rounds. One round alone would compare cases at different ages of the
    daemon: the first ones find a fresh heap, which is worth a tenth.
    """
    cases = [(count, direction) for count in streams for direction in directions]
    with ExitStack() as stack:
        relays = {}
        for relay in [(name, client) for name in engines for client in clients]:
            daemon, pki, inner = stack.enter_context(started(relay[0], extra))
            without_id = relay[1] == WITHOUT_ID
            relays[relay] = daemon, pair(inner, pki, daemon, without_id=without_id)
        rows: dict[tuple[tuple[str, str], int, str], list[Row]] = {}
        for _ in range(rounds):
            for count, direction in cases:
                for relay, (daemon, consumer) in relays.items():
                    row = _transfer(relay, daemon, consumer, count, direction, mib)
                    rows.setdefault((relay, count, direction), []).append(row)
        for samples in rows.values():
            yield _middle(samples)
        for relay, (daemon, consumer) in relays.items():
            yield from _rates(relay, daemon, consumer)


def _transfer(
    relay: tuple[str, str],
    daemon: Daemon,
    consumer: Process,
    streams: int,
    direction: str,
    mib: int,
) -> Row:
    name, client = relay
    # The pure engine is an order of magnitude slower: less of it is as exact.
    size = mib * MEBIBYTE // (8 if name == "aioquic" else 1)
    before = daemon.cpu()
    done = consumer.ask(
        {"do": "transfer", "streams": streams, "direction": direction, "bytes": size}
    )
    cpu = daemon.cpu() - before
    return {
        "engine": name,
        "client": client,
        "streams": streams,
        "direction": direction,
        "gbit_s": done["bytes"] * 8 / done["seconds"] / 1e9,
        "daemon_cpu_s_per_gib": cpu / (done["bytes"] / (1 << 30)),
        "p50_ms": _percentile(done["took"], 0.5),
        "p99_ms": _percentile(done["took"], 0.99),
        "load_bound": done["cpu"] > cpu,
    }


def _middle(samples: Sequence[Row]) -> Row:
    """The figures' medians, and the range of the rates."""
    row = dict(samples[0])
    for name in ("gbit_s", "daemon_cpu_s_per_gib", "p50_ms", "p99_ms"):
        row[name] = statistics.median(sample[name] for sample in samples)
    rates = [sample["gbit_s"] for sample in samples]
    row["gbit_s_low"], row["gbit_s_high"] = min(rates), max(rates)
    row["load_bound"] = sum(sample["load_bound"] for sample in samples) * 2 > len(samples)
    return row


def _rates(relay: tuple[str, str], daemon: Daemon, consumer: Process) -> Iterator[Row]:
    name, client = relay
    took = consumer.ask({"do": "latency", "count": 2000})["took"]
    yield {
        "engine": name,
        "client": client,
        "what": "64-byte round trip",
        "p50_ms": _percentile(took, 0.5),
        "p99_ms": _percentile(took, 0.99),
    }
    for what, command in (
        ("stream opens", {"do": "opens", "count": 1000}),
        ("handshakes", {"do": "handshakes", "count": 200, "address": daemon.address}),
    ):
        before = daemon.cpu()
        done = consumer.ask(command)
        yield {
            "engine": name,
            "client": client,
            "what": what,
            "per_second": done["count"] / done["seconds"],
            "daemon_cpu_ms_each": (daemon.cpu() - before) / done["count"] * 1000,
        }
