"""What doors may say to the control actors, and what they answer.

Doors import this module and nothing else of `actors.control`. References to the three actors are
handed to a door as a `ControlPlane`.

Sources: protocol sheet ORP 3.2, 3.3, 4.1 to 4.4.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from actors.runtime import ActorRef, Request


class P2PMode(Enum):
    """Whether a pair of agents may, must or must not leave the relay."""

    ALLOWED = "allowed"
    FORBIDDEN = "forbidden"
    REQUIRED = "required"


class RelayMode(Enum):
    """How the relay carries an allowed stream."""

    SPLICE = "splice"
    FORWARD = "forward"


def combine_p2p(caller: P2PMode, callee: P2PMode) -> P2PMode:
    """The mode of a stream from the decisions of both checks: forbidden > required > allowed."""
    for mode in (P2PMode.FORBIDDEN, P2PMode.REQUIRED):
        if mode in (caller, callee):
            return mode
    return P2PMode.ALLOWED


@dataclass(slots=True)
class Unavailable:
    """Refusal (`ReplyError`) of a request that cannot be served now. Answer 503, never 404."""

    why: str


# Registry.


@dataclass(slots=True)
class AgentUp(Request[int]):
    """An agent connection said HELLO. Answer: the generation it got.

    Repeated with its `generation` after a restart of the registry (0 the first time); asked again
    by the same connection, the answer is the same. A newer generation of the same URI supersedes an
    older one; the older connection is sent `Superseded`. The registry monitors `connection` and
    cleans up when it ends, only if still current. `connection` must have a path no other connection
    had (or be pinned).

    Refused with `RegisterRefused("stale_generation")` when repeated by a connection that was
    superseded meanwhile, `RegisterRefused("limit")` when the registry is full.
    """

    uri: str
    tenant: str
    connection: ActorRef
    generation: int = 0


@dataclass(slots=True)
class Superseded:
    """To an agent connection: the same agent connected again; this connection should close."""

    by_generation: int


@dataclass(slots=True)
class RegisterService(Request[str]):
    """Publish a service of a connected agent. Answer: the service id `<tenant>/<name>`.

    Repeated for what is listed already, it is answered and nothing is written.
    Refused (`ReplyError`) with a `RegisterRefused`.
    """

    tenant: str
    name: str
    uri: str
    generation: int
    local_address: str = ""


@dataclass(slots=True)
class Confirm(Request[bool]):
    """Is this connection the agent's current one, with at least so many services listed?

    What an idle connection asks now and then: one message, nothing written.
    """

    uri: str
    generation: int
    services: int


@dataclass(slots=True)
class RegisterRefused:
    """Why an agent or a service was not published.

    `not_connected`, `stale_generation`, `denied` (another tenant's name), `bad_name`, `limit`,
    `store` (the store refuses this service). While the store merely fails, the request waits: its
    deadline decides. A restarted registry lets it wait for the agent's `AgentUp`.
    """

    why: str


@dataclass(slots=True)
class Provider:
    """Who provides a service. `connection` is set when the agent is connected to this relay."""

    service_id: str
    uri: str
    relay_id: str
    relay_endpoint: str
    local_address: str
    connection: ActorRef | None


@dataclass(slots=True)
class Resolution:
    """Providers of a service, best first (same region, then newest). Empty: not found."""

    providers: tuple[Provider, ...]


@dataclass(slots=True)
class Resolve(Request[Resolution]):
    """Who provides `service` for callers of `tenant`?

    Refused with `Unavailable` when the store cannot be read and nothing is known without it.
    Waits, bounded, while a restarted registry hears from the connected agents again.
    """

    tenant: str
    service: str
    region: str = ""


@dataclass(frozen=True, slots=True)
class FleetRelay:
    """A relay that announced itself to the controller."""

    relay_id: str
    region: str
    endpoint: str


@dataclass(slots=True)
class FindFleet(Request[tuple[FleetRelay, ...]]):
    """Which relays are there? This one among them; dead ones may be, too.

    Refused with `Unavailable` when the backend does not say.
    """


@dataclass(slots=True)
class ClaimStream(Request[bool]):
    """Bind a non-zero stream id to a pair of agents for the life of `pair` (monitored).

    Answer False: the id belongs to a different pair, or to a live stream (409 collision).
    Idempotent for the same `pair`, which may name another provider when it lost the first one
    while the stream was opened; id 0 is never recorded and answered True. Repeated by the pair
    after a restart of the registry.
    """

    stream_id: int
    consumer: str
    provider: str
    pair: ActorRef


@dataclass(slots=True)
class PeerOf(Request["ActorRef | None"]):
    """The other agent's connection of a claimed stream, as seen from the member `uri`."""

    stream_id: int
    uri: str


# Policy.


@dataclass(slots=True)
class Decision:
    """One policy decision. `reason` is the rule id, or `no matching rule`, `no policy snapshot`."""

    allow: bool
    reason: str
    p2p_mode: P2PMode = P2PMode.ALLOWED
    relay_mode: RelayMode = RelayMode.SPLICE


@dataclass(slots=True)
class Decide(Request[Decision]):
    """May `caller` (agent URI) reach `target` (service name or agent URI) by `method`?

    `tenant` is the tenant of the evaluated caller. The policy actor writes the audit record;
    `stream_id` (0: none) goes into it. `asker` is who had it asked, when that is not the caller: a
    provider is not charged for what consumers ask about it.
    """

    tenant: str
    caller: str
    target: str
    method: str = ""
    stream_id: int = 0
    asker: str = ""


# Audit.


@dataclass(slots=True)
class AuditRecord:
    """One decision for the audit log. `at` is wall-clock milliseconds.

    `asker` is whose share of the queue it takes, when that is not the caller; it is not stored.
    """

    at: int
    tenant: str
    caller: str
    target: str
    method: str
    allow: bool
    reason: str
    stream_id: str = ""
    asker: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class ControlPlane:
    """References to the control actors, as a door gets them."""

    registry: ActorRef
    policy: ActorRef
    audit: ActorRef
