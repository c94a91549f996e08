"""RegistryActor: who is connected here, what they provide, and who provides it elsewhere.

State that lives here and nowhere else: the map from agent URI to its current connection, and the
claimed stream ids. Who holds the truth over a restart of this actor: the agent connections and
stream pairs themselves. They monitor this actor, and repeat to the next incarnation `AgentUp` (with
their generation), `RegisterService` and `ClaimStream`. For `grace` seconds after every start, a
Resolve or PeerOf that finds nothing waits for that instead of answering "not found"; and so does a
Resolve in the same time after the last provider's connection ended: most come back at once.
Providers at other relays are in the backend; so are this relay's own, for the others to see: what
earlier lives of this relay left there and nobody repeated is withdrawn after the grace.

A generation is a number no connection of this node had before. Only the current generation of a
URI counts: the end of an older connection takes nothing with it (R17).

Queued requests survive a restart (mailbox "keep"); those that were waiting for an answer fail
with `ActorDown` and are safe to repeat.

Source: protocol sheet ORP 3.1 to 3.3, 3.11, 4.1; 6.2 R15, R17 to R21; docs/chaos.md 15, 16.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from actors.control.backend import BackendError, BackendRestored, Connect, Relay
from actors.control.limits import (
    CARRY_SECONDS,
    GRACE_SECONDS,
    HEARTBEAT_SECONDS,
    MAX_AGENTS,
    MAX_CLAIMS,
    MAX_SERVICE_NAME,
    MAX_SERVICES_PER_AGENT,
    MAX_WAITING,
)
from actors.control.messages import (
    AgentUp,
    ClaimStream,
    Confirm,
    FindFleet,
    FleetRelay,
    PeerOf,
    RegisterRefused,
    RegisterService,
    Resolution,
    Resolve,
    Superseded,
    Unavailable,
)
from actors.control.registry.agents import Agent, AgentTable, Claim, ClaimTable, Service
from actors.control.registry.lost_rows import LostRows
from actors.control.registry.presence import Presence
from actors.control.registry.publisher import Publisher
from actors.control.registry.ranking import rank_providers
from actors.control.registry.remote_providers import RemoteProviders, Rows
from actors.control.store.fleet_requests import FindRelays, WatchLosses
from actors.runtime import (
    DEFERRED,
    Actor,
    ActorRef,
    Deferred,
    Down,
    ExitReason,
    MailboxSpec,
    Refusal,
    Reply,
    handles,
)

#: Seconds the last withdrawals get when the daemon stops.
FLUSH_SECONDS = 2.0


@dataclass(slots=True)
class _GraceOver:
    """The connected agents had their time to be heard of again."""


@dataclass(slots=True)
class _Missed:
    """Providers of these services had their time to come back."""

    names: list[tuple[str, str]]


@dataclass(slots=True)
class _DropCarried:
    """A reconnected agent had its time to publish its services again."""

    uri: str
    generation: int


class RegistryActor(Actor):
    """Who is connected here, what they provide, and who provides it elsewhere.

    Args:
        relay: this relay, as others see it.
        connect: makes the backend.
        grace, carry, heartbeat: seconds, see `limits`.
        wall_clock: seconds since the epoch.
    """

    # A burst of reconnecting agents must fit while the registry restarts.
    mailbox = MailboxSpec(bound=65_536)

    def __init__(
        self,
        relay: Relay,
        connect: Connect,
        *,
        grace: float = GRACE_SECONDS,
        carry: float = CARRY_SECONDS,
        heartbeat: float = HEARTBEAT_SECONDS,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._relay = relay
        self._connect = connect
        self._grace = grace
        self._carry = carry
        self._heartbeat = heartbeat
        self._wall_clock = wall_clock
        self._agents = AgentTable()
        self._claims = ClaimTable()
        #: Requests that found nothing yet, by what they wait for. Bound: MAX_WAITING.
        self._parked: dict[object, list[Callable[[], None]]] = {}
        self._waiting = 0
        self._in_grace = True
        #: Services whose provider's connection ended, until when a Resolve waits for another one.
        #: Bound: MAX_WAITING names, the oldest is forgotten.
        self._missed: dict[tuple[str, str], float] = {}
        self._superseded = 0

    def init(self) -> None:
        """Connect to the backend and begin the grace."""
        # What this incarnation publishes is always younger than what it finds.
        self._started_ms = self._last_ms = int(self._wall_clock() * 1000) + 1
        self._backend = self._connect(self)
        self._publisher = Publisher(
            self,
            self._backend,
            relay_id=self._relay.id,
            table=self._agents,
            stamp=self._stamp,
            listed=self._listed,
        )
        self._remote = RemoteProviders(
            self, self._backend, relay_id=self._relay.id, wall_ms=self._wall_ms
        )
        self._backend.tell(WatchLosses(self.ref))
        self.start_timer(self._grace, _GraceOver())
        self._lost_rows = LostRows(
            self,
            self._backend,
            table=self._agents,
            publisher=self._publisher,
            wall_ms=self._wall_ms,
        )
        self._presence = Presence(
            self,
            self._backend,
            self._relay,
            heartbeat=self._heartbeat,
            wall_ms=self._wall_ms,
            lost_rows=self._lost_rows,
        )

    async def terminate(self, reason: ExitReason) -> None:
        """Let the withdrawals of agents that just left reach the backend."""
        if not reason.abnormal:
            await self._publisher.flush(FLUSH_SECONDS)

    def describe(self) -> dict[str, object]:
        """Sizes and counters."""
        return {
            "relay": self._relay.id,
            "region": self._relay.region,
            "agents": len(self._agents),
            "service_names": self._agents.names,
            "claimed_streams": len(self._claims),
            "superseded": self._superseded,
            "in_grace": self._in_grace,
            "missed_services": len(self._missed),
            "waiting": self._waiting,
            "unpublished": self._publisher.pending,
            "published_again": self._lost_rows.repaired,
            "remote_names": self._remote.cached,
            "backend_failures": (
                self._publisher.failures + self._remote.failures + self._presence.failures
            ),
            "last_error": self._publisher.last_error,
        }

    # Agents.

    @handles(AgentUp)
    def _agent_up(self, message: AgentUp) -> int | Refusal:
        current = self._agents.get(message.uri)
        generation = message.generation
        if current is not None:
            if current.generation == generation or (
                not generation and current.is_connection(message.connection)
            ):
                return current.generation
            if 0 < generation < current.generation:
                message.connection.try_tell(Superseded(current.generation))
                return Refusal(RegisterRefused("stale_generation"))
        if current is None and len(self._agents) >= MAX_AGENTS:
            return Refusal(RegisterRefused("limit"))
        if not generation:
            generation = self.system.next_incarnation()
        token = self.monitor(message.connection)
        agent = Agent(
            message.uri,
            message.tenant,
            message.connection,
            generation,
            token,
            message.connection.incarnation,
        )
        older = self._agents.put(agent)
        if older is not None:
            self._supersede(older, agent)
        self._unpark(("agent", message.uri))
        return generation

    def _supersede(self, older: Agent, agent: Agent) -> None:
        self.demonitor(older.token)
        self._publisher.superseded(older)
        self._superseded += 1
        if older.connection != agent.connection:
            older.connection.try_tell(Superseded(agent.generation))
        if agent.services:
            carried = _DropCarried(agent.uri, agent.generation)
            self.start_timer(self._carry, carried, ("carried", agent.uri))

    @handles(_DropCarried)
    def _drop_carried(self, message: _DropCarried) -> None:
        agent = self._agents.get(message.uri)
        if agent is None or agent.generation != message.generation:
            return
        if self._agents.drop_carried(agent):
            self._publisher.renew(agent)

    @handles(Down)
    def _ended(self, down: Down) -> None:
        if self._claims.ended(down.token) is not None:
            return
        agent = self._agents.ended(down.token)
        if agent is not None:
            self.cancel_timer(("carried", agent.uri))
            self._publisher.ended(agent)
            self._miss([(agent.tenant, each.name) for each in agent.services.values()])

    def _miss(self, names: list[tuple[str, str]]) -> None:
        until = self.now() + self._grace
        for name in names:
            self._missed.pop(name, None)
            self._missed[name] = until
        while len(self._missed) > MAX_WAITING:
            del self._missed[next(iter(self._missed))]
        if names:
            self.start_timer(self._grace, _Missed(names))

    @handles(_Missed)
    def _missed_over(self, message: _Missed) -> None:
        for name in message.names:
            if self._missed.get(name, 0.0) <= self.now():
                self._missed.pop(name, None)
                self._unpark(("service", *name))

    # Services.

    @handles(RegisterService)
    def _register(self, message: RegisterService) -> Refusal | Deferred:
        # Never parked: whoever sent it to an earlier incarnation may not repeat its AgentUp before
        # it has this answer. "not_connected" asks it to.
        self._publish(message, self.defer())
        return DEFERRED

    def _publish(self, message: RegisterService, reply: Reply[str]) -> None:
        agent = self._agents.get(message.uri)
        why = ""
        if agent is None:
            why = "not_connected"
        elif agent.generation != message.generation:
            why = "stale_generation"
        elif agent.tenant != message.tenant:
            why = "denied"
        elif not 0 < len(message.name) <= MAX_SERVICE_NAME or not message.name.isprintable():
            why = "bad_name"
        elif message.name not in agent.services and (len(agent.services) >= MAX_SERVICES_PER_AGENT):
            why = "limit"
        if agent is None or why:
            reply.send(Refusal(RegisterRefused(why)))
            return
        service = agent.services.get(message.name)
        if service is None:
            service = Service(message.name, message.local_address)
            agent.services[message.name] = service
        elif service.is_as(message.local_address):
            reply.send(f"{agent.tenant}/{service.name}")
            return
        elif message.local_address:
            service.local_address = message.local_address
        self._publisher.publish(agent, service, reply)

    @handles(Confirm)
    def _confirm(self, message: Confirm) -> bool:
        agent = self._agents.get(message.uri)
        return (
            agent is not None
            and agent.generation == message.generation
            and agent.confirmed() >= message.services
        )

    @handles(BackendRestored)
    def _restored(self, message: BackendRestored) -> None:
        """It may have forgotten, or expired, what was published: say it all again."""
        self._presence.announce()
        for agent in self._agents:
            self._publisher.repeat(agent)

    def _listed(self, agent: Agent, service: Service) -> None:
        self._unpark(("service", agent.tenant, service.name))

    @handles(Resolve)
    def _resolve(self, message: Resolve) -> Resolution | Refusal | Deferred:
        name = (message.tenant, message.service)
        fresh = self._remote.fresh(name)
        resolution = self._resolution(message, self._remote.known(name))
        if self._agents.providers(*name):
            # Whoever is connected here can be reached without the store: do not wait for it.
            if not fresh:
                self._remote.look_up(name)
            return resolution
        if fresh and resolution.providers:
            return resolution
        if self._waiting >= MAX_WAITING:
            return Refusal(Unavailable("too many resolves are waiting"))
        self._waiting += 1
        self._remote.look_up(name, partial(self._looked_up, message, self.defer()))
        return DEFERRED

    def _looked_up(
        self,
        message: Resolve,
        reply: Reply[Resolution],
        rows: Rows,
        error: BackendError | None,
    ) -> None:
        self._waiting -= 1
        resolution = self._resolution(message, rows)
        if resolution.providers:
            reply.send(resolution)
        elif reply.wanted and self._may_come(message):
            key = ("service", message.tenant, message.service)
            self._park(key, partial(self._grace_ended, message, reply))
        elif error is not None:
            reply.send(Refusal(Unavailable(str(error))))
        else:
            reply.send(resolution)

    def _may_come(self, message: Resolve) -> bool:
        missed = self._missed.get((message.tenant, message.service), 0.0)
        return self._in_grace or missed > self.now()

    def _grace_ended(self, message: Resolve, reply: Reply[Resolution]) -> None:
        """A parked resolve: its service was listed, or the grace is over."""
        name = (message.tenant, message.service)
        resolution = self._resolution(message, self._remote.known(name))
        if resolution.providers:
            reply.send(resolution)
        else:
            self._waiting += 1
            self._remote.look_up(name, partial(self._looked_up, message, reply))

    def _resolution(self, message: Resolve, rows: Rows) -> Resolution:
        connected = self._agents.providers(message.tenant, message.service)
        return rank_providers(message, self._relay, connected, rows)

    @handles(FindFleet)
    def _find_fleet(self, _: FindFleet) -> Deferred:
        self.spawn_task(self._list_relays(self.defer()), "fleet")
        return DEFERRED

    async def _list_relays(self, reply: Reply[tuple[FleetRelay, ...]]) -> None:
        try:
            rows = await self._backend.ask(FindRelays())
        except BackendError as error:
            reply.send(Refusal(Unavailable(str(error))))
        else:
            reply.send(tuple(FleetRelay(row.id, row.region, row.endpoint) for row in rows))

    # Streams.

    @handles(ClaimStream)
    def _claim(self, message: ClaimStream) -> bool:
        if message.stream_id == 0:
            return True
        older = self._claims.get(message.stream_id)
        if older is not None:
            if older.held_by(message.pair) and older.consumer == message.consumer:
                if older.provider == message.provider:
                    return True
            elif not older.stale:
                return False
            self.demonitor(older.token)
        elif len(self._claims) >= MAX_CLAIMS:
            return False
        claim = Claim(
            message.consumer,
            message.provider,
            message.pair,
            message.pair.incarnation,
            self.monitor(message.pair),
        )
        self._claims.put(message.stream_id, claim)
        self._unpark(("stream", message.stream_id))
        return True

    @handles(PeerOf)
    def _peer_of(self, message: PeerOf) -> ActorRef | Refusal | Deferred | None:
        found, missing = self._find_peer(message)
        if found is not None or missing is None or not self._in_grace:
            return found
        if self._waiting >= MAX_WAITING:
            return Refusal(Unavailable("too many requests are waiting"))
        reply = self.defer()
        self._park(missing, lambda: reply.send(self._find_peer(message)[0]))
        return DEFERRED

    def _find_peer(self, message: PeerOf) -> tuple[ActorRef | None, object]:
        """The peer's connection, and else what to wait for (None: nothing can help)."""
        claim = self._claims.get(message.stream_id)
        if claim is None:
            return None, ("stream", message.stream_id)
        if message.uri == claim.consumer:
            other = claim.provider
        elif message.uri == claim.provider:
            other = claim.consumer
        else:
            return None, None
        agent = self._agents.get(other)
        return (agent.connection, None) if agent is not None else (None, ("agent", other))

    # Waiting during the grace.

    def _park(self, key: object, again: Callable[[], None]) -> None:
        self._waiting += 1
        self._parked.setdefault(key, []).append(again)

    def _unpark(self, key: object) -> None:
        for again in self._parked.pop(key, ()):
            self._waiting -= 1
            again()

    @handles(_GraceOver)
    def _grace_over(self, message: _GraceOver) -> None:
        self._in_grace = False
        for key in list(self._parked):
            self._unpark(key)
        self._presence.withdraw_stale(self._started_ms)

    # Clocks.

    def _wall_ms(self) -> int:
        return int(self._wall_clock() * 1000)

    def _stamp(self) -> int:
        """Wall-clock milliseconds that never go back while this actor lives."""
        self._last_ms = max(self._last_ms, self._wall_ms())
        return self._last_ms
