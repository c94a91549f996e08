"""What the control actors need from whoever keeps the state: records, errors, and the way to it.

The embedded backend (`store/embedded.py`) keeps it in SQLite inside this daemon; a gRPC backend
(`remote/backend.py`) asks an OutRelay controller. Either has an actor of its own, the first child
of control, that owns its resources and answers the requests of `store/requests.py` and
`store/fleet_requests.py`: these are the interface. Times are wall-clock milliseconds; changes are
idempotent.

Source: protocol sheet ORP 4.1, 4.2; 6.2 R19 to R21.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from actors.control.limits import AUDIT_ATTEMPTS, RELAY_ALIVE_SECONDS, STORE_TIMEOUT_SECONDS
from actors.control.policy.rule import Rule
from actors.runtime import Actor, ActorRef, ChildSpec, NoAnswer, ReplyError, Request

R = TypeVar("R")


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


# The way to it.


class Backend:
    """The actor that keeps the state, as the control actors ask it: by the requests of `store`.

    Two actors answer them: the `StoreActor` from its database, the `ControllerLink` from a remote
    controller. An object is made anew by every incarnation that uses it.

    Args:
        actor: the one that answers.
        timeout: seconds one request may take.
        relay_alive_seconds: a relay without a heartbeat for so long is left out; 0: never.
        confirms_late: what is published counts from the first attempt on, also while the backend
            is away: its outage must not cost agents their connection. Otherwise a service is
            confirmed when it is stored.
    """

    def __init__(
        self,
        actor: ActorRef,
        *,
        timeout: float = STORE_TIMEOUT_SECONDS,
        relay_alive_seconds: float = RELAY_ALIVE_SECONDS,
        confirms_late: bool = False,
    ) -> None:
        self.confirms_late = confirms_late
        self._actor = actor
        self._timeout = timeout
        self._alive_ms = int(relay_alive_seconds * 1000)

    async def ask(self, request: Request[R]) -> R:
        """The answer, within the time a request may take; every request may be repeated.

        Raises:
            BackendError: it refused, or (`BackendUnavailable`) could not be asked.
        """
        try:
            return await self._actor.ask(request, timeout=self._timeout)
        except ReplyError as exc:
            if isinstance(exc.refusal, BackendError):
                raise exc.refusal from None
            raise
        except NoAnswer as exc:
            raise BackendUnavailable(str(exc)) from exc

    def tell(self, message: object) -> None:
        """A plain message of `store`; lost while the actor is away."""
        self._actor.try_tell(message)

    def alive_since(self, now_ms: int) -> int:
        """Relays that were not heard of since then are believed dead; 0: none is."""
        return max(1, now_ms - self._alive_ms) if self._alive_ms else 0


#: Makes the backend object for one incarnation of a control actor, in its `init`.
Connect = Callable[[Actor], Backend]


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
