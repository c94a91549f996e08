"""What the control actors need from whoever keeps the state: an interface and its records.

The embedded backend (`embedded.py`) keeps it in SQLite inside this daemon; a gRPC backend asks an
OutRelay controller. The registry, policy and audit actors know only this module. A backend has an
actor of its own (the first child of control) that owns its resources; a `ControlBackend` object is
only the typed way to it, made anew by every incarnation that uses it.

All methods wait a bounded time and raise nothing but a `BackendError`. Times are wall-clock
milliseconds. Every method may be called again after a failure; changes are idempotent.

Source: protocol sheet ORP 4.1, 4.2; 6.2 R19 to R21.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from actors.control.limits import AUDIT_ATTEMPTS
from actors.control.messages import AuditRecord
from actors.control.policy.rule import Rule
from actors.runtime import Actor, ActorRef, ChildSpec


class BackendError(Exception):
    """Root of what a backend raises."""


class BackendUnavailable(BackendError):
    """It could not be asked, or did not answer in time; trying again later may help."""


class RulesAwaited(BackendUnavailable):
    """The rules were asked for and have not come yet: how every start with a controller begins."""


class DuplicateRule(BackendError):
    """A rule with this id exists."""

    def __init__(self, rule_id: str) -> None:
        super().__init__(f"a rule with id {rule_id!r} exists")
        self.rule_id = rule_id


# Registry.


@dataclass(frozen=True, slots=True)
class Relay:
    """A relay as other relays see it: how to dial it, and where it stands."""

    id: str
    region: str
    endpoint: str


@dataclass(frozen=True, slots=True)
class Registration:
    """`agent_uri`, connected to `relay_id`, provides `<tenant>/<name>`."""

    tenant: str
    name: str
    agent_uri: str
    relay_id: str
    local_address: str
    updated_ms: int


@dataclass(frozen=True, slots=True)
class Withdrawal:
    """Every service of the agent at this relay is gone. The agent stays known."""

    tenant: str
    agent_uri: str
    relay_id: str


@dataclass(frozen=True, slots=True)
class ServiceRecord:
    """One provider as stored, with the relay it is connected to."""

    tenant: str
    name: str
    agent_uri: str
    relay_id: str
    relay_region: str
    relay_endpoint: str
    local_address: str
    updated_ms: int


@dataclass(frozen=True, slots=True)
class Withdrawn:
    """One service of one agent at one relay that is not published any more."""

    tenant: str
    name: str
    agent_uri: str
    relay_id: str


@dataclass(frozen=True, slots=True)
class ProvidersChanged:
    """To a watching actor: what the store committed, in the order it happened."""

    relays: tuple[Relay, ...]
    services: tuple[Registration | Withdrawn, ...]


@dataclass(slots=True)
class BackendRestored:
    """To the registry: the backend was away and may have forgotten what was published."""


# Policy.


@dataclass(frozen=True, slots=True)
class FileRules:
    """The rules of the files of the last good load, and which files those were."""

    files: tuple[Path, ...]
    rules: tuple[Rule, ...]


@dataclass(frozen=True, slots=True)
class PolicySource:
    """Everything a policy actor needs to serve.

    Attributes:
        rules: the backend's rules by (created_ms, id).
        file_rules: what `keep_file_rules` was last given, None before that.
    """

    rules: tuple[Rule, ...]
    file_rules: FileRules | None


@dataclass(slots=True)
class PolicyChanged:
    """To a watching actor: the backend's rules are no longer what was loaded."""


# Audit.


@dataclass(frozen=True, slots=True)
class AuditFilter:
    """Which records: tenant exact, caller and target exact if set, since inclusive.

    `limit` 0 stands for the most a query may return.
    """

    tenant: str
    caller: str = ""
    target: str = ""
    since_ms: int = 0
    limit: int = 100


class ControlBackend(ABC):
    """What the control actors need from whoever keeps the state: an interface and its records.

    Attributes:
        confirms_late: what is published counts from the first attempt on, also while the backend
            is away: its outage must not cost agents their connection. Otherwise a service is
            confirmed when it is stored.
    """

    confirms_late: ClassVar[bool] = False

    # Registry.

    @abstractmethod
    async def upsert_relay(self, relay: Relay, now_ms: int) -> int | None:
        """Announce this relay; repeated as a heartbeat, which keeps all its services alive.

        Answer: how many services of this relay the backend has; None: it does not say.
        """

    @abstractmethod
    async def register_services(self, registrations: Sequence[Registration]) -> tuple[str, ...]:
        """Publish services, at most `BATCH`. Per service: an error text, empty when stored."""

    @abstractmethod
    async def deregister_agents(self, agents: Sequence[Withdrawal]) -> None:
        """Withdraw agents, at most `BATCH`."""

    @abstractmethod
    async def deregister_stale(self, relay_id: str, before_ms: int) -> int:
        """Withdraw what this relay published before that time. Answer: how many services."""

    @abstractmethod
    async def resolve(
        self, names: Sequence[tuple[str, str]], now_ms: int
    ) -> tuple[tuple[ServiceRecord, ...], ...]:
        """Providers of each (tenant, name), newest first; relays believed dead left out."""

    async def relays(self) -> tuple[Relay, ...]:
        """Relays that announced themselves; dead ones may be among them."""
        return ()

    def watch_losses(self, watcher: ActorRef) -> None:
        """Tell `watcher` `BackendRestored` whenever that happens. The default never forgets."""
        del watcher

    # Policy.

    @abstractmethod
    def watch_policy(self, watcher: ActorRef) -> None:
        """Tell `watcher` `PolicyChanged` after every change, until it or the backend ends."""

    @abstractmethod
    async def load_policy(self) -> PolicySource:
        """The rules, and what was kept for the policy actor."""

    @abstractmethod
    def keep_file_rules(self, kept: FileRules) -> None:
        """Keep the last good rules of the files over a restart of the policy actor."""

    @abstractmethod
    async def add_rule(self, rule: Rule) -> str:
        """Store a rule; an empty id gets a fresh one, created_ms is set. Answer: the id.

        Raises:
            DuplicateRule: the id exists.
        """

    @abstractmethod
    async def remove_rule(self, tenant: str, rule_id: str) -> bool:
        """Remove a rule. False when the tenant has none with this id."""

    # Audit.

    @abstractmethod
    async def record_audit(self, records: Sequence[AuditRecord]) -> None:
        """Append records, at most `AUDIT_BATCH`. All or none."""

    @abstractmethod
    async def query_audit(self, wanted: AuditFilter) -> tuple[AuditRecord, ...]:
        """Matching records, newest first."""


#: Makes the backend object for one incarnation of a control actor, in its `init`.
Connect = Callable[[Actor], ControlBackend]


@dataclass(frozen=True, slots=True)
class BackendSpec:
    """A backend as the tree needs it.

    Attributes:
        children: specs of the actors it consists of, started before registry, policy and audit.
        connect: see `Connect`; a sibling is found next to the given actor's own path.
        audit_attempts: how often one batch of decisions is tried before it is lost; 0: for as
            long as it takes, the bounded queue then decides what is lost.
    """

    children: tuple[ChildSpec, ...]
    connect: Connect
    audit_attempts: int = AUDIT_ATTEMPTS
