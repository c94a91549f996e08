"""Two real agents beside a real relay, in one loop."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from actors.runtime import ActorSystem, inspection
from tests.conftest import PkiFixture, eventually
from tests.edge.rig import Relay
from tools.agent.settings import AgentSettings
from tools.agent.settings import Mapping as Service
from tools.agent.tree import agent_root

SERVICE = "verified"


def says(system: ActorSystem, path: str, key: str) -> object:
    """One entry of an actor's description; None when nobody is there."""
    cell = system.find(path)
    if cell is None:
        return None
    described = inspection.details(cell)["describe"]
    return described.get(key) if isinstance(described, Mapping) else None


@asynccontextmanager
async def agents(
    running: Relay, pki: PkiFixture, target_port: int, *, provider_at: Relay | None = None
) -> AsyncIterator[tuple[str, int]]:
    """A provider of a local port and a consumer; yields the consumer's local address."""
    there = (provider_at or running).address
    async with agent_systems(
        running, pki, target_port, provider_relays=(there,), consumer_relays=(running.address,)
    ) as (address, _):
        yield address


@asynccontextmanager
async def agent_systems(
    running: Relay,
    pki: PkiFixture,
    target_port: int,
    *,
    provider_relays: tuple[tuple[str, int], ...] = (),
    consumer_relays: tuple[tuple[str, int], ...] = (),
    only: int | None = None,
    **more: Any,
) -> AsyncIterator[tuple[tuple[str, int], list[ActorSystem]]]:
    """As `agents`, with the two agents' actor systems: provider, consumer.

    Args:
        only: 0: the provider alone; 1: the consumer alone.
        more: further settings of both.
    """
    systems: list[ActorSystem] = []
    both = (
        (pki.provider, provider_relays, (Service(SERVICE, "127.0.0.1", target_port),), ()),
        (pki.consumer, consumer_relays, (), (Service(SERVICE, "127.0.0.1", 0),)),
    )
    for leaf, relays, provide, consume in both if only is None else (both[only],):
        settings = AgentSettings(
            certificate=str(leaf.certificate),
            key=str(leaf.key),
            ca=str(pki.ca),
            relays=relays or (running.address,),
            provide=provide,
            consume=consume,
            **more,
        )
        system = ActorSystem("agent")
        await system.start(lambda settings=settings: agent_root(settings))  # type: ignore[misc]
        systems.append(system)
    try:
        for system in systems:
            await eventually(lambda system=system: says(system, "/link", "ready") is True)  # type: ignore[misc]
        if only == 0:
            yield ("", 0), systems
            return
        listener = systems[-1].find("/listeners")
        assert listener is not None
        assert listener.children is not None
        place = next(iter(listener.children.values())).path
        host, _, port = str(says(systems[-1], place, "address")).rpartition(":")
        yield (host, int(port)), systems
    finally:
        for system in reversed(systems):
            await system.stop(timeout=5.0)
