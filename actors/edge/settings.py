"""What the edge door is told: plain values, seconds and counts."""

from __future__ import annotations

from dataclasses import dataclass, field

from actors.edge.forward.settings import ForwardSettings
from actors.edge.relays.settings import RelaySettings
from actors.transport.quota import TENANT_SHARE


@dataclass(frozen=True, slots=True)
class EdgeSettings:
    """Deadlines and limits of the door (sheet 6.1 R9 to R11).

    Attributes:
        region: of this relay; providers in it are preferred.
        tenants: whose agents may connect; empty: every tenant the CA vouches for.
        hello_deadline: from the handshake to a valid HELLO.
        first_frame_deadline: from a new stream to its complete first frame.
        register_deadline: for the registry to confirm a REGISTER.
        judge_registers: a REGISTER needs a rule that allows its agent the service with the method
            `REGISTER`; else any agent of a tenant may provide any service of it.
        resolve_deadline: for the registry to answer who provides a service.
        policy_deadline: for a policy decision; then the stream is refused.
        incoming_deadline: to open the stream to the provider.
        accept_deadline: from INCOMING_STREAM to the provider's answer.
        max_agents: connected agents.
        max_connections_per_agent: of one agent (or other relay) at a time, old ones included.
        max_services, max_services_per_agent: services registered here, and by one agent.
        max_opening, max_opening_per_agent: streams without a complete first frame.
        max_streams, max_streams_per_agent: stream pairs of the whole relay, and of one consumer.
        resume_window: a stream that came back waits so long for its other half.
        hold: a pair waits so long for an agent whose connection was lost; 0: it is reset at once.
        replay_bytes: of each direction of a stream, kept to be sent again to a returning agent;
            twice the stream window of the agents, or a busy stream may not come back here: one
            window waits for the kernel, and over TCP one may be under way when it is lost.
        replay_budget: of all streams together.
        p2p_deadline: agents whose policy wants them off the relay must have left it by then.
        max_halves, max_halves_per_agent: streams that came back and wait.
        max_forward_per_agent: forward streams of one consumer.
        tenant_share: a tenant may hold this share of what it has and what is free together, of
            everything above that has a bound for the whole relay.
        connects_per_second: connections of one agent; a tenant's agents may all come at once.
        opens_per_second, returns_per_second, candidates_per_second: streams opened, streams that
            come back, and candidate frames, of one agent. It may open as many streams again that
            end without a first frame; with more, its connection is closed.
        tenant_rate: a tenant may do so many times as much.
        forward: the UDP forward plane; None: this relay has none.
        relays: how this relay meets others.
    """

    region: str = ""
    tenants: frozenset[str] = frozenset()
    hello_deadline: float = 5.0
    first_frame_deadline: float = 10.0
    register_deadline: float = 5.0
    judge_registers: bool = False
    resolve_deadline: float = 5.0
    policy_deadline: float = 5.0
    incoming_deadline: float = 5.0
    accept_deadline: float = 10.0
    max_agents: int = 10_000
    max_connections_per_agent: int = 8
    max_services: int = 100_000
    max_services_per_agent: int = 256
    max_opening: int = 32_768
    max_opening_per_agent: int = 1024
    max_streams: int = 100_000
    max_streams_per_agent: int = 10_240
    resume_window: float = 30.0
    hold: float = 30.0
    replay_bytes: int = 2 << 20
    replay_budget: int = 256 << 20
    p2p_deadline: float = 10.0
    max_halves: int = 20_000
    max_halves_per_agent: int = 4096
    max_forward_per_agent: int = 1024
    tenant_share: float = TENANT_SHARE
    connects_per_second: float = 50.0
    opens_per_second: float = 1000.0
    returns_per_second: float = 4000.0
    candidates_per_second: float = 200.0
    tenant_rate: float = 8.0
    forward: ForwardSettings | None = None
    relays: RelaySettings = field(default_factory=RelaySettings)
