"""`trunkline bench rendezvous`: what the rendezvous door costs, beside a plain asyncio relay.

Every relay runs in a process of its own, and so does the service; users are here. CPU is the
relay's, user and system, from /proc. With `--beside` the same is measured of another relay with the
same protocol, in the same run: its command with `{port}` for the port.
"""

from __future__ import annotations

import multiprocessing
import os
import shlex
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import click

from tools.bench.rendezvous_service import ECHO, FLOOD, SINK, run_service

Row = dict[str, Any]
PROTOCOLS: Final = ("multiplex", "pool", "event")
_TICKS: Final = os.sysconf("SC_CLK_TCK")
_PIECE: Final = bytes(256 * 1024)
_START_SECONDS: Final = 20.0
#: Nothing of a measurement takes longer.
_SECONDS: Final = 60.0
#: Of a round trip, bytes.
_SMALL: Final = bytes(64)


class Relay:
    """A relay's process.

    Attributes:
        name: in the rows.
        port: where services register; for the plain one, where users come to.
    """

    def __init__(self, name: str, port: int, process: subprocess.Popen[bytes]) -> None:
        self.name = name
        self.port = port
        self.pid = process.pid

    def cpu(self) -> float:
        """CPU seconds so far."""
        with open(f"/proc/{self.pid}/stat", encoding="ascii") as file:
            fields = file.read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS

    def resident(self) -> float:
        """KiB in memory."""
        with open(f"/proc/{self.pid}/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1024


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port: int = sock.getsockname()[1]
        return port


@contextmanager
def _relay(name: str, command: list[str], port: int) -> Iterator[Relay]:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + _START_SECONDS
        while True:
            try:
                socket.create_connection(("127.0.0.1", port)).close() if name != "other" else None
                break
            except OSError:
                if time.monotonic() > deadline or process.poll() is not None:
                    raise RuntimeError(f"{name} did not start: {shlex.join(command)}") from None
                time.sleep(0.1)
        if name == "other":  # a connection without a word ends some of them
            time.sleep(1.0)
        yield Relay(name, port, process)
    finally:
        process.kill()
        process.wait()


@contextmanager
def _service(protocol: str, port: int, flood: int) -> Iterator[int]:
    """A service in a process of its own; where its users come to (or it listens)."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=run_service, args=(protocol, port, theirs, flood), daemon=True)
    process.start()
    try:
        if not ours.poll(_START_SECONDS):
            raise RuntimeError(f"no service by {protocol}")
        yield int(ours.recv())
    finally:
        process.kill()
        process.join()
        ours.close()
        theirs.close()


def _user(port: int, mode: bytes) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", port), timeout=_SECONDS)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.sendall(mode)
    return sock


def _bulk(relay: Relay, port: int, mib: int, mode: bytes) -> tuple[float, float]:
    """CPU seconds per GiB and Gbit/s of one flow."""
    buffer = bytearray(1 << 20)
    with _user(port, mode) as sock:
        time.sleep(0.1)
        cpu, began = relay.cpu(), time.perf_counter()
        if mode == SINK:
            for _ in range(mib * 4):
                sock.sendall(_PIECE)
            sock.recv(1)
        else:
            left = mib << 20
            while left:
                count = sock.recv_into(buffer, min(left, len(buffer)))
                if not count:
                    raise RuntimeError("the flood ended early")
                left -= count
        seconds = time.perf_counter() - began
        return (relay.cpu() - cpu) * 1024 / mib, mib * 8 * 1.048576e-3 / seconds


def _round_trips(relay: Relay, port: int, count: int) -> tuple[float, float, float]:
    """p50 and p99 of 64 bytes there and back, and CPU of each, microseconds."""
    times: list[float] = []
    with _user(port, ECHO) as sock:
        cpu = 0.0
        for turn in range(count + 200):
            if turn == 200:
                cpu = relay.cpu()
                times.clear()
            began = time.perf_counter()
            sock.sendall(_SMALL)
            left = len(_SMALL)
            while left:
                left -= len(sock.recv(left))
            times.append(time.perf_counter() - began)
        used = relay.cpu() - cpu
    times.sort()
    return times[len(times) // 2] * 1e6, times[len(times) * 99 // 100] * 1e6, used / count * 1e6


def _connects(relay: Relay, port: int, count: int) -> tuple[float, float]:
    """Users per second, one after the other, and CPU of each, microseconds."""
    cpu, began = relay.cpu(), time.perf_counter()
    for _ in range(count):
        with _user(port, ECHO + b"x") as sock:
            if not sock.recv(1):
                raise RuntimeError("a user was not served")
    seconds = time.perf_counter() - began
    time.sleep(0.2)
    return count / seconds, (relay.cpu() - cpu) / count * 1e6


def _idle(relay: Relay, port: int, count: int) -> float:
    """KiB of each user that does nothing."""
    warm = [_user(port, ECHO) for _ in range(20)]
    time.sleep(0.5)
    before = relay.resident()
    users = [_user(port, ECHO) for _ in range(count)]
    time.sleep(1.5)
    grown = relay.resident() - before
    for sock in (*warm, *users):
        sock.close()
    return grown / count


def _idle_members(relay: Relay, port: int, known: str, count: int) -> float:
    """KiB of each connection of a pool that waits for a user."""
    line = f"pool\n{known}\n".encode()
    before = relay.resident()
    members = []
    for _ in range(count):
        sock = socket.create_connection(("127.0.0.1", port))
        sock.sendall(line)
        members.append(sock)
    time.sleep(1.5)
    grown = relay.resident() - before
    for sock in members:
        sock.close()
    return grown / count


def _pool_of_ours(port: int) -> tuple[socket.socket, str]:
    sock = socket.create_connection(("127.0.0.1", port))
    sock.sendall(b"pool\nnew\n")
    data = b""
    while data.count(b"\n") < 2:
        data += sock.recv(64)
    return sock, data.split(b"\n")[1].decode()


def measure(*, mib: int, count: int, idle: int, beside: str) -> list[Row]:
    """All of it; rows with what, value and unit."""
    rows: list[Row] = []
    port = _free_port()
    ours = [sys.executable, "-m", "tools.entry", "compat", "relay", str(port)]
    relays = [("ours", ours, port)]
    if beside:
        # Services get ports above it: not among those that are given out to clients.
        port = 21_000
        relays.append(("other", shlex.split(beside.format(port=port)), port))
    for name, command, at in relays:
        for protocol in PROTOCOLS:  # a process for each: memory begins anew
            with _relay(name, command, at) as relay:
                try:
                    with _service(protocol, at, mib << 20) as users:
                        _measure(rows, relay, protocol, users, mib, count, idle)
                except (OSError, RuntimeError) as error:
                    if name == "ours":
                        raise
                    click.echo(f"{name}, {protocol}: ended: {error}", err=True)
        with _relay(name, command, at) as relay:
            owner, known = _pool_of_ours(at)
            grown = _idle_members(relay, at, known, idle)
            rows.append(_row(name, "pool", "memory of an idle member", grown, "KiB"))
            owner.close()
    with _service("plain", 0, mib << 20) as target:
        port = _free_port()
        plain = [sys.executable, "-m", "tools.bench.plain_relay", str(port), str(target)]
        with _relay("asyncio streams", plain, port) as relay:
            _measure(rows, relay, "plain", port, mib, count, idle)
    return rows


def _measure(
    rows: list[Row], relay: Relay, protocol: str, users: int, mib: int, count: int, idle: int
) -> None:
    name = relay.name
    for mode, where in ((SINK, "to the service"), (FLOOD, "to the user")):
        runs = [_bulk(relay, users, mib, mode) for _ in range(3)]
        cpu, rate = (statistics.median(column) for column in zip(*runs, strict=True))
        rows.append(_row(name, protocol, f"bulk {where}, CPU", cpu, "s/GiB"))
        rows.append(_row(name, protocol, f"bulk {where}", rate, "Gbit/s"))
    p50, p99, each = _round_trips(relay, users, count)
    rows.append(_row(name, protocol, "round trip p50", p50, "us"))
    rows.append(_row(name, protocol, "round trip p99", p99, "us"))
    rows.append(_row(name, protocol, "round trip, CPU", each, "us"))
    rate, each = _connects(relay, users, count // 4)
    rows.append(_row(name, protocol, "connects, one at a time", rate, "/s"))
    rows.append(_row(name, protocol, "connect, CPU", each, "us"))
    if protocol != "pool":
        rows.append(
            _row(name, protocol, "memory of an idle user", _idle(relay, users, idle), "KiB")
        )


def _row(relay: str, protocol: str, what: str, value: float, unit: str) -> Row:
    return {"what": f"{relay}, {protocol}: {what}", "value": value, "unit": unit}
