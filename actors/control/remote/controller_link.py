"""ControllerLink: the backend's actor when the controller is another process.

Owns the gRPC channel, and what the controller's watches told: the rules (`RuleMirror`) and the
providers (`ProviderCache`). It answers the requests of `store/requests.py` like a store. While the
controller is away it says so at once (`BackendUnavailable`), except for what it knows: rules stay
in force, services resolved or heard of before are served from the cache, for as long as it lasts.

A linked task keeps each watch running, with growing, jittered pauses. When the watch of the
registry begins again after an outage, the registry is told (`BackendRestored`) and publishes its
services again: the controller may have expired or lost them. A connection on which
`MISSED_DEADLINES` calls in a row got no answer is dropped and dialled again.

A controller of this project takes audit records in batches and knows how to withdraw what an
earlier life of this relay left; one without these methods gets single records, concurrently.

Source: protocol sheet ORP 4.1, 4.4; 6.2 R15, R19 to R22, R29, R30.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, TypeVar

from google.protobuf.message import Message

from actors.control.backend import (
    BackendError,
    BackendRestored,
    BackendUnavailable,
    FileRules,
    PolicyChanged,
    PolicySource,
    RulesAwaited,
)
from actors.control.controller_identity import ClientTls
from actors.control.limits import (
    MAX_KNOWN_SERVICES,
    MAX_LINK_REQUESTS,
    MAX_RULES,
    MAX_WATCHERS,
    MISSED_DEADLINES,
    RULE_ECHO_SECONDS,
    WATCH_PAUSE_CAP_SECONDS,
    WATCH_PAUSE_SECONDS,
    WATCH_SECONDS,
)
from actors.control.policy.rule_mirror import RuleMirror, TooManyRules
from actors.control.registry.provider_cache import Name, ProviderCache, Rows
from actors.control.remote import calls as calls
from actors.control.remote.channel import (
    ControllerChannel,
    ControllerRefused,
    DeadlineMissed,
    WatchDropped,
)
from actors.control.remote.codec import WATCHING, record_of, rule_of, tenant_of
from actors.control.store.fleet_requests import FindRelays, WatchLosses
from actors.control.store.requests import (
    AppendAudit,
    DeleteRule,
    DeregisterAgents,
    DeregisterStale,
    FindAudit,
    FindProviders,
    InsertRule,
    KeepFileRules,
    LoadRules,
    RegisterServices,
    StoreRequest,
    UpsertRelay,
    WatchPolicy,
)
from actors.runtime import (
    DEFERRED,
    Actor,
    ActorRef,
    Deferred,
    Down,
    MailboxSpec,
    Refusal,
    Reply,
    handles,
)
from wire.orp import control_pb2

M = TypeVar("M", bound=Message)
#: What a controller says to a name that no service can have.
_NO_SUCH_NAME: Final = frozenset({"INVALID_ARGUMENT", "NOT_FOUND", "OUT_OF_RANGE"})


@dataclass(frozen=True, slots=True)
class LinkSettings:
    """How to reach a controller.

    Attributes:
        address: `host:port`.
        region: of this relay; the controller prefers providers in it.
        tenants: whose rules are watched; empty: all, which a reference controller cannot tell.
        tls: None for plaintext.
        known_services: names remembered for when the controller is away.
        watch_pause, watch_pause_cap: seconds before a watch begins again.
    """

    address: str
    region: str = ""
    tenants: tuple[str, ...] = ()
    tls: ClientTls | None = None
    known_services: int = MAX_KNOWN_SERVICES
    watch_pause: float = WATCH_PAUSE_SECONDS
    watch_pause_cap: float = WATCH_PAUSE_CAP_SECONDS


class ControllerLink(Actor):
    mailbox = MailboxSpec(bound=MAX_LINK_REQUESTS)

    def __init__(self, settings: LinkSettings) -> None:
        self._settings = settings
        self._cache = ProviderCache(settings.known_services)
        self._rules = RuleMirror(settings.tenants or ("",), MAX_RULES)
        self._rules_told = asyncio.Event()
        self._kept: FileRules | None = None
        #: Bound: MAX_WATCHERS; one more is told nothing.
        self._policy_watchers: dict[int, ActorRef] = {}
        self._loss_watchers: dict[int, ActorRef] = {}
        #: Requests on their way. Bound: MAX_LINK_REQUESTS; one more is refused.
        self._in_flight = 0
        self._reachable = True
        self._lost = False
        self._missed = 0
        self._failures = 0
        self._outages = 0
        self._last_error = ""
        self._served_stale = 0

    def init(self) -> None:
        """Open the channel and begin the watches.

        Raises:
            OSError: a certificate file cannot be read.
        """
        settings = self._settings
        channel = ControllerChannel(settings.address, settings.tls)
        self._channel = self.own(channel, "controller channel")
        self._calls = calls.ControllerCalls(self._call, self._channel.watch)
        self.spawn_task(self._keep("registry", self._watch_registry), "registry watch")
        for tenant in settings.tenants or ("",):
            self.spawn_task(self._keep("rules", self._watch_rules, tenant), "rules watch")

    def describe(self) -> dict[str, object]:
        """How the controller is reached, and what is known of it."""
        return {
            "controller": self._settings.address,
            "tls": self._settings.tls is not None,
            "reachable": self._reachable,
            "watching": self._cache.watching,
            "rules": self._rules.size,
            "rule_snapshots": self._rules.snapshots,
            "rule_changes": self._rules.changes,
            "tenants_without_rules": list(self._rules.missing),
            "known_services": len(self._cache),
            "confirmed_services": self._cache.confirmed,
            "evicted_services": self._cache.evicted,
            "served_stale": self._served_stale,
            "in_flight": self._in_flight,
            "channels": self._channel.opened,
            "outages": self._outages,
            "failures": self._failures,
            "last_error": self._last_error,
        }

    # What the control actors ask.

    @handles(
        UpsertRelay,
        RegisterServices,
        DeregisterAgents,
        DeregisterStale,
        InsertRule,
        DeleteRule,
        AppendAudit,
        FindAudit,
        FindRelays,
    )
    def _request(self, request: StoreRequest[object]) -> Deferred | Refusal:
        return self._begin(type(request).__name__, partial(self._answer, request))

    @handles(FindProviders)
    def _find(self, request: FindProviders) -> Deferred | Refusal | tuple[Rows, ...]:
        found = [self._known(name) for name in request.names]
        if all(rows is not None for rows in found):
            return tuple(rows or () for rows in found)
        return self._begin("FindProviders", partial(self._resolve, request))

    @handles(LoadRules)
    def _load(self, request: LoadRules) -> PolicySource | Refusal:
        missing = self._rules.missing
        if missing:
            of = ", ".join(name or "any tenant" for name in missing)
            return Refusal(RulesAwaited(f"the controller has not told the rules of {of}"))
        return PolicySource(self._rules.rules(), self._kept)

    @handles(KeepFileRules)
    def _keep_file_rules(self, message: KeepFileRules) -> None:
        self._kept = message.kept

    @handles(WatchPolicy)
    def _watch_policy(self, message: WatchPolicy) -> None:
        self._watcher(self._policy_watchers, message.watcher)

    @handles(WatchLosses)
    def _watch_losses(self, message: WatchLosses) -> None:
        self._watcher(self._loss_watchers, message.watcher)

    def _watcher(self, watchers: dict[int, ActorRef], watcher: ActorRef) -> None:
        if len(watchers) >= MAX_WATCHERS:
            self.log.error("more than {} actors watch the controller", MAX_WATCHERS)
            return
        watchers[self.monitor(watcher)] = watcher

    @handles(Down)
    def _watcher_ended(self, down: Down) -> None:
        self._policy_watchers.pop(down.token, None)
        self._loss_watchers.pop(down.token, None)

    def _begin(self, name: str, work: Callable[[], Awaitable[object]]) -> Deferred | Refusal:
        if self._in_flight >= MAX_LINK_REQUESTS:
            return Refusal(BackendUnavailable(f"{MAX_LINK_REQUESTS} requests are waiting"))
        self._in_flight += 1
        self.spawn_task(self._serve(work, self.defer()), name)
        return DEFERRED

    async def _serve(self, work: Callable[[], Awaitable[object]], reply: Reply[Any]) -> None:
        try:
            reply.send(await work())
        except BackendError as error:
            reply.send(Refusal(error))
        finally:
            self._in_flight -= 1

    async def _answer(self, request: StoreRequest[object]) -> object:
        told = self._calls
        match request:
            case UpsertRelay():
                return await told.upsert_relay(request.relay)
            case RegisterServices():
                return await told.register_services(request.registrations)
            case DeregisterAgents():
                return await told.deregister_agents(request.agents)
            case DeregisterStale():
                return await told.deregister_stale(request.relay_id, request.before_ms)
            case InsertRule():
                rule_id = await told.add_rule(request.rule)
                await self._echo(lambda: self._rules.has(rule_id))
                return rule_id
            case DeleteRule():
                removed = await told.remove_rule(request.tenant, request.rule_id)
                if removed:
                    await self._echo(lambda: not self._rules.has(request.rule_id))
                return removed
            case AppendAudit():
                await told.record_audit(request.records)
                return None
            case FindRelays():
                return await told.relays()
            case FindAudit():
                return await told.query_audit(request.wanted)
        raise TypeError(f"{type(request).__name__} is not a request to a controller")

    async def _echo(self, condition: Callable[[], bool]) -> None:
        """Wait until the watch told the change back, so that it is in force when answered."""
        try:
            async with asyncio.timeout(RULE_ECHO_SECONDS):
                while not condition():
                    self._rules_told.clear()
                    await self._rules_told.wait()
        except TimeoutError:
            pass  # another tenant's rule, or the watch is down: in force as soon as it is told

    # Providers.

    def _known(self, name: Name) -> Rows | None:
        """What can be answered without asking the controller."""
        rows = self._cache.confirmed_rows(name)
        if rows is None and not self._reachable:
            rows = self._cache.known_rows(name) or None
            self._served_stale += rows is not None
        return rows

    async def _resolve(self, request: FindProviders) -> tuple[Rows, ...]:
        found: dict[Name, Rows] = {}

        async def one(name: Name) -> None:
            rows = self._known(name)
            found[name] = await self._look_up(name) if rows is None else rows

        await calls.each(request.names, one)
        return tuple(found[name] for name in request.names)

    async def _look_up(self, name: Name) -> Rows:
        ticket = self._cache.asking(name)
        try:
            rows = await self._calls.resolve(name, self._settings.region)
        except BackendUnavailable:
            known = self._cache.known_rows(name)
            if known:
                self._served_stale += 1
                return known
            raise
        except ControllerRefused as refused:
            if refused.code in _NO_SUCH_NAME:
                return ()  # what one consumer asks for must not fail what others ask for
            raise
        self._cache.answered(name, ticket, rows)
        return rows

    # Calls and their outcome.

    async def _call(self, name: str, request: Message, response: type[M], **options: Any) -> Any:
        try:
            answer = await self._channel.call(name, request, response, **options)
        except BackendUnavailable as error:
            self._failed(error)
            raise
        except BackendError:
            self._answered()
            raise
        self._answered()
        return answer

    def _answered(self) -> None:
        self._missed = 0
        self._reachable = True

    def _failed(self, error: BackendUnavailable) -> None:
        self._failures += 1
        self._last_error = str(error)[:300]
        if self._reachable:
            self.log.warning("the controller does not answer: {}", error)
            self._outages += 1
        self._reachable = False
        self._missed += isinstance(error, DeadlineMissed)
        if self._missed >= MISSED_DEADLINES or self._channel.renewed():
            self._missed = 0
            self._lost = True
            self._reopen()

    def _reopen(self) -> None:
        try:
            self._channel.reopen()
        except OSError as error:  # it is closed now: the next failure tries again
            self._last_error = str(error)[:300]
            self.log.error("the certificate for the controller cannot be read: {}", error)

    # Watches.

    async def _keep(self, kind: str, watch: Callable[..., Awaitable[None]], *args: str) -> None:
        """Run a watch for ever."""
        settings = self._settings
        pause = settings.watch_pause
        while True:
            began = self.now()
            try:
                await watch(*args)
            except DeadlineMissed:
                if self.now() - began >= WATCH_SECONDS * 0.9:
                    continue  # its time was over: begin anew at once
            except WatchDropped as error:
                self.log.warning("{}: begun anew: {}", kind, error)
            except BackendUnavailable as error:
                self._failed(error)
            except (BackendError, TooManyRules) as error:
                self._failures += 1
                self._last_error = str(error)[:300]
                self.log.error("{} of the controller are not watched: {}", kind, error)
            if self.now() - began > settings.watch_pause_cap:
                pause = settings.watch_pause
            # Jitter: relays that lost the same controller do not come back at the same moment.
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(pause * 2, settings.watch_pause_cap)

    async def _watch_registry(self) -> None:
        stream = self._channel.watch(
            "Registry/Watch",
            control_pb2.WatchRequest(),
            control_pb2.WatchEvent,
            timeout=WATCH_SECONDS,
            begun=self._begun,
        )
        try:
            async with aclosing(stream) as events:
                async for event in events:
                    self._note(event)
            self._lost = True  # it ended the watch by itself: it is stopping
        except (DeadlineMissed, WatchDropped):
            raise
        except BackendUnavailable:
            self._lost = True
            raise
        finally:
            if self._cache.watching:
                self._cache.watch(False)

    def _begun(self, _metadata: Mapping[str, str]) -> None:
        """The watch runs: from here on nothing is missed."""
        self._cache.watch(True)
        self._answered()
        if self._lost:
            self._lost = False
            self.log.info("the controller is back")
            for watcher in self._loss_watchers.values():
                watcher.try_tell(BackendRestored())

    def _note(self, event: control_pb2.WatchEvent) -> None:
        name = (tenant_of(event), event.service_name)
        provider = event.provider
        if not name[0] or not provider.agent_uri:
            self._cache.doubt(name)
        elif event.kind == control_pb2.EVENT_KIND_REGISTER:
            self._cache.registered(record_of(provider, *name, ""))
        elif event.kind == control_pb2.EVENT_KIND_DEREGISTER:
            self._cache.deregistered(name, provider.agent_uri, provider.relay_id)

    async def _watch_rules(self, tenant: str) -> None:
        stream = self._channel.watch(
            "Policy/Watch",
            control_pb2.WatchPoliciesRequest(tenant=tenant),
            control_pb2.PolicyEvent,
            timeout=WATCH_SECONDS,
            begun=partial(self._rules_begun, tenant),
        )
        self._rules.begin(tenant)
        try:
            async with aclosing(stream) as events:
                async for event in events:
                    if self._note_rule(tenant, event):
                        self._rules_told.set()
                        for watcher in self._policy_watchers.values():
                            watcher.try_tell(PolicyChanged())
        finally:
            self._rules.end(tenant)

    def _rules_begun(self, tenant: str, metadata: Mapping[str, str]) -> None:
        if not tenant and WATCHING not in metadata:
            # The sheet's controller tells no snapshot then: only what changes from now on.
            self.log.warning(
                "this controller does not tell the rules of all tenants; name those of this relay"
            )

    def _note_rule(self, tenant: str, event: control_pb2.PolicyEvent) -> bool:
        match event.kind:
            case control_pb2.PolicyEvent.POLICY_KIND_ADDED:
                return self._rules.added(tenant, rule_of(event.rule))
            case control_pb2.PolicyEvent.POLICY_KIND_REMOVED:
                return self._rules.removed(tenant, event.removed_id)
            case control_pb2.PolicyEvent.POLICY_KIND_SNAPSHOT_END:
                return self._rules.complete(tenant)
        return False  # a kind of a later controller
