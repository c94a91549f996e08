"""What one agent and one tenant may fill of the edge door, from its settings."""

from __future__ import annotations

import math
from collections.abc import MutableMapping
from typing import Final

from actors.edge.settings import EdgeSettings
from actors.transport.quota import Quota, Rate

#: About one agent's streams, above level DEBUG; metrics and access log have all of them.
LINES_PER_SECOND: Final = 10.0


class EdgeQuotas:
    """One for each thing an agent can have many of.

    Attributes:
        connections: of agents, from the handshake on; an agent that comes back has two for a while.
        opening: streams without a complete first frame.
        streams: pairs, by their consumer.
        halves: streams that came back and wait.
        services: registered names.
        forward: forward streams, by their consumer.
        links: connections that other relays dialled, by relay.
        connects: connections, each of which is told to the registry and its store.
        opens: streams opened, each of which costs decisions, look-ups and audit records.
        barren: streams that end without a first frame, by the agent that opened them. Who has more
            loses its connection, so nobody pays for another agent of its tenant.
        log_lines: of streams that were refused, each of which an agent may cause at will.
        returns: streams that come back.
        candidates: addresses told to another agent, which dials all of them.
    """

    def __init__(self, settings: EdgeSettings, refused: MutableMapping[str, int]) -> None:
        def quota(name: str, total: int, each: int) -> Quota:
            return Quota(name, total, each, refused, share=settings.tenant_share)

        def rate(name: str, each: float) -> Rate:
            return Rate(name, each * settings.tenant_rate, each, refused)

        self.connections = quota(
            "connections", settings.max_agents, settings.max_connections_per_agent
        )
        self.opening = quota("opening", settings.max_opening, settings.max_opening_per_agent)
        self.streams = quota("streams", settings.max_streams, settings.max_streams_per_agent)
        self.halves = quota("halves", settings.max_halves, settings.max_halves_per_agent)
        self.services = quota("services", settings.max_services, settings.max_services_per_agent)
        allocations = settings.forward.max_allocations if settings.forward is not None else 0
        self.forward = quota("forward", allocations // 2, settings.max_forward_per_agent)
        self.links = Quota(
            "links",
            settings.relays.max_links,
            settings.max_connections_per_agent,
            refused,
            share=1.0,
        )
        self.connects = Rate("connects", math.inf, settings.connects_per_second, refused)
        self.opens = rate("opens", settings.opens_per_second)
        self.barren = Rate("barren", math.inf, settings.opens_per_second, refused)
        self.log_lines = rate("log_lines", LINES_PER_SECOND)
        self.returns = rate("returns", settings.returns_per_second)
        self.candidates = rate("candidates", settings.candidates_per_second)

    def level(self, tenant: str, identity: str, now: float) -> str:
        """For a line about a stream that was refused: INFO, or DEBUG when there were many."""
        return "INFO" if self.log_lines.take(tenant, identity, now) else "DEBUG"
