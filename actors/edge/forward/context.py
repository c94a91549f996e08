"""What all actors of one forward plane share. A plain object; it owns nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from actors.edge.forward.route_table import RouteTable
from actors.edge.forward.settings import ForwardSettings
from actors.runtime import ActorRef


@dataclass(slots=True)
class ForwardContext:
    """Made when the door is wired, alive as long as the process.

    Attributes:
        settings: limits and addresses.
        table: the routes; also holds the counters.
        registry, allocations: find the actors; they raise `ChildRefused` until the tree was up.
    """

    settings: ForwardSettings
    table: RouteTable
    registry: Callable[[], ActorRef]
    allocations: Callable[[], ActorRef]
