"""What the forward plane is told: plain values, seconds and counts."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ForwardSettings:
    """The forward plane of one relay (sheet 3.5; 6.3 F1 to F5).

    Attributes:
        listen: UDP address; with port 0 every incarnation binds the port of the first.
        advertise: address told to the agents; None: the one this machine has towards the agent.
        idle: seconds without an accepted datagram until an allocation pair ends.
        grant_deadline: for the allocation registry to answer; then the stream is refused.
        max_allocations: ids live at a time, two for each stream.
        check_source: an allocation's datagrams must come from the IP address its agent is
            connected from. Off for agents whose NAT uses several addresses; what then protects an
            allocation is that its id cannot be guessed in the time it is silent.
        invented_ids: also serve ids nobody granted, as the reference does. For labs only.
    """

    listen: tuple[str, int] = ("0.0.0.0", 0)
    advertise: tuple[str, int] | None = None
    idle: float = 60.0
    grant_deadline: float = 5.0
    max_allocations: int = 65_536
    check_source: bool = True
    invented_ids: bool = False
