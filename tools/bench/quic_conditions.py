"""`trunkline bench idle|storm|flood|stall`: the real daemon under conditions that are not bulk.

Every row compares within one run. Memory is the daemon's resident set as the kernel reports it.
"""

from __future__ import annotations

import socket
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import Any

from actors.pki.dev_pki import DevPki
from tools.bench.quic_daemon import Daemon, Process, agent, pair, started

Row = dict[str, Any]
KIBIBYTE = 1024
MEBIBYTE = 1 << 20
#: Agents that connect before memory is looked at: they load what is loaded once.
_FIRST = 100
#: Seconds after which a daemon has settled.
_SETTLE = 3.0


#: Everybody is behind one address here; and nobody wants to measure pings.
_QUIET = [
    *("--set", "edge.max_pending_handshakes_per_source=1024"),
    *("--set", "edge.idle_timeout_seconds=120", "--set", "edge.keepalive_seconds=30"),
]


def _crowd(
    stack: ExitStack,
    pki: DevPki,
    daemon: Daemon,
    sockets: int,
    services: int = 1,
    *,
    first: int = 0,
) -> Process:
    crowd = Process(["-m", "tools.bench.crowd"])
    stack.callback(crowd.close)
    crowd.ask(
        {
            "ca": str(pki.ca_certificate),
            "ca_key": str(pki.ca_key),
            "address": daemon.address,
            "sockets": sockets,
            "services": services,
            "first": first,
        }
    )
    return crowd


def idle(
    engines: Sequence[str], count: int, *, services: int = 1, seconds: float = 10.0
) -> Iterator[Row]:
    """Memory of idle, registered agents; what they cost for so many seconds."""
    for engine in engines:
        with started(engine, _QUIET) as (daemon, pki, stack):
            crowd = _crowd(stack, pki, daemon, 128, services)
            first = min(_FIRST, count // 2)
            crowd.ask({"do": "gather", "count": first})
            time.sleep(_SETTLE)
            before, descriptors = daemon.rss(), daemon.descriptors()
            done = crowd.ask({"do": "gather", "count": count - first})
            time.sleep(_SETTLE)
            writes, cpu = daemon.registry_writes(), daemon.cpu()
            time.sleep(seconds)
            spent, written = daemon.cpu() - cpu, daemon.registry_writes() - writes
            yield {
                "engine": engine,
                "what": f"{count} idle agents",
                "kib_each": (daemon.rss() - before) / (count - first) / KIBIBYTE,
                "seconds_to_register": done["seconds"],
                "daemon_cpu_share_idle": spent / seconds,
                "registry_writes": written,
                "further_descriptors": daemon.descriptors() - descriptors,
            }


def idle_cluster(
    engines: Sequence[str], relays: int, count: int, *, services: int, seconds: float
) -> Iterator[Row]:
    """As `idle`, over gRPC: agents at several relays of one controller, and what they ask it."""
    for engine in engines:
        with ExitStack() as stack:
            yield _idle_cluster(stack, engine, relays, count, services, seconds)


def _idle_cluster(
    stack: ExitStack, engine: str, relays: int, count: int, services: int, seconds: float
) -> Row:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    serve = ("control.serve.enabled=true", f"control.serve.listen={address}")
    told = [word for setting in serve for word in ("--set", setting)]
    controller, _, _ = stack.enter_context(started(engine, told))
    daemons = [controller]
    for number in range(relays):
        extra = [*_QUIET, "--relay-id", f"bench-{number}", "--controller", address]
        daemon, pki, inner = stack.enter_context(started(engine, extra))
        daemons.append(daemon)
        crowd = _crowd(inner, pki, daemon, 128, services, first=number * count)
        crowd.ask({"do": "gather", "count": count})
    time.sleep(_SETTLE)

    def served() -> Counter[str]:
        return Counter(controller.describe("/control/controller/server")["served"])

    rpcs, writes = served(), controller.registry_writes()
    cpu = [daemon.cpu() for daemon in daemons]
    time.sleep(seconds)
    spent = [daemon.cpu() - before for daemon, before in zip(daemons, cpu, strict=True)]
    asked = served() - rpcs
    return {
        "engine": engine,
        "what": f"{count} idle agents at each of {relays} relays",
        "controller_cpu_share": spent[0] / seconds,
        "relay_cpu_share": sum(spent[1:]) / relays / seconds,
        "registry_writes": controller.registry_writes() - writes,
        "rpc_heartbeats": asked.pop("Registry/UpsertRelay", 0),
        "rpc_list_relays": asked.pop("Fleet/ListRelays", 0),
        "rpc_others": asked.total(),
    }


def storm(engines: Sequence[str], count: int) -> Iterator[Row]:
    """The relay is killed and begins again: everybody comes back at once."""
    for engine in engines:
        with started(engine) as (daemon, pki, stack):
            crowd = _crowd(stack, pki, daemon, count)
            first = crowd.ask({"do": "gather", "count": count})
            daemon.kill()
            daemon.start()
            began = time.monotonic()
            again = crowd.ask({"do": "again", "times": 2})
            seconds = time.monotonic() - began
            consumer = agent(pki.agents["consumer"], pki, daemon, [])
            stack.callback(consumer.close)
            services = [f"crowd-{number}" for number in range(count)]
            silent = consumer.ask({"do": "visit", "services": services})["silent"]
            yield {
                "engine": engine,
                "what": f"storm of {count} agents",
                "first_seconds": first["seconds"],
                "again_seconds": seconds,
                "dials_that_failed": again["retries"],
                "services_that_answer": count - len(silent),
                "services_lost": len(silent),
                "rss_mib": daemon.rss() / MEBIBYTE,
            }


def flood(engines: Sequence[str], streams: int, seconds: float) -> Iterator[Row]:
    """Transfers beside a flood of Initials.

    The flood takes a part of the machine wherever it goes, so the comparison is with the same
    flood at a socket that nobody reads.
    """
    for engine in engines:
        with started(engine) as (daemon, pki, stack):
            consumer = pair(stack, pki, daemon)
            flooder = Process(["-m", "tools.bench.initial_flood"])
            stack.callback(flooder.close)
            sink = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            sink.bind(("127.0.0.1", 0))
            flooder.ask({"address": daemon.address, "sources": 250, "kinds": 5000})
            busy = {"do": "busy", "streams": streams, "seconds": seconds}
            alone = consumer.ask(busy)["bytes"] / seconds
            before = daemon.rss()
            rates, sent = {}, {}
            for name, address in (("sink", sink.getsockname()), ("relay", daemon.address)):
                flooder.ask({"do": "start", "address": address})
                rates[name] = consumer.ask(busy)["bytes"] / seconds
                sent[name] = flooder.ask({"do": "stop"})["sent"] / seconds
            yield {
                "engine": engine,
                "what": f"{streams} streams beside Initials",
                "mib_s_alone": alone / MEBIBYTE,
                "mib_s_flood_elsewhere": rates["sink"] / MEBIBYTE,
                "mib_s_flooded": rates["relay"] / MEBIBYTE,
                "kept": rates["relay"] / rates["sink"],
                "initials_per_second": sent["relay"],
                "rss_growth_mib": (daemon.rss() - before) / MEBIBYTE,
            }


def stall(engines: Sequence[str], streams: int, seconds: float) -> Iterator[Row]:
    """One stalled stream: what its siblings keep, what the daemon holds, what arrives."""
    for engine in engines:
        with started(engine) as (daemon, pki, stack):
            consumer = pair(stack, pki, daemon)
            busy = {"do": "busy", "streams": streams, "seconds": 5.0}
            consumer.ask(busy)  # memory that every busy daemon has
            before = daemon.rss()
            consumer.ask({"do": "stall", "streams": 1, "bytes": 64 * MEBIBYTE})
            most = 0
            for _ in range(int(seconds)):
                time.sleep(1.0)
                most = max(most, daemon.rss())
            beside = consumer.ask(busy)["bytes"]
            equal = consumer.ask({"do": "read on"})["equal"]
            without = consumer.ask(busy)["bytes"]
            yield {
                "engine": engine,
                "what": f"1 stalled, {streams} active",
                "stalled_seconds": seconds,
                "growth_mib": (most - before) / MEBIBYTE,
                "siblings_keep": beside / without,
                "arrived_equal": float(equal),
            }
