"""What operators may ask the control actors (ctl, SIGHUP, the embedded controller).

Doors do not need these; see `messages.py`.

Source: protocol sheet ORP 4.1, 4.5.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from actors.control.backend import AuditFilter
from actors.control.messages import AuditRecord, Decision
from actors.control.policy.rule import Rule
from actors.runtime import Request

# To the policy actor.


@dataclass(frozen=True, slots=True)
class PolicyLoaded:
    """Rules in force after a load."""

    file_rules: int
    store_rules: int


@dataclass(slots=True)
class ReloadPolicy(Request[PolicyLoaded]):
    """Read the files (and the store's rules) again; `files` replaces the list when given.

    Refused with a `PolicyRefused`; the rules in force stay.
    """

    files: tuple[Path, ...] | None = None


@dataclass(slots=True)
class AddRule(Request[str]):
    """Store a rule; in force when answered. Answer: its id (fresh when empty).

    Refused with a `PolicyRefused`.
    """

    rule: Rule


@dataclass(slots=True)
class RemoveRule(Request[bool]):
    """Remove a rule of the store. Answer False: the tenant has none with this id.

    Rules of files are removed by editing the file. Refused with a `PolicyRefused`.
    """

    tenant: str
    rule_id: str


@dataclass(frozen=True, slots=True)
class ListedRule:
    """A rule in force and where it comes from: `file` or `store`."""

    rule: Rule
    source: str


@dataclass(slots=True)
class ListRules(Request[tuple[ListedRule, ...]]):
    """The rules in force, in the order they are tried within a bucket; all tenants when empty."""

    tenant: str = ""


@dataclass(frozen=True, slots=True)
class PolicyRefused:
    """Why an operator's request was refused; one line per mistake."""

    problems: tuple[str, ...]

    def __str__(self) -> str:
        return "\n".join(self.problems)


@dataclass(slots=True)
class WouldDecide(Request[Decision]):
    """As `Decide` would be answered now: without a record, a count, or a wait for rules."""

    tenant: str
    caller: str
    target: str
    method: str = ""


# To the audit actor.


@dataclass(slots=True)
class QueryAudit(Request[tuple[AuditRecord, ...]]):
    """Matching records, newest first, those not yet stored included.

    Refused with `Unavailable` when the store cannot be read.
    """

    wanted: AuditFilter
