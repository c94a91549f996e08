"""The tables of the registry: connected agents, their services, claimed stream ids. Pure.

Knows no actors beyond passing references on, no store and no clock.

A service is listed from the moment the backend confirmed it. When an agent connects again before
its older connection ended, the new connection inherits the listed services (`carried`) until it
publishes them itself or `drop_carried` is called; so a fast reconnect is never a moment of
"not found".

Source: protocol sheet ORP 3.1, 3.2, 3.3 step 6; 6.2 R17, R20.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from actors.runtime import ActorRef


@dataclass(slots=True)
class Service:
    """A service of a connected agent.

    Attributes:
        updated_ms: when it was last confirmed, wall clock.
        listed: confirmed by the backend, so resolvable.
        carried: inherited from the older connection, not yet published by this one.
    """

    name: str
    local_address: str
    updated_ms: int = 0
    listed: bool = False
    carried: bool = False

    def is_as(self, local_address: str) -> bool:
        """True when publishing it with this address (empty: the known one) changes nothing."""
        return self.listed and not self.carried and local_address in ("", self.local_address)


@dataclass(slots=True)
class Agent:
    """The current connection of an agent. A higher generation is a newer connection.

    `token` is the registry's monitor of the connection, `incarnation` that of its actor.
    """

    uri: str
    tenant: str
    connection: ActorRef
    generation: int
    token: int
    incarnation: int
    services: dict[str, Service] = field(default_factory=dict)

    def confirmed(self) -> int:
        """How many services this connection published itself, and are listed."""
        return sum(each.listed and not each.carried for each in self.services.values())

    def is_connection(self, connection: ActorRef) -> bool:
        """True when `connection` is this very one, not another one at the same place."""
        return self.connection == connection and self.incarnation == connection.incarnation


class AgentTable:
    """Connected agents by URI, and the providers of each (tenant, name).

    Bounds: whoever adds checks `len()` and `len(agent.services)`.
    """

    def __init__(self) -> None:
        self._agents: dict[str, Agent] = {}
        self._tokens: dict[int, str] = {}
        self._providers: dict[tuple[str, str], dict[str, Agent]] = {}
        #: Services of all agents that are listed.
        self.listed = 0

    def __len__(self) -> int:
        return len(self._agents)

    def __iter__(self) -> Iterator[Agent]:
        return iter(self._agents.values())

    def get(self, uri: str) -> Agent | None:
        """The agent with this URI, if connected."""
        return self._agents.get(uri)

    @property
    def names(self) -> int:
        """How many (tenant, name) have a listed provider."""
        return len(self._providers)

    def put(self, agent: Agent) -> Agent | None:
        """Make this the current connection of its agent. Returns the one it supersedes."""
        older = self._agents.get(agent.uri)
        if older is not None:
            self._tokens.pop(older.token, None)
            if older.tenant == agent.tenant:
                for service in older.services.values():
                    if service.listed:
                        service.carried = True
                        agent.services[service.name] = service
                        self._providers[agent.tenant, service.name][agent.uri] = agent
            else:
                self._unlist_all(older)
        self._agents[agent.uri] = agent
        self._tokens[agent.token] = agent.uri
        return older

    def ended(self, token: int) -> Agent | None:
        """The connection monitored with `token` ended.

        Returns the agent when that was its current connection, else None: a superseded
        connection takes nothing with it.
        """
        uri = self._tokens.pop(token, None)
        if uri is None:
            return None
        agent = self._agents.pop(uri)
        self._unlist_all(agent)
        return agent

    def list_service(self, agent: Agent, service: Service, updated_ms: int) -> None:
        """The backend confirmed it."""
        service.listed = True
        service.carried = False
        service.updated_ms = updated_ms
        agents = self._providers.setdefault((agent.tenant, service.name), {})
        self.listed += agent.uri not in agents
        agents[agent.uri] = agent

    def remove_service(self, agent: Agent, service: Service) -> None:
        """It is not provided by this agent any more, or the backend did not take it."""
        if agent.services.get(service.name) is service:
            del agent.services[service.name]
            self._unlist(agent, service)

    def drop_carried(self, agent: Agent) -> list[Service]:
        """Remove what this connection inherited and never published. Returns it."""
        carried = [service for service in agent.services.values() if service.carried]
        for service in carried:
            self.remove_service(agent, service)
        return carried

    def providers(self, tenant: str, name: str) -> list[tuple[Agent, Service]]:
        """Connected agents of whom this service is listed."""
        agents = self._providers.get((tenant, name))
        if agents is None:
            return []
        return [(agent, agent.services[name]) for agent in agents.values()]

    def _unlist_all(self, agent: Agent) -> None:
        for service in agent.services.values():
            self._unlist(agent, service)

    def _unlist(self, agent: Agent, service: Service) -> None:
        key = (agent.tenant, service.name)
        agents = self._providers.get(key)
        if service.listed and agents is not None and agents.get(agent.uri) is agent:
            del agents[agent.uri]
            self.listed -= 1
            if not agents:
                del self._providers[key]


@dataclass(slots=True)
class Claim:
    """A stream id in use by a pair of agents, for the life of the pair's actor."""

    consumer: str
    provider: str
    pair: ActorRef
    incarnation: int
    token: int

    def held_by(self, pair: ActorRef) -> bool:
        """True when it is `pair` that made the claim."""
        return self.pair == pair and self.incarnation == pair.incarnation

    @property
    def stale(self) -> bool:
        """True when its pair ended and its `Down` is still on the way."""
        return not self.pair.alive or self.pair.incarnation != self.incarnation


class ClaimTable:
    """Claimed stream ids. Bound: whoever adds checks `len()`."""

    def __init__(self) -> None:
        self._claims: dict[int, Claim] = {}
        self._tokens: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._claims)

    def get(self, stream_id: int) -> Claim | None:
        """The claim of this id."""
        return self._claims.get(stream_id)

    def put(self, stream_id: int, claim: Claim) -> None:
        """Record a claim; an older one of the same id is forgotten."""
        older = self._claims.get(stream_id)
        if older is not None:
            self._tokens.pop(older.token, None)
        self._claims[stream_id] = claim
        self._tokens[claim.token] = stream_id

    def ended(self, token: int) -> int | None:
        """The pair monitored with `token` ended. Returns the freed id, if it held one."""
        stream_id = self._tokens.pop(token, None)
        if stream_id is not None:
            del self._claims[stream_id]
        return stream_id
