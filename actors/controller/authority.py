"""Who may call what on the served controller. Pure.

With TLS a caller is what its certificate says: a relay identity has the role `relay`, an identity
named in the settings as operator has the role `operator`; everybody else (agents) has none. A
relay may speak for itself only: its relay id is that of its certificate. Without TLS there is
nothing to go by, every caller has every role; such a listener belongs on loopback.

Source: protocol sheet ORP 1.1, 6.2 R28.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final

from wire.orp.identity import IdentityError, RelayUri, parse_identity


class Role(Enum):
    """What a caller is allowed to be."""

    RELAY = "relay"
    OPERATOR = "operator"


_RELAY: Final = frozenset({Role.RELAY})
_OPERATOR: Final = frozenset({Role.OPERATOR})
_BOTH: Final = _RELAY | _OPERATOR

#: Roles of which one is needed, by `service/method`. A method that is missing here is nobody's.
NEEDED: Final[Mapping[str, frozenset[Role]]] = {
    "Registry/RegisterService": _RELAY,
    "Registry/DeregisterAgent": _RELAY,
    "Registry/UpsertRelay": _RELAY,
    "Registry/Resolve": _BOTH,
    "Registry/Watch": _BOTH,
    "Policy/AddPolicy": _OPERATOR,
    "Policy/RemovePolicy": _OPERATOR,
    "Policy/ListPolicies": _BOTH,
    "Policy/Watch": _BOTH,
    "Audit/Record": _RELAY,
    "Audit/Query": _OPERATOR,
    "Fleet/RecordBatch": _RELAY,
    "Fleet/WithdrawStale": _RELAY,
    "Fleet/Clock": _BOTH,
    "Fleet/ListRelays": _BOTH,
}


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls.

    Attributes:
        name: its identity, or what is known instead; for the log.
        roles: what it may be.
        relay_id: the only relay it may speak for; None for any.
    """

    name: str
    roles: frozenset[Role]
    relay_id: str | None = None

    def may(self, method: str) -> bool:
        """True when one of the roles that `service/method` needs is there."""
        return not self.roles.isdisjoint(NEEDED.get(method, frozenset()))

    def speaks_for(self, relay_id: str) -> bool:
        """True when it may act as this relay."""
        return self.relay_id is None or self.relay_id == relay_id


#: Every caller of a listener without TLS.
ANYBODY: Final = Caller("anybody (plaintext)", _BOTH)


def caller_of(identity: str, operators: Collection[str]) -> Caller:
    """The caller whose certificate carries `identity` (empty: none)."""
    roles: set[Role] = set()
    if identity and identity in operators:
        roles.add(Role.OPERATOR)
    relay_id: str | None = ""
    try:
        parsed = parse_identity(identity)
    except IdentityError:
        pass
    else:
        if isinstance(parsed, RelayUri):
            roles.add(Role.RELAY)
            relay_id = parsed.relay_id
    return Caller(identity or "no identity", frozenset(roles), relay_id)
