"""The users of a chaos run: a target service, two agents, many streams, and one new stream after
the other.

Everything runs in the process of the chaos command, so that the daemon carries real agents'
traffic without one flag. The agents are the product's own (tools/agent); they are never hurt
themselves, their connections at the relay are.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import asdict

from actors.runtime import ActorDown, ActorSystem, inspection
from tools.agent.settings import AgentSettings
from tools.agent.settings import Mapping as Service
from tools.agent.tree import agent_root
from tools.chaos.credentials import AgentFiles
from tools.chaos.history import History, Probe
from tools.chaos.workload import Plan, Target, Workload

SERVICE = "trunkline-chaos"
#: Seconds the agents get to connect and register.
READY_SECONDS = 20.0
#: Seconds between two transfers of one user: the machine must not be what limits a new stream.
USER_PAUSE = 0.2
#: Seconds between two new streams, and how many may be undecided at a time.
PROBE_PAUSE = 0.1
MAX_PROBES = 64


class LoadFailed(Exception):
    """The agents or the first transfers did not work although nothing was hurt yet."""


class Load:
    """The users of a chaos run: a target service, two agents, many streams, and one new stream
    after the other.

    Args:
        relay: its address.
        provider, consumer: credentials of the agents.
        streams: transfers at a time.
        seed: drives sizes and contents.
        largest: most bytes one direction of one transfer carries.
    """

    def __init__(
        self,
        history: History,
        *,
        relay: tuple[str, int],
        provider: AgentFiles,
        consumer: AgentFiles,
        streams: int,
        seed: int,
        largest: int = 1 << 20,
    ) -> None:
        self._history = history
        self._relay = relay
        self._files = (provider, consumer)
        self._streams, self._seed, self._largest = streams, seed, largest
        self._target = Target(history)
        self._systems: list[ActorSystem] = []
        self._workload: Workload
        self._direct: Workload
        self._running: asyncio.Task[None] | None = None
        self._prober: asyncio.Task[None] | None = None
        self._stopped = False
        self._probes = 0

    async def start(self) -> None:
        """Connect, register, and let one transfer per stream pass.

        Raises:
            LoadFailed: it does not work even without faults.
        """
        await self._target.start()
        provided = (Service(SERVICE, "127.0.0.1", self._target.port),)
        consumed = (Service(SERVICE, "127.0.0.1", 0),)
        for files, provide, consume in (
            (self._files[0], provided, ()),
            (self._files[1], (), consumed),
        ):
            await self._start_agent(files, provide, consume)
        self._workload = Workload(
            _listening(self._systems[1]),
            self._history,
            streams=self._streams,
            seed=self._seed,
            largest=self._largest,
            pause=USER_PAUSE,
            target=self._target,
        )
        self._direct = Workload(
            ("127.0.0.1", self._target.port), self._history, target=self._target, seed=self._seed
        )
        warm_up = [self._workload.plan(slot) for slot in range(self._streams)]
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._workload.transfer(plan)) for plan in warm_up]
        for transfer in (task.result() for task in tasks):
            if transfer.outcome != "complete":
                raise LoadFailed(
                    f"{transfer.name} before any fault: {transfer.outcome} {transfer.detail}"
                )

    async def _start_agent(
        self, files: AgentFiles, provide: tuple[Service, ...], consume: tuple[Service, ...]
    ) -> None:
        settings = AgentSettings(
            certificate=str(files.certificate),
            key=str(files.key),
            ca=str(files.ca),
            relays=(self._relay,),
            provide=provide,
            consume=consume,
        )
        system = ActorSystem("chaos-agent")
        system.events.subscribe(lambda event: self._history.agent_events.append(asdict(event)))
        self._systems.append(system)
        try:
            await system.start(lambda: agent_root(settings))
        except (ActorDown, TimeoutError) as error:
            raise LoadFailed(f"an agent did not start: {error}") from None
        deadline = time.monotonic() + READY_SECONDS
        while says(system, "/link", "ready") is not True:
            if time.monotonic() > deadline:
                cause = says(system, "/link", "last_error")
                raise LoadFailed(f"no connection to {self._relay[0]}:{self._relay[1]}: {cause}")
            await asyncio.sleep(0.02)

    def begin(self) -> None:
        """Start the streams and the probes."""
        self._running = asyncio.create_task(self._workload.run())
        self._prober = asyncio.create_task(self._probe())

    async def finish(self) -> None:
        """Begin nothing new; wait until everything running was decided."""
        self._stopped = True
        if self._running is None or self._prober is None:
            return
        self._workload.stop()
        await self._prober
        await self._running

    async def stop(self) -> None:
        """Take the agents and the target away."""
        for task in (self._running, self._prober):
            if task is not None and not task.done():
                task.cancel()
                await asyncio.wait([task])
        for system in reversed(self._systems):
            await system.stop(timeout=5.0)
        await self._target.stop()

    async def _probe(self) -> None:
        async with asyncio.TaskGroup() as group:
            while not self._stopped:
                if self._probes < MAX_PROBES:
                    self._probes += 1
                    group.create_task(self._new_stream())
                    group.create_task(self._directly())
                await asyncio.sleep(PROBE_PAUSE)

    async def _new_stream(self) -> None:
        plan: Plan = self._workload.small_plan()
        transfer = await self._workload.transfer(plan)
        self._probes -= 1
        self._history.transfers.append(transfer)
        error = "" if transfer.outcome == "complete" else f"{transfer.outcome} {transfer.detail}"
        self._history.probes.append(
            Probe(transfer.began, transfer.ended - transfer.began, error, "stream", transfer.name)
        )

    async def _directly(self) -> None:
        """The same exchange without relay and agents: what the machine allows at present."""
        transfer = await self._direct.transfer(self._direct.small_plan())
        self._history.probes.append(
            Probe(transfer.began, transfer.ended - transfer.began, "", "direct")
        )


def says(system: ActorSystem, path: str, key: str) -> object:
    """One entry of an actor's description; None when nobody is there."""
    cell = system.find(path)
    if cell is None:
        return None
    described = inspection.details(cell)["describe"]
    return described.get(key) if isinstance(described, Mapping) else None


def _listening(system: ActorSystem) -> tuple[str, int]:
    """Where the consumer agent listens."""
    listeners = system.find("/listeners")
    if listeners is None or not listeners.children:
        raise LoadFailed("the consumer agent does not listen")
    path = next(iter(listeners.children.values())).path
    host, _, port = str(says(system, path, "address")).rpartition(":")
    return host, int(port)
