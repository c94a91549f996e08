"""Brings the backend to what the registry knows: publishes services, withdraws ended agents.

One linked task works while there is anything to do, a batch at a time; withdrawals go first. The
order of changes of one agent is kept by construction: what a connection wanted to publish is
dropped when it ends, so a withdrawal is never older than a publication that is still pending.

While the backend fails everything is kept and tried again; whoever waits has a deadline of its own,
or is answered after the first attempt where the backend `confirms_late`.
Only what the backend refuses by name is refused here. Bounds: publications by the registry's
table, withdrawals by `MAX_WITHDRAWALS`.

Source: protocol sheet ORP 3.2; 6.2 R15, R17, R18.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import islice

from actors.control.backend import (
    Backend,
    BackendError,
    Registration,
    Withdrawal,
)
from actors.control.limits import BATCH, MAX_WITHDRAWALS
from actors.control.messages import RegisterRefused
from actors.control.registry.agents import Agent, AgentTable, Service
from actors.control.store.requests import DeregisterAgents, RegisterServices
from actors.runtime import Actor, OwnedTask, Refusal, Reply

#: Seconds between two attempts while the backend fails; doubles from the first to the second.
PAUSE_SECONDS = 0.1
PAUSE_CAP_SECONDS = 2.0


class _Publication:
    """One service to publish, and who waits for it."""

    __slots__ = ("agent", "replies", "service")

    def __init__(self, agent: Agent, service: Service) -> None:
        self.agent = agent
        self.service = service
        self.replies: list[Reply[str]] = []

    def refuse(self, why: str) -> None:
        """Tell whoever waits."""
        for reply in self.replies:
            reply.send(Refusal(RegisterRefused(why)))
        self.replies.clear()


class Publisher:
    """Brings the backend to what the registry knows: publishes services, withdraws ended agents.

    Args:
        actor: the registry, owner of the task.
        backend: where to publish.
        relay_id: this relay.
        table: the registry's agents; a confirmed service is listed there.
        stamp: wall-clock milliseconds that never go back.
        listed: called after a service was listed.
    """

    def __init__(
        self,
        actor: Actor,
        backend: Backend,
        *,
        relay_id: str,
        table: AgentTable,
        stamp: Callable[[], int],
        listed: Callable[[Agent, Service], None],
    ) -> None:
        self._actor = actor
        self._backend = backend
        self._relay_id = relay_id
        self._table = table
        self._stamp = stamp
        self._listed = listed
        self._pending: dict[tuple[str, str], _Publication] = {}
        self._withdrawals: dict[str, Withdrawal] = {}
        self._task: OwnedTask | None = None
        self._stopping = asyncio.Event()
        self.failures = 0
        self.last_error = ""
        #: The last attempt failed.
        self._away = False
        #: Publications and withdrawals asked for, ever.
        self.changes = 0

    @property
    def pending(self) -> int:
        """Changes the backend has not confirmed, those on the way not counted."""
        return len(self._pending) + len(self._withdrawals)

    @property
    def quiet(self) -> bool:
        """Nothing is to be done, or on its way."""
        return not self.pending and (self._task is None or self._task.done)

    def publish(self, agent: Agent, service: Service, reply: Reply[str] | None) -> None:
        """Publish a service of the agent's current connection; `reply` hears of it."""
        self.changes += 1
        key = (agent.uri, service.name)
        publication = self._pending.get(key)
        if publication is None or publication.service is not service:
            if publication is not None:
                publication.refuse("stale_generation")
            publication = self._pending[key] = _Publication(agent, service)
        if reply is not None:
            publication.replies.append(reply)
        if self._away and self._backend.confirms_late:
            self._confirm(publication, self._stamp())
        self._work()

    def superseded(self, agent: Agent) -> None:
        """The agent connected again: what the older connection still waits for is refused."""
        self._drop(agent, "stale_generation")

    def ended(self, agent: Agent) -> None:
        """The agent's last connection ended: withdraw everything."""
        self._drop(agent, "not_connected")
        self._withdraw(agent)

    def renew(self, agent: Agent) -> None:
        """Bring the backend to exactly the agent's services of now."""
        self._withdraw(agent)
        for service in agent.services.values():
            self.publish(agent, service, None)

    def repeat(self, agent: Agent) -> None:
        """Publish what is published once more; others never see it gone."""
        for service in agent.services.values():
            if service.listed:
                self.publish(agent, service, None)

    async def flush(self, seconds: float) -> bool:
        """Finish what can be done without trying again, at most so long. True: all done."""
        self._stopping.set()
        task = self._task
        if task is not None and not task.done:
            await asyncio.wait({task.task}, timeout=seconds)
        return not self.pending

    def _drop(self, agent: Agent, why: str) -> None:
        for name in agent.services:
            publication = self._pending.get((agent.uri, name))
            if publication is not None and publication.agent is agent:
                del self._pending[agent.uri, name]
                publication.refuse(why)

    def _withdraw(self, agent: Agent) -> None:
        self.changes += 1
        if len(self._withdrawals) >= MAX_WITHDRAWALS:
            del self._withdrawals[next(iter(self._withdrawals))]
        self._withdrawals[agent.uri] = Withdrawal(agent.tenant, agent.uri, self._relay_id)
        self._work()

    def _work(self) -> None:
        if self._task is None or self._task.done:
            self._task = self._actor.spawn_task(self._run(), "publisher")

    async def _run(self) -> None:
        pause = PAUSE_SECONDS
        while self._pending or self._withdrawals:
            try:
                await self._withdraw_batch()
                await self._publish_batch()
                pause = PAUSE_SECONDS
                self._away = False
            except BackendError as exc:
                self.failures += 1
                self.last_error = str(exc)[:300]
                if not self._away:  # an outage is one line, not one for every attempt
                    self._actor.log.warning("services not published, trying again: {}", exc)
                self._away = True
                if self._backend.confirms_late:
                    for publication in list(self._pending.values()):
                        self._confirm(publication, self._stamp())
                if self._stopping.is_set():
                    return
                try:
                    async with asyncio.timeout(pause):
                        await self._stopping.wait()
                except TimeoutError:
                    pass
                pause = min(pause * 2, PAUSE_CAP_SECONDS)

    async def _withdraw_batch(self) -> None:
        batch = dict(islice(self._withdrawals.items(), BATCH))
        if not batch:
            return
        for uri in batch:
            del self._withdrawals[uri]
        try:
            await self._backend.ask(DeregisterAgents(tuple(batch.values())))
        except BackendError:
            self._withdrawals = batch | self._withdrawals
            raise

    async def _publish_batch(self) -> None:
        keys = list(islice(self._pending, BATCH))
        if not keys:
            return
        batch = [self._pending.pop(key) for key in keys]
        now_ms = self._stamp()
        registrations = [
            Registration(
                tenant=each.agent.tenant,
                name=each.service.name,
                agent_uri=each.agent.uri,
                relay_id=self._relay_id,
                local_address=each.service.local_address,
                updated_ms=now_ms,
            )
            for each in batch
        ]
        try:
            errors = await self._backend.ask(RegisterServices(registrations))
        except BackendError:
            for publication in batch:
                self._keep(publication)
            raise
        for publication, error in zip(batch, errors, strict=True):
            if error:
                self._actor.log.warning("service refused by the store: {}", error)
                self._table.remove_service(publication.agent, publication.service)
                publication.refuse("store")
            else:
                self._confirm(publication, now_ms)

    def _confirm(self, publication: _Publication, now_ms: int) -> None:
        agent, service = publication.agent, publication.service
        if self._table.get(agent.uri) is not agent:
            publication.refuse("stale_generation")
            return
        if agent.services.get(service.name) is service:
            self._table.list_service(agent, service, now_ms)
            self._listed(agent, service)
        for reply in publication.replies:
            reply.send(f"{agent.tenant}/{service.name}")
        publication.replies.clear()

    def _keep(self, publication: _Publication) -> None:
        """The backend failed: try again later, unless the connection is not current any more."""
        agent = publication.agent
        if self._table.get(agent.uri) is not agent:
            publication.refuse("stale_generation")
            return
        publication.replies = [reply for reply in publication.replies if reply.wanted]
        key = (agent.uri, publication.service.name)
        newer = self._pending.get(key)
        if newer is None:
            self._pending[key] = publication
        else:
            newer.replies.extend(publication.replies)
