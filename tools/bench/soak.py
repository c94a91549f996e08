"""`trunkline bench soak`: byte-verified streams for hours over a network that loses and reorders.

A real daemon, two agents behind a `LossyProxy`, and the workload of `trunkline chaos`. Every minute
one row: transfers by outcome, what the network did, memory and descriptors of the daemon. The last
row is the verdict: every transfer complete, nothing left open, no growth after the warm-up.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from actors.pki.dev_pki import ensure_dev_pki
from actors.runtime import ActorSystem
from actors.transport.quic import QuicSettings
from tools.agent.relay_link import RelayLink
from tools.agent.settings import AgentSettings, Mapping
from tools.agent.tree import agent_root
from tools.bench.lossy_proxy import LossyProxy, Weather
from tools.bench.quic_daemon import Daemon
from tools.bench.sole_endpoint import SoleEndpoint
from tools.chaos.history import History
from tools.chaos.workload import Target, Workload

Row = dict[str, Any]
SERVICE = "soak"
#: Growth of the daemon's memory after the warm-up that is no leak, bytes.
ALLOWED_GROWTH = 16 << 20
#: Share of the time that is warm-up.
WARM_UP = 0.2


async def soak(
    seconds: float,
    *,
    engine: str = "native",
    streams: int = 20,
    seed: int = 1,
    weather: Weather = Weather(),  # noqa: B008  # frozen value
    interval: float = 60.0,
    pause: float = 0.5,
    shrink_after: float = 0.0,
    without_id: bool = False,
) -> AsyncIterator[Row]:
    """Rows, the verdict last.

    Args:
        engine: of the daemon; the agents use the native one.
        streams: at a time.
        pause: seconds (times up to two) between two transfers of a stream.
        shrink_after: seconds after which the path carries the smallest datagrams only; 0: never.
        without_id: the agents' connections have no connection id, like those of quic-go.
    """
    async with AsyncExitStack() as stack:
        if without_id:
            stack.callback(setattr, RelayLink, "endpoint_type", RelayLink.endpoint_type)
            RelayLink.endpoint_type = SoleEndpoint
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-soak-")))
        pki = ensure_dev_pki(directory / "pki")
        daemon = Daemon(directory, pki, engine, ())
        stack.callback(daemon.close)
        await asyncio.sleep(2.0)
        proxy = LossyProxy(daemon.address, weather, seed)
        await proxy.start()
        stack.push_async_callback(proxy.stop)
        history = History()
        target = Target(history)
        await target.start()
        stack.push_async_callback(target.stop)

        base = AgentSettings("", "", str(pki.ca_certificate), (proxy.address,))
        listening: list[tuple[str, int]] = []
        for name, provide, consume in (
            ("provider", (Mapping(SERVICE, "127.0.0.1", target.port),), ()),
            ("consumer", (), (Mapping(SERVICE, "127.0.0.1", 0),)),
        ):
            leaf = pki.agents[name]
            settings = replace(
                base,
                certificate=str(leaf.certificate),
                key=str(leaf.key),
                provide=provide,
                consume=consume,
            )
            system = ActorSystem(name)
            await system.start(_root(settings))
            stack.push_async_callback(system.stop, timeout=5.0)
            await _ready(system)
            if consume:
                listening.append(_listens(system))
        workload = Workload(
            listening[0], history, target=target, streams=streams, seed=seed, pause=pause
        )
        running = asyncio.create_task(workload.run())
        if shrink_after:
            asyncio.get_running_loop().call_later(shrink_after, _shrink, proxy)
        memory: list[int] = []
        async for row in _watch(seconds, interval, daemon, proxy, history):
            if row["seconds"] >= WARM_UP * seconds:
                memory.append(daemon.rss())
            yield row
        workload.stop()
        await running
        await asyncio.sleep(5.0)
        # New streams may be refused while the agents come back on smaller datagrams.
        allowed = {"complete", "refused"} if shrink_after else {"complete"}
        yield _verdict(history, daemon, min(memory, default=daemon.rss()), allowed)


def _shrink(proxy: LossyProxy) -> None:
    proxy.weather = replace(proxy.weather, mtu=QuicSettings().max_datagram)


def _root(settings: AgentSettings) -> Callable[[], Any]:
    return lambda: agent_root(settings)


async def _ready(system: ActorSystem) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        cell = system.find("/link")
        if cell is not None and cell.actor is not None and cell.actor.describe()["ready"]:
            return
        await asyncio.sleep(0.05)
    cell = system.find("/link")
    said = cell.actor.describe() if cell is not None and cell.actor is not None else {}
    raise RuntimeError(f"the agent found no relay: {said.get('last_error')}")


def _listens(system: ActorSystem) -> tuple[str, int]:
    listeners = system.find("/listeners")
    assert listeners is not None
    assert listeners.children is not None
    actor = next(iter(listeners.children.values())).actor
    assert actor is not None
    host, _, port = str(actor.describe()["address"]).rpartition(":")
    return host, int(port)


async def _watch(
    seconds: float, interval: float, daemon: Daemon, proxy: LossyProxy, history: History
) -> AsyncIterator[Row]:
    began = time.monotonic()
    cpu = daemon.cpu()
    while (elapsed := time.monotonic() - began) < seconds:
        await asyncio.sleep(min(interval, seconds - elapsed))
        used, cpu = daemon.cpu() - cpu, daemon.cpu()
        yield {
            "seconds": round(time.monotonic() - began),
            "outcomes": dict(Counter(one.outcome for one in history.transfers)),
            "network": dict(proxy.counters),
            "rss_mib": round(daemon.rss() / (1 << 20), 1),
            "descriptors": daemon.descriptors(),
            "cpu_share": round(used / interval, 3),
        }


def _verdict(history: History, daemon: Daemon, warm: int, allowed: set[str]) -> Row:
    """The workload is over and everything had its time to end.

    Args:
        warm: least memory after the warm-up, bytes.
        allowed: outcomes that break nothing.
    """
    outcomes = Counter(one.outcome for one in history.transfers)
    growth = daemon.rss() - warm
    bad = [f"{n} {outcome}" for outcome, n in outcomes.items() if outcome not in allowed]
    if growth > ALLOWED_GROWTH:
        bad.append(f"memory grew by {growth >> 20} MiB")
    return {
        "verdict": "held" if not bad and outcomes["complete"] else "broken",
        "broken": bad,
        "transfers": sum(outcomes.values()),
        "growth_mib": round(growth / (1 << 20), 1),
        "rss_mib": round(daemon.rss() / (1 << 20), 1),
        "descriptors": daemon.descriptors(),
        "details": [
            f"{one.name}: {one.outcome}: {one.detail}"
            for one in history.transfers
            if one.outcome != "complete"
        ][:20],
    }
