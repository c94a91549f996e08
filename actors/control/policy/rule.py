"""A policy rule as every source gives it and the evaluation reads it.

Source: protocol sheet ORP 4.2 (PolicyRule), 4.4, 6.2 R23.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass, replace
from enum import Enum

from actors.control.limits import MAX_PATTERN
from actors.control.messages import P2PMode, RelayMode


class Effect(Enum):
    """What a rule decides. `UNSPECIFIED` can only come from a foreign controller: deny (R23)."""

    ALLOW = "allow"
    DENY = "deny"
    UNSPECIFIED = "unspecified"


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule.

    Attributes:
        id: unique within its source; the `reason` of its decisions.
        tenant: whose callers it is for.
        caller: glob over the caller's URI.
        target: glob over the service name, or over the other agent's URI for the callee check.
        method: glob over the method; empty matches every method.
        effect: see `Effect`.
        expires_ms: wall-clock milliseconds from which on it is skipped; 0 never.
        created_ms: wall-clock milliseconds; 0 unknown. Orders the rules of the store.
        p2p_mode, relay_mode: what an allowed stream may and must do.
    """

    id: str
    tenant: str
    caller: str
    target: str
    method: str = ""
    effect: Effect = Effect.DENY
    expires_ms: int = 0
    created_ms: int = 0
    p2p_mode: P2PMode = P2PMode.ALLOWED
    relay_mode: RelayMode = RelayMode.SPLICE

    def as_stored(self, now_ms: int) -> Rule:
        """The rule as a store takes it: with an id of its own, if it has none, and its time."""
        return replace(self, id=self.id or str(uuid.uuid4()), created_ms=now_ms)

    def problem(self) -> str:
        """What makes this rule unusable for a store, or an empty string."""
        for name, text in (
            ("tenant", self.tenant),
            ("caller", self.caller),
            ("target", self.target),
        ):
            if not text:
                return f"{name} must not be empty"
        for name, text in (
            ("id", self.id),
            ("tenant", self.tenant),
            ("caller", self.caller),
            ("target", self.target),
            ("method", self.method),
        ):
            if len(text) > MAX_PATTERN:
                return f"{name} has {len(text)} characters, at most {MAX_PATTERN} are allowed"
            if not text.isascii() and text != text.encode(errors="replace").decode():
                return f"{name} is not valid Unicode"
        if self.effect is Effect.UNSPECIFIED:
            return "decision must be allow or deny"
        if not 0 <= self.expires_ms < 2**63:
            return "expires is out of range"
        return ""
