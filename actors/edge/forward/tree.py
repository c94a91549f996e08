"""The subtree of the forward plane, from plain values.

::

    forward            one_for_one
    ├─ registry        AllocationRegistry: the record of what was granted
    ├─ plane           ForwardPlane: the socket
    └─ allocations     dynamic: one Allocation per granted id

one_for_one, because none of the three may cost the others anything: routes and socket meet in a
table that belongs to the wiring, records come back from the allocations, allocations from the
records.
"""

from __future__ import annotations

from actors.edge.forward.allocation_registry import AllocationRegistry
from actors.edge.forward.context import ForwardContext
from actors.edge.forward.plane import ForwardPlane
from actors.edge.forward.route_table import RouteTable
from actors.edge.forward.settings import ForwardSettings
from actors.runtime import (
    ActorRef,
    ActorSystem,
    Backoff,
    ChildRefused,
    ChildSpec,
    DynamicSupervisor,
    Intensity,
    Supervisor,
)

#: Without its socket the plane loses packets: its pauses stay short.
BACKOFF = Backoff(base=0.02, cap=0.5, stable_after=5.0)


def forward_place(system: ActorSystem, settings: ForwardSettings, base: str) -> ForwardContext:
    """What the actors of the plane at `base` share."""

    found: dict[str, ActorRef] = {}  # a reference names a place and stays valid over restarts

    def place(name: str) -> ActorRef:
        ref = found.get(name) or system.ref(f"{base}/{name}")
        if ref is None:
            raise ChildRefused(base, name, "down")
        found[name] = ref
        return ref

    return ForwardContext(
        settings,
        RouteTable(invented_ids=settings.invented_ids),
        registry=lambda: place("registry"),
        allocations=lambda: place("allocations"),
    )


def forward_spec(place: ForwardContext) -> ChildSpec:
    """The subtree, as a child named `forward`."""
    budget = Intensity(restarts=20, period=10.0)
    children = [
        ChildSpec("registry", lambda: AllocationRegistry(place), backoff=BACKOFF),
        ChildSpec("plane", lambda: ForwardPlane(place), backoff=BACKOFF),
        ChildSpec(
            "allocations",
            lambda: DynamicSupervisor(
                max_children=place.settings.max_allocations, intensity=Intensity(20, 10.0)
            ),
            backoff=BACKOFF,
        ),
    ]
    return ChildSpec("forward", lambda: Supervisor(children, intensity=budget), backoff=BACKOFF)
