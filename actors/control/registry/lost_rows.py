"""Finds and publishes again what the backend has lost of this relay's services.

A heartbeat's answer says how many services the backend has of this relay. When those are fewer
than are listed here (rows expired while this relay was stopped or its clock stepped, a restored
backup), the backend is asked for the names; services of which it has no row at all are published
again. A row that names another relay stays: the agent moved there, and its connection here just
has not ended yet.

Source: protocol sheet ORP 4.1, 4.3; 6.2 R17, R19.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice

from actors.control.backend import Backend, BackendError
from actors.control.limits import BATCH
from actors.control.registry.agents import Agent, AgentTable, Service
from actors.control.registry.publisher import Publisher
from actors.control.store.requests import FindProviders
from actors.runtime import Actor, OwnedTask


class LostRows:
    """Finds and publishes again what the backend has lost of this relay's services.

    Args:
        actor: the registry, owner of the task.
        backend: whom to ask.
        table: the registry's agents.
        publisher: who publishes again.
        wall_ms: wall-clock milliseconds.
    """

    def __init__(
        self,
        actor: Actor,
        backend: Backend,
        *,
        table: AgentTable,
        publisher: Publisher,
        wall_ms: Callable[[], int],
    ) -> None:
        self._actor = actor
        self._backend = backend
        self._table = table
        self._publisher = publisher
        self._wall_ms = wall_ms
        self._task: OwnedTask | None = None
        self._quiet_since = -1
        #: Services published again.
        self.repaired = 0

    def before(self) -> None:
        """A heartbeat is about to be sent: remember whether anything is on its way."""
        self._quiet_since = self._publisher.changes if self._publisher.quiet else -1

    def after(self, counted: int | None) -> None:
        """The heartbeat's answer; None: this backend does not count."""
        if counted is None or counted >= self._table.listed:
            return
        if self._quiet_since == self._publisher.changes and (self._task is None or self._task.done):
            self._task = self._actor.spawn_task(self._repair(), "lost services")

    async def _repair(self) -> None:
        ours: dict[tuple[str, str], list[tuple[Agent, Service]]] = {}
        for agent in self._table:
            for service in agent.services.values():
                if service.listed:
                    ours.setdefault((agent.tenant, service.name), []).append((agent, service))
        repaired, left = 0, iter(ours)
        while names := tuple(islice(left, BATCH)):
            try:
                found = await self._backend.ask(
                    FindProviders(names, self._backend.alive_since(self._wall_ms()))
                )
            except BackendError:
                return  # the next heartbeat finds it again
            for name, rows in zip(names, found, strict=True):
                stored = {row.agent_uri for row in rows}
                for agent, service in ours[name]:
                    if agent.uri not in stored and self._is_ours(agent, service):
                        self._publisher.publish(agent, service, None)
                        repaired += 1
        if repaired:
            self.repaired += repaired
            self._actor.log.warning("{} services were lost, published again", repaired)

    def _is_ours(self, agent: Agent, service: Service) -> bool:
        return self._table.get(agent.uri) is agent and agent.services.get(service.name) is service
