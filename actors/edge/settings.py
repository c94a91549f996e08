"""What the edge door is told: plain values, seconds and counts."""

from __future__ import annotations

from dataclasses import dataclass, field

from actors.edge.forward.settings import ForwardSettings
from actors.edge.relays.settings import RelaySettings


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
        max_services_per_agent: services one agent may register.
        max_opening_per_agent: streams of one agent without a complete first frame.
        max_streams: stream pairs of the whole relay.
        resume_window: a stream that came back waits so long for its other half.
        hold: a pair waits so long for an agent whose connection was lost; 0: it is reset at once.
        replay_bytes: of each direction of a stream, kept to be sent again to a returning agent;
            at least the stream window of the agents, or a busy stream may not come back here.
        replay_budget: of all streams together.
        p2p_deadline: agents whose policy wants them off the relay must have left it by then.
        max_halves: streams that came back and wait.
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
    max_services_per_agent: int = 256
    max_opening_per_agent: int = 1024
    max_streams: int = 100_000
    resume_window: float = 30.0
    hold: float = 30.0
    replay_bytes: int = 1 << 20
    replay_budget: int = 256 << 20
    p2p_deadline: float = 10.0
    max_halves: int = 20_000
    forward: ForwardSettings | None = None
    relays: RelaySettings = field(default_factory=RelaySettings)
