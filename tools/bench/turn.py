"""`trunkline bench turn`: what a relayed packet and an allocation cost, beside asyncio and coturn.

Each server runs in a process of its own; its CPU time is read from /proc. The generator here sends
channel data over ten allocations at a fixed rate, one datagram per call or runs of them, and counts
what peers get. coturn is measured where `turnserver` is installed. Figures are medians.

The asyncio relay is a DatagramProtocol that looks a channel up and sends its payload on: no
credentials, permissions, expiry or accounting.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

from actors.transport.udp import bind_udp
from wire.stun import attribute as a
from wire.stun import message as stun
from wire.stun.address import encode_xor
from wire.stun.integrity import long_term_key
from wire.stun.message import parse

Row = dict[str, Any]

FLOWS: Final = 10
PAYLOAD: Final = 1200
#: Datagrams of one run.
RUN: Final = 40
USER, PASSWORD, REALM = "bench", "bench", "bench"
_UDP: Final = (a.REQUESTED_TRANSPORT, b"\x11\0\0\0")
_KEY: Final = long_term_key(USER, REALM, PASSWORD)


class Client:
    """A TURN client on a blocking socket."""

    def __init__(self, server: tuple[str, int]) -> None:
        self.sock = bind_udp("127.0.0.1", 0)
        self.sock.setblocking(True)
        self.sock.settimeout(0.5)
        self.sock.connect(server)
        self._nonce = b"?"
        self._serial = 0

    def ask(self, method: int, *attributes: a.Attribute) -> None:
        """A request that is granted.

        Raises:
            TimeoutError: it is not.
        """
        for _ in range(200):
            self._serial += 1
            tid = self._serial.to_bytes(12, "big")
            identity = (
                (a.USERNAME, USER.encode()), (a.REALM, REALM.encode()), (a.NONCE, self._nonce),
            )  # fmt: skip
            request = stun.encode(method, stun.REQUEST, tid, (*attributes, *identity), key=_KEY)
            try:
                self.sock.send(request)
                answer = parse(self.sock.recv(2048))
            except (TimeoutError, ConnectionRefusedError):
                time.sleep(0.05)
                continue
            if answer.kind == stun.SUCCESS:
                return
            self._nonce = answer.get(a.NONCE) or self._nonce
        raise TimeoutError("the server grants nothing")

    def bind(self, peer: tuple[str, int]) -> None:
        """Channel 0x4000 to a peer."""
        tid = (self._serial + 1).to_bytes(12, "big")
        self.ask(
            stun.CHANNEL_BIND,
            (a.CHANNEL_NUMBER, b"\x40\0\0\0"),
            (a.XOR_PEER_ADDRESS, encode_xor(*peer, tid)),
        )


def _free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _commands(port: int) -> dict[str, list[str]]:
    ours = [sys.executable, "-m", "tools.entry", "compat", "turnserver"]
    options = [
        "-L", "127.0.0.1", "-p", str(port), "-E", "127.0.0.1", "-r", REALM, "-a",
        "-u", f"{USER}:{PASSWORD}", "--allow-loopback-peers", "--no-tcp", "--no-tls",
    ]  # fmt: skip
    commands = {
        "asyncio DatagramProtocol": [sys.executable, "-m", "tools.bench.turn", str(port)],
        "trunkline": [*ours, *options, "--user-quota", "20000", "--total-quota", "20000"],
    }
    coturn = shutil.which("turnserver")
    if coturn:
        commands["coturn"] = [
            coturn, "-n", "--no-cli", "--cli-password=x", "--no-dtls", "--log-file=/dev/null",
            "--simple-log", *options,
        ]  # fmt: skip
    return commands


@contextmanager
def _server(command: list[str]) -> Iterator[int]:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield process.pid
    finally:
        process.kill()
        process.wait()


def _cpu(pid: int) -> float:
    """Seconds on a CPU, all threads."""
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        total += int((task / "schedstat").read_text().split()[0])
    return total / 1e9


def _memory(pid: int) -> float:
    """KiB, shared pages counted in parts."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return float(line.split()[1])
    return 0.0


class _Flows:
    """Ten clients and one peer, which counts."""

    def __init__(self, server: tuple[str, int], stack: ExitStack, *, plain: bool) -> None:
        self.peer = bind_udp("127.0.0.1", 0)
        stack.callback(self.peer.close)
        self.clients = [Client(server) for _ in range(FLOWS)]
        address = self.peer.getsockname()
        for client in self.clients:
            stack.callback(client.sock.close)
            if plain:  # the comparison learns where to send from its first datagram
                for _ in range(20):
                    try:
                        client.sock.send(b"\0" + address[1].to_bytes(2, "big"))
                        client.sock.recv(16)
                        break
                    except (TimeoutError, ConnectionRefusedError):
                        time.sleep(0.05)
            else:
                client.ask(stun.ALLOCATE, _UDP)
                client.bind(address)
            client.sock.setblocking(False)

    def arrived(self) -> int:
        """Datagrams the peer has got meanwhile."""
        count = 0
        while True:
            try:
                self.peer.recv_into(bytearray(1), 0, socket.MSG_TRUNC)
            except BlockingIOError:
                return count
            count += 1

    def send(self, rate: float, seconds: float, *, batched: bool) -> tuple[int, int]:
        """Send at this rate. Returns how many were sent, and how many arrived."""
        datagram = b"\x40\x00" + PAYLOAD.to_bytes(2, "big") + bytes(PAYLOAD)
        run = datagram * RUN
        size = [(17, 103, len(datagram).to_bytes(2, sys.byteorder))]
        step = RUN if batched else 1
        sent = arrived = turn = 0
        start = time.perf_counter()
        while (passed := time.perf_counter() - start) < seconds:
            due = int(passed * rate)
            while sent < due:
                sock = self.clients[turn % FLOWS].sock
                turn += 1
                try:
                    if batched:
                        sock.sendmsg([run], size)
                    else:
                        sock.send(datagram)
                except BlockingIOError:
                    break
                sent += step
                if not turn % 32:
                    arrived += self.arrived()
            arrived += self.arrived()
            time.sleep(0.000_2)
        quiet = time.perf_counter() + 0.3
        while time.perf_counter() < quiet:
            arrived += self.arrived()
            time.sleep(0.005)
        return sent, arrived


def measure(*, rate: float, seconds: float, repeat: int, allocations: int) -> list[Row]:
    """Rows of all servers."""
    rows: list[Row] = []
    port = _free_port()
    costs: dict[tuple[str, str], float] = {}
    for name, command in _commands(port).items():
        plain = name.startswith("asyncio")
        with ExitStack() as stack:
            pid = stack.enter_context(_server(command))
            flows = _Flows(("127.0.0.1", port), stack, plain=plain)
            for traffic in ("single", "batched"):
                each, lost = [], []
                for _ in range(repeat):
                    before = _cpu(pid)
                    sent, arrived = flows.send(rate, seconds, batched=traffic == "batched")
                    each.append((_cpu(pid) - before) / max(1, arrived) * 1e6)
                    lost.append(100.0 * (sent - arrived) / max(1, sent))
                costs[name, traffic] = cost = statistics.median(each)
                rows += [
                    _row(f"{name}, {traffic} datagrams: server CPU", cost, "us/packet"),
                    _row(f"{name}, {traffic} datagrams: lost", statistics.median(lost), "%"),
                ]
            if not plain:
                rows += _allocate(name, pid, port, allocations, stack)
    for other in ("asyncio DatagramProtocol", "coturn"):
        for traffic in ("single", "batched"):
            if (other, traffic) in costs:
                ratio = costs["trunkline", traffic] / costs[other, traffic]
                rows.append(_row(f"trunkline / {other}, {traffic}: CPU per packet", ratio, "x"))
    return rows


def _allocate(name: str, pid: int, port: int, count: int, stack: ExitStack) -> list[Row]:
    """One after the other, so that the figure is CPU and not waiting."""
    memory, before = _memory(pid), _cpu(pid)
    for _ in range(count):
        client = Client(("127.0.0.1", port))
        stack.callback(client.sock.close)
        client.ask(stun.ALLOCATE, _UDP)
    used = _cpu(pid) - before
    return [
        _row(f"{name}: allocations per second of server CPU", count / used, "1/s"),
        _row(f"{name}: memory per allocation", (_memory(pid) - memory) / count, "KiB"),
    ]


def _row(what: str, value: float, unit: str) -> Row:
    return {"what": what, "value": round(value, 3), "unit": unit, "budget": None}


class _Plain(asyncio.DatagramProtocol):
    """The comparison."""

    def __init__(self) -> None:
        self._peers: dict[tuple[Any, ...], tuple[str, int]] = {}

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It begins."""
        self._transport: Any = transport  # typeshed's class is none at run time

    def datagram_received(self, data: bytes, addr: tuple[Any, ...]) -> None:
        """Channel data, or where a client's is to go."""
        if data[0] & 0x40:
            peer = self._peers.get((addr, data[:2]))
            if peer is not None:
                self._transport.sendto(data[4:], peer)
            return
        self._peers[addr, b"\x40\x00"] = "127.0.0.1", int.from_bytes(data[1:3], "big")
        self._transport.sendto(data, addr)


async def _serve_plain(port: int) -> None:
    sock = bind_udp("127.0.0.1", port)
    loop = asyncio.get_running_loop()
    await loop.create_datagram_endpoint(_Plain, sock=sock)
    while True:
        await asyncio.sleep(1)
        if os.getppid() == 1:
            return


if __name__ == "__main__":
    asyncio.run(_serve_plain(int(sys.argv[1])))
