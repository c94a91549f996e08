"""ControllerServer: the embedded controller, served over gRPC to other relays.

Owns the listener and the watches. Everything it serves is in the store beside the other control
actors of this daemon; this actor holds only what watchers are told from: the rules as last loaded
and the endpoints of the relays. It learns of changes from the store after they are committed. It
listens only once it has both.

Its place below control comes after the store: when the store restarts, so does this actor, and its
watchers begin anew with a snapshot.

Source: protocol sheet ORP 4.1, 4.2; 6.2 R28, R29.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from actors.control.backend import Backend, BackendError, PolicyChanged, ProvidersChanged
from actors.control.store.fleet_requests import MAX_RELAYS, FindRelays, WatchProviders
from actors.control.store.requests import LoadRules, WatchPolicy
from actors.controller.audit_service import AuditService
from actors.controller.dispatch import Dispatcher
from actors.controller.grpc_server import GrpcServer, ServerTls
from actors.controller.limits import MAX_WATCHES, STOP_SECONDS, WATCH_QUEUE
from actors.controller.policy_service import PolicyService
from actors.controller.port import Port
from actors.controller.registry_service import RegistryService
from actors.controller.request_checks import exhausted
from actors.controller.state import Endpoints, ProviderChange, RuleChange, Rules
from actors.controller.watches import Watches
from actors.runtime import (
    Actor,
    ActorRef,
    ExitReason,
    MailboxSpec,
    OwnedTask,
    handles,
    naming,
)
from actors.transport.revocation import Revocations

#: Seconds until rules that could not be loaded are loaded again.
RETRY_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """How the controller is served.

    Attributes:
        tls: None for plaintext: every caller may do everything.
        operators: identities that have the role operator.
        watch_queue: changes waiting for one watcher.
        max_watches: of all connections.
        revocations: callers whose certificates were taken back.
    """

    tls: ServerTls | None = None
    operators: frozenset[str] = frozenset()
    watch_queue: int = WATCH_QUEUE
    max_watches: int = MAX_WATCHES
    revocations: Revocations = field(default_factory=Revocations)


class _LoadRules:
    """Load what could not be loaded."""

    __slots__ = ()


class ControllerServer(Actor):
    """The embedded controller, served over gRPC to other relays.

    Args:
        port: where to listen.
        settings: see there.
        store, audit: paths of the actors it serves.
        wall_clock: seconds since the epoch.
    """

    # A change it misses would never be told; the store ends an actor that cannot take one.
    mailbox = MailboxSpec(bound=16_384)

    def __init__(
        self,
        port: Port,
        settings: ServerSettings,
        *,
        store: str,
        audit: str,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._port = port
        self._settings = settings
        self._store_path = store
        self._audit_path = audit
        self._wall_clock = wall_clock
        self._rules = Rules()
        self._rule_watches: Watches[RuleChange] = Watches(settings.watch_queue)
        self._provider_watches: Watches[ProviderChange] = Watches(settings.watch_queue)
        self._endpoints: Endpoints | None = None
        self._loader: OwnedTask | None = None
        self._load_again = False
        self._server: GrpcServer | None = None
        self._listening = False

    async def init(self) -> None:
        """Watch the store: what happens from here on is not missed.

        Raises:
            StartRefused: the address cannot be used.
        """
        with naming("control.serve.listen"):
            await self._port.free()
            self._port.probe()
        self._store = Backend(self._at(self._store_path), relay_alive_seconds=0)
        self._audit = self._at(self._audit_path)
        self._store.tell(WatchProviders(self.ref))
        self._store.tell(WatchPolicy(self.ref))

    async def continue_(self) -> None:
        """Load, then listen.

        Raises:
            BackendError: the store does not answer.
            OSError: the address cannot be used, or a certificate file cannot be read.
        """
        self._endpoints = Endpoints(await self._store.ask(FindRelays()), MAX_RELAYS)
        self._rules.replace((await self._store.ask(LoadRules())).rules)
        settings = self._settings
        self._dispatcher = Dispatcher(
            failed=self.guard("rpc", _raise),
            tls=settings.tls is not None,
            operators=settings.operators,
            warn=lambda text: self.log.warning("{}", text),
            proved=self._proved,
            revocations=settings.revocations,
        )
        registry = RegistryService(
            self._store, self._provider_watches, admit=self._admit, wall_ms=self._wall_ms
        )
        policy = PolicyService(self._store, self._rules, self._rule_watches, admit=self._admit)
        audit = AuditService(self._store, self._audit, wall_ms=self._wall_ms)
        services = self._dispatcher.services(
            {**registry.unary, **policy.unary, **audit.unary},
            {**registry.streamed, **policy.streamed, **audit.streamed},
        )
        server = GrpcServer(
            self._port,
            services,
            settings.tls,
            guard=self.guard,
            log=lambda text: self.log.warning("{}", text),
        )
        self._server = self.own(server, "gRPC server")
        await self._server.start()
        self._listening = True
        how = "with TLS" if settings.tls is not None else "in plaintext"
        self.log.info("controller on {} {}", self._port, how)

    async def terminate(self, reason: ExitReason) -> None:
        """End the watches, and let calls under way finish."""
        self._end_watches("the controller is stopping")
        if self._server is not None and not reason.abnormal:
            await self._server.stop(STOP_SECONDS)

    def describe(self) -> dict[str, object]:
        """Where it listens, and counters of this incarnation."""
        served = self._server is not None
        return {
            "listen": str(self._port),
            "listening": self._listening,
            "tls": self._settings.tls is not None,
            "rules": len(self._rules),
            "rule_watches": len(self._rule_watches),
            "provider_watches": len(self._provider_watches),
            "watches_dropped": self._rule_watches.dropped + self._provider_watches.dropped,
            "served": dict(self._dispatcher.served) if served else {},
            "refused": dict(self._dispatcher.refused) if served else {},
            "refused_by_bound": dict(self._dispatcher.callers.refused) if served else {},
            "delayed": self._dispatcher.callers.delayed if served else 0,
            "malformed": self._dispatcher.malformed if served else 0,
            "connections": len(self._server.front) if self._server else 0,
            "strangers": dict(self._server.front.counters) if self._server else {},
        }

    # What the store tells.

    @handles(ProvidersChanged)
    def _providers_changed(self, message: ProvidersChanged) -> None:
        assert self._endpoints is not None
        self._provider_watches.publish(self._endpoints.changes(message))

    @handles(PolicyChanged, _LoadRules)
    def _policy_changed(self, message: PolicyChanged | _LoadRules) -> None:
        self._load_again = True
        if self._loader is None or self._loader.done:
            self._loader = self.spawn_task(self._load(), "rules")

    async def _load(self) -> None:
        while self._load_again:
            self._load_again = False
            try:
                source = await self._store.ask(LoadRules())
            except BackendError as error:
                self.log.warning("rules not loaded: {}", error)
                self.start_timer(RETRY_SECONDS, _LoadRules(), "load")
                return
            self._rule_watches.publish(self._rules.replace(source.rules))

    # Inside.

    def _at(self, path: str) -> ActorRef:
        ref = self.system.ref(path)
        if ref is None:
            raise LookupError(f"{self.path}: there is no {path}")
        return ref

    def _proved(self, peer: str) -> None:
        if self._server is not None:
            self._server.front.proved(peer)

    def _admit(self) -> None:
        watches: Iterable[Watches[RuleChange] | Watches[ProviderChange]]
        watches = (self._rule_watches, self._provider_watches)
        if sum(len(each) for each in watches) >= self._settings.max_watches:
            raise exhausted(f"{self._settings.max_watches} watches are open already")

    def _end_watches(self, why: str) -> None:
        self._rule_watches.end_all(why)
        self._provider_watches.end_all(why)

    def _wall_ms(self) -> int:
        return int(self._wall_clock() * 1000)


def _raise(error: Exception) -> None:
    raise error
