"""`trunkline bench forward`: datagrams forwarded in a second and what each costs, beside asyncio.

The relay runs in a process of its own on one core, the generator here on another one. The
generator keeps a fixed number of datagrams under way (it sends more as they arrive), so that the
relay decides the pace and nothing is lost by design. Batched traffic: runs of 1204-byte datagrams
(4-byte prefix, 1200-byte payload) sent with UDP_SEGMENT, as QUIC stacks send bulk data.

With kills, single datagrams at a fixed interval measure how long none arrives.
"""

from __future__ import annotations

import multiprocessing
import os
import socket
import statistics
import time
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from multiprocessing.connection import Connection
from struct import Struct
from typing import Any

from actors.transport.udp import bind_udp
from actors.transport.udp.segmentation import Segmentation, enable_coalescing
from tools.bench.forward_relay import Counters, Kill, Ready, Snapshot, run_relay
from wire.orp.forward_datagram import encode_data, encode_registration

Row = dict[str, Any]

PAYLOAD = 1200
#: Datagrams in one call; 54 of 1204 bytes are the most UDP_SEGMENT takes.
RUN = 54
#: Runs and single datagrams under way.
WINDOW_RUNS = 48
WINDOW_SINGLES = 128
#: Seconds without arrival after which what is under way counts as lost.
STALL = 0.05
#: Seconds between two single datagrams while allocations are killed, and between two kills.
INTERVAL = 0.000_5
KILL_EVERY = 0.6
#: What a kill did is looked for in this many seconds after it.
KILL_WINDOW = 0.5
_SEQUENCE = Struct("!Q")


class Generator:
    """Both agents of one forward stream, in one process."""

    def __init__(self, ready: Ready, *, coalesce: bool = True) -> None:
        self.relay = ready.address
        self.consumer = bind_udp("127.0.0.1", 0)
        self.provider = bind_udp("127.0.0.1", 0)
        if coalesce:
            enable_coalescing(self.provider)
        self.peer = ready.ids[1]
        self.head = bytearray(_SEQUENCE.size)
        self.register(ready.ids)

    def register(self, ids: tuple[int, int]) -> None:
        """Bind both ids, and wait until data arrives."""
        deadline = time.monotonic() + 5.0
        while time.monotonic() < deadline:
            self.consumer.sendto(encode_registration(ids[0]), self.relay)
            self.provider.sendto(encode_registration(ids[1]), self.relay)
            self.consumer.sendto(encode_data(ids[1], b"ready"), self.relay)
            time.sleep(0.02)
            if self.arrived():
                time.sleep(0.05)
                while self.arrived():
                    pass
                return
        raise TimeoutError("the relay forwards nothing")

    def arrived(self) -> int:
        """Bytes that arrived, by one call; 0: nothing. Only the first few are copied."""
        try:
            return self.provider.recv_into(self.head, 0, socket.MSG_TRUNC)
        except BlockingIOError:
            return 0

    def close(self) -> None:
        """Close both sockets."""
        self.consumer.close()
        self.provider.close()

    def pump(self, seconds: float, *, batched: bool) -> tuple[int, int]:
        """Keep the window full for a while. Returns datagrams sent and arrived."""
        datagram = encode_data(self.peer, b"x" * PAYLOAD)
        burst = datagram * RUN if batched else datagram
        size = RUN if batched else 1
        window = (WINDOW_RUNS if batched else WINDOW_SINGLES) * size
        ancillary = Segmentation.ancillary(len(datagram))
        now = time.monotonic()
        end, progress = now + seconds, now
        sent = arrived = under_way = 0
        while now < end:
            while under_way < window:
                try:
                    if batched:
                        self.consumer.sendmsg([burst], ancillary, 0, self.relay)
                    else:
                        self.consumer.sendto(burst, self.relay)
                except BlockingIOError:
                    break
                sent += size
                under_way += size
            count = 0
            while octets := self.arrived():
                count += -(-octets // PAYLOAD)
                if count >= window // 4:
                    break
            now = time.monotonic()
            if count:
                arrived += count
                under_way = max(0, under_way - count)
                progress = now
            elif now - progress > STALL:
                under_way, progress = 0, now
        return sent, arrived


@contextmanager
def _relay(method: str) -> Iterator[tuple[Connection, Ready]]:
    """A relay process on the last core this process may use; the generator keeps the others."""
    cores = sorted(os.sched_getaffinity(0))
    alone = len(cores) > 1
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(
        target=run_relay, args=(theirs, method, cores[-1] if alone else None), daemon=True
    )
    process.start()
    theirs.close()
    if alone:
        os.sched_setaffinity(0, set(cores[:-1]))
    try:
        if not ours.poll(30.0):
            raise TimeoutError("the relay process did not come up")
        yield ours, ours.recv()
    finally:
        if alone:
            os.sched_setaffinity(0, set(cores))
        ours.close()
        process.join(10.0)
        if process.is_alive():
            process.kill()
            process.join()


def _ask(pipe: Connection) -> Counters:
    pipe.send(Snapshot())
    counters = pipe.recv()
    assert isinstance(counters, Counters)
    return counters


def measure_throughput(seconds: float, repeat: int) -> list[Row]:
    """Datagrams per second and CPU per datagram: both relays, batched and single datagrams."""
    results: dict[tuple[str, bool], list[tuple[float, float, float]]] = {}
    for _ in range(repeat):
        for method in ("protocol", "plane"):
            with _relay(method) as (pipe, ready):
                generator = Generator(ready)
                for batched in (True, False):
                    generator.pump(0.2, batched=batched)
                    before, start = _ask(pipe), time.monotonic()
                    sent, arrived = generator.pump(seconds, batched=batched)
                    after, took = _ask(pipe), time.monotonic() - start
                    forwarded = max(1, after.forwarded - before.forwarded)
                    cpu = (after.cpu_seconds - before.cpu_seconds) / forwarded
                    lost = 1.0 - arrived / max(1, sent)
                    results.setdefault((method, batched), []).append((arrived / took, cpu, lost))
                generator.close()
    rows: list[Row] = []
    names = {"protocol": "asyncio DatagramProtocol", "plane": "forward plane"}
    for (method, batched), runs in results.items():
        what = f"{names[method]}, {'batched' if batched else 'single'} datagrams"
        rate, cpu, lost = (statistics.median(column) for column in zip(*runs, strict=True))
        rows += [
            {"what": f"{what}: forwarded", "value": rate, "unit": "packets/s"},
            {"what": f"{what}: best run", "value": max(runs)[0], "unit": "packets/s"},
            {"what": f"{what}: relay CPU", "value": cpu * 1e6, "unit": "us/packet"},
            {"what": f"{what}: a core's worth of CPU", "value": 1 / cpu, "unit": "packets/s"},
            {"what": f"{what}: lost", "value": max(0.0, lost) * 100, "unit": "%"},
        ]
    pairs = list(zip(results["plane", True], results["protocol", True], strict=True))
    ratio = statistics.median([plane[0] / protocol[0] for plane, protocol in pairs])
    cheaper = statistics.median([protocol[1] / plane[1] for plane, protocol in pairs])
    rows += [
        {
            "what": "forward plane / DatagramProtocol, batched: packets/s",
            "value": ratio,
            "unit": "x",
        },
        {"what": "DatagramProtocol / forward plane, batched: CPU", "value": cheaper, "unit": "x"},
    ]
    return rows


def measure_kills(kills: int) -> list[Row]:
    """What is lost, and how long nothing arrives, when the receiving side's allocation is killed.

    The two differ on a busy machine: who waits for the processor loses nothing.
    """
    with _relay("plane") as (pipe, ready):
        generator = Generator(ready, coalesce=False)
        sent: list[float] = []  # by sequence number
        arrived: dict[int, float] = {}
        killed: list[float] = []
        now = due = time.monotonic()
        next_kill = now + KILL_EVERY
        waiting = False
        while len(killed) < kills or now < next_kill:
            if now >= due:
                payload = _SEQUENCE.pack(len(sent)) + b"x" * (PAYLOAD - _SEQUENCE.size)
                generator.consumer.sendto(encode_data(ready.ids[1], payload), generator.relay)
                sent.append(now)
                due = max(due + INTERVAL, now - 10 * INTERVAL)
            while generator.arrived():
                arrived[_SEQUENCE.unpack_from(generator.head)[0]] = time.monotonic()
            if waiting and pipe.poll():
                killed.append(pipe.recv())
                waiting = False
            now = time.monotonic()
            if now >= next_kill and not waiting and len(killed) < kills:
                pipe.send(Kill())
                waiting = True
                next_kill = now + KILL_EVERY
        generator.close()
    times = sorted(arrived.values())
    gaps = [_longest_gap(times, at - 0.002, at + KILL_WINDOW / 2) for at in killed]
    quiet = [_longest_gap(times, at - KILL_WINDOW / 2 - 0.002, at - 0.002) for at in killed]
    lost = [
        [at for number, at in _during(sent, at - 0.05, at + KILL_WINDOW) if number not in arrived]
        for at in killed
    ]
    spans = [times[-1] - times[0] + INTERVAL if times else 0.0 for times in lost]
    return [
        {"what": "allocation killed under traffic: kills", "value": len(killed), "unit": ""},
        *_quantiles("datagrams are lost for", spans),
        *_quantiles("nothing arrives, after a kill, for", gaps),
        *_quantiles("nothing arrives, before a kill, for", quiet),
        {"what": "datagrams sent", "value": len(sent), "unit": ""},
        {"what": "datagrams lost", "value": len(sent) - len(arrived), "unit": ""},
        {"what": "of them around a kill", "value": sum(map(len, lost)), "unit": ""},
    ]


def _during(sent: list[float], start: float, end: float) -> list[tuple[int, float]]:
    """Sequence numbers and times of what was sent in this time."""
    first, last = bisect_left(sent, start), bisect_right(sent, end)
    return list(enumerate(sent[first:last], first))


def _longest_gap(arrivals: list[float], start: float, end: float) -> float:
    """The longest time without arrival that touches the window, seconds."""
    inside = arrivals[bisect_left(arrivals, start) : bisect_right(arrivals, end)]
    return max(later - earlier for earlier, later in pairwise([start, *inside, end]))


def _quantiles(what: str, values: list[float]) -> list[Row]:
    ordered = sorted(values)

    def at(share: float) -> float:
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] * 1000

    return [
        {"what": f"{what}: {name}", "value": value, "unit": "ms"}
        for name, value in (("p50", at(0.5)), ("p99", at(0.99)), ("max", ordered[-1] * 1000))
    ]
