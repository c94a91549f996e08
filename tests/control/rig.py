"""A running control subtree, agent connections and stream pairs as a door would have them."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from actors.control.backend import BackendSpec
from actors.control.messages import (
    AgentUp,
    ClaimStream,
    ControlPlane,
    RegisterRefused,
    RegisterService,
    Resolution,
    Resolve,
    Superseded,
)
from actors.control.store.embedded import embedded_backend
from actors.control.tree import control_plane, control_spec
from actors.runtime import (
    Actor,
    ActorDown,
    ActorRef,
    ActorSystem,
    ChildSpec,
    DynamicSupervisor,
    Event,
    Intensity,
    ReplyError,
    Restart,
    Supervisor,
    handles,
)
from actors.runtime.lifecycle import State

CONTROL_ACTORS = ("store", "registry", "policy", "audit")


@dataclass(slots=True)
class Connection:
    """What a test sees of one agent connection."""

    ref: ActorRef
    superseded: list[int] = field(default_factory=list)


class Agent(Actor):
    """An agent connection: registers, and repeats itself when the registry was restarted."""

    def __init__(
        self,
        seen: list[int],
        registry: ActorRef,
        uri: str,
        services: tuple[str, ...],
        *,
        repeats: bool,
    ) -> None:
        self._seen = seen
        self._registry = registry
        self._uri = uri
        self._services = services
        self._repeats = repeats
        self._generation = 0

    def init(self) -> None:
        if self._repeats:
            place = self._registry.path
            self.subscribe(lambda event: event.kind == "started" and event.path == place)

        self.spawn_task(self._publish(), "publish")

    @handles(Event)
    def _registry_restarted(self, event: Event) -> None:
        self.spawn_task(self._publish(), "publish")

    @handles(Superseded)
    def _superseded(self, message: Superseded) -> None:
        self._seen.append(message.by_generation)

    async def _publish(self) -> None:
        try:
            up = AgentUp(self._uri, "acme", self.ref, self._generation)
            self._generation = await self._registry.ask_again(up, timeout=5.0)
            for name in self._services:
                await self._registry.ask_again(
                    RegisterService("acme", name, self._uri, self._generation), timeout=5.0
                )
        except ActorDown:
            pass  # its next `started` event publishes again
        except ReplyError as refused:
            # It restarted between the two: the same event publishes again.
            if refused.refusal != RegisterRefused("not_connected"):
                raise


class Idle(Actor):
    """A bare connection or stream pair: a place to be monitored."""

    def __init__(self, seen: list[int] | None = None) -> None:
        self._seen = seen if seen is not None else []

    @handles(Superseded)
    def _superseded(self, message: Superseded) -> None:
        self._seen.append(message.by_generation)


@dataclass(slots=True)
class Rig:
    """The system under test."""

    system: ActorSystem
    plane: ControlPlane
    count: int = 0

    @property
    def registry(self) -> ActorRef:
        return self.plane.registry

    @property
    def policy(self) -> ActorRef:
        return self.plane.policy

    @property
    def audit(self) -> ActorRef:
        return self.plane.audit

    def ref(self, path: str) -> ActorRef:
        found = self.system.ref(path)
        assert found is not None, path
        return found

    def describe(self, name: str) -> dict[str, Any]:
        """The live `describe()` of a control actor; None for everything between two lives."""
        cell = self.system.find(f"/control/{name}")
        if cell is None or cell.state not in (State.RUNNING, State.DRAINING):
            return defaultdict(lambda: None)
        assert cell.actor is not None
        return dict(cell.actor.describe())

    def _start(self, make: Any) -> ActorRef:
        self.count += 1
        spec = ChildSpec(f"c{self.count}", make, restart=Restart.TEMPORARY)
        return self.system.start_child(self.ref("/agents"), spec)

    def agent(self, uri: str, *services: str, repeats: bool = True) -> Connection:
        """A connection that registers `services` by itself."""
        seen: list[int] = []
        registry = self.registry
        return Connection(
            self._start(lambda: Agent(seen, registry, uri, services, repeats=repeats)), seen
        )

    def idle(self) -> Connection:
        """A connection that says nothing by itself."""
        seen: list[int] = []
        return Connection(self._start(lambda: Idle(seen)), seen)

    async def up(self, uri: str, connection: Connection, generation: int = 0) -> int:
        message = AgentUp(uri, "acme", connection.ref, generation)
        return await self.registry.ask(message, timeout=5.0)

    async def register(self, uri: str, name: str, generation: int) -> str:
        message = RegisterService("acme", name, uri, generation, "127.0.0.1:80")
        return await self.registry.ask(message, timeout=5.0)

    async def connect(self, uri: str, *services: str) -> tuple[Connection, int]:
        """An idle connection, up and registered."""
        connection = self.idle()
        generation = await self.up(uri, connection)
        for name in services:
            await self.register(uri, name, generation)
        return connection, generation

    async def claim(
        self, stream_id: int, pair: Connection, consumer: str = "u1", provider: str = "u2"
    ) -> bool:
        message = ClaimStream(stream_id, consumer, provider, pair.ref)
        return await self.registry.ask(message, timeout=5.0)

    async def resolve(self, service: str, *, tenant: str = "acme", region: str = "") -> Resolution:
        message = Resolve(tenant, service, region)
        return await self.registry.ask_again(message, timeout=5.0)

    async def providers(self, service: str, *, region: str = "") -> list[str]:
        found = await self.resolve(service, region=region)
        return [provider.uri for provider in found.providers]

    async def kill(self, connection: Connection) -> None:
        """End a connection and wait until whoever monitors it was told."""
        path = connection.ref.path
        self.system.kill(connection.ref)
        while self.system.find(path) is not None:
            await asyncio.sleep(0.001)


@asynccontextmanager
async def running(
    database: str | Path = ":memory:",
    *,
    backend: BackendSpec | None = None,
    relay_id: str = "r1",
    grace: float = 0.05,
    **settings: Any,
) -> AsyncIterator[Rig]:
    """Control under a root that tolerates many faults, and a place for connections."""
    backend = backend or embedded_backend(database)
    spec = control_spec(backend, relay_id=relay_id, grace=grace, **settings)
    system = ActorSystem("test", seed=1)
    await system.start(
        lambda: Supervisor(
            [spec, ChildSpec("agents", DynamicSupervisor)], intensity=Intensity(1000, 30.0)
        )
    )
    try:
        yield Rig(system, control_plane(system))
    finally:
        await system.stop(timeout=10.0)
