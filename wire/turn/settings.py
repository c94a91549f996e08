"""What the TURN server is told: plain values, seconds and counts."""

from __future__ import annotations

from dataclasses import dataclass

from wire.stun.address import Address
from wire.turn import limits


@dataclass(frozen=True, slots=True)
class TurnRules:
    """Limits of the protocol machine.

    Attributes:
        default_lifetime, max_lifetime: of allocations.
        max_allocations: of all clients.
        max_per_user, max_per_source: of one user, of one source address.
        max_permissions, max_channels: of one allocation.
        last_channel: 0x4FFF, or 0x7FFF for clients of RFC 5766.
        mobility: clients may move (RFC 8016).
        one_per_user: a new allocation replaces the user's old one, as Firezone has it.
        alternates: where clients are sent while we drain.
        software: SOFTWARE of answers; empty: none.
    """

    default_lifetime: float = 600.0
    max_lifetime: float = 3600.0
    max_allocations: int = 10_000
    max_per_user: int = 64
    max_per_source: int = 1024
    max_permissions: int = 256
    max_channels: int = 256
    last_channel: int = limits.LAST_CHANNEL
    mobility: bool = True
    one_per_user: bool = False
    alternates: tuple[Address, ...] = ()
    software: str = ""
