"""What the store can be asked: one message per statement group, each with its SQL.

`run` is called in the database thread, inside a transaction. Service ids on the wire are
`<tenant>/<name>`; the row id adds the agent, because several agents may provide one name.

Source: protocol sheet ORP 4.1, 4.3; 6.2 R19, R20.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, TypeVar

from actors.control.backend import (
    AuditFilter,
    DuplicateRule,
    FileRules,
    PolicySource,
    Registration,
    Relay,
    ServiceRecord,
    Withdrawal,
)
from actors.control.limits import MAX_AUDIT_ROWS, MAX_RULES
from actors.control.messages import AuditRecord, P2PMode, RelayMode
from actors.control.rule import Effect, Rule
from actors.runtime import ActorRef, Request

R_co = TypeVar("R_co", covariant=True)

#: Providers of one name a lookup returns.
MAX_PROVIDERS = 256


class StoreRequest(Request[R_co]):
    """A request that is answered by the database thread."""

    __slots__ = ()
    writes: ClassVar[bool] = True

    def run(self, connection: sqlite3.Connection) -> R_co:
        """Do it. Raises `BackendError` for a refusal, `sqlite3.Error` for a failure."""
        raise TypeError(f"{type(self).__name__} has no statements")


# Registry.


@dataclass(slots=True)
class UpsertRelay(StoreRequest[None]):
    """Announce a relay, or renew its heartbeat."""

    relay: Relay
    now_ms: int

    def run(self, connection: sqlite3.Connection) -> None:
        """See the class."""
        relay = self.relay
        connection.execute(
            "INSERT INTO relay_instances (id, region, endpoint, last_heartbeat_unix_ms)"
            " VALUES (?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET region = excluded.region,"
            " endpoint = excluded.endpoint,"
            " last_heartbeat_unix_ms = excluded.last_heartbeat_unix_ms",
            (relay.id, relay.region or None, relay.endpoint, self.now_ms),
        )


@dataclass(slots=True)
class RegisterServices(StoreRequest[tuple[str, ...]]):
    """Publish services, and see their agents. Answer: per service an error, or empty."""

    registrations: Sequence[Registration]

    def run(self, connection: sqlite3.Connection) -> tuple[str, ...]:
        """See the class."""
        return tuple(self._one(connection, service) for service in self.registrations)

    @staticmethod
    def _one(connection: sqlite3.Connection, service: Registration) -> str:
        try:
            connection.execute(
                "INSERT INTO agents (uri, tenant, last_seen_unix_ms) VALUES (?, ?, ?)"
                " ON CONFLICT (uri) DO UPDATE SET tenant = excluded.tenant,"
                " last_seen_unix_ms = excluded.last_seen_unix_ms",
                (service.agent_uri, service.tenant, service.updated_ms),
            )
            # Agents send the local address with the first REGISTER only.
            connection.execute(
                "INSERT INTO services (id, tenant, name, agent_uri, relay_id, local_addr,"
                " updated_at_unix_ms) VALUES (?, ?, ?, ?, ?, ?, ?)"
                " ON CONFLICT (tenant, name, agent_uri) DO UPDATE SET"
                " relay_id = excluded.relay_id, health = 'healthy',"
                " local_addr = coalesce(excluded.local_addr, services.local_addr),"
                " updated_at_unix_ms = excluded.updated_at_unix_ms",
                (
                    f"{service.tenant}/{service.name}@{service.agent_uri}",
                    service.tenant,
                    service.name,
                    service.agent_uri,
                    service.relay_id,
                    service.local_address or None,
                    service.updated_ms,
                ),
            )
        except sqlite3.IntegrityError as exc:  # undoes its own statement only
            return str(exc)
        return ""


@dataclass(slots=True)
class DeregisterAgents(StoreRequest[None]):
    """Withdraw every service of these agents at their relay; the agent rows stay."""

    agents: Sequence[Withdrawal]

    def run(self, connection: sqlite3.Connection) -> None:
        """See the class."""
        connection.executemany(
            "DELETE FROM services WHERE tenant = ? AND agent_uri = ? AND relay_id = ?",
            [(agent.tenant, agent.agent_uri, agent.relay_id) for agent in self.agents],
        )


@dataclass(slots=True)
class DeregisterStale(StoreRequest[int]):
    """Withdraw what a relay published before a time. Answer: how many services."""

    relay_id: str
    before_ms: int

    def run(self, connection: sqlite3.Connection) -> int:
        """See the class."""
        return connection.execute(
            "DELETE FROM services WHERE relay_id = ? AND updated_at_unix_ms < ?",
            (self.relay_id, self.before_ms),
        ).rowcount


@dataclass(slots=True)
class FindProviders(StoreRequest[tuple[tuple[ServiceRecord, ...], ...]]):
    """Providers per (tenant, name), newest first.

    With `alive_since_ms` above 0, only those of relays that showed a heartbeat since.
    """

    names: Sequence[tuple[str, str]]
    alive_since_ms: int = 0

    writes: ClassVar[bool] = False

    def run(self, connection: sqlite3.Connection) -> tuple[tuple[ServiceRecord, ...], ...]:
        """See the class."""
        return tuple(self._one(connection, tenant, name) for tenant, name in self.names)

    def _one(
        self, connection: sqlite3.Connection, tenant: str, name: str
    ) -> tuple[ServiceRecord, ...]:
        rows = connection.execute(
            "SELECT s.tenant, s.name, s.agent_uri, s.relay_id, coalesce(r.region, ''),"
            " coalesce(r.endpoint, ''), coalesce(s.local_addr, ''), s.updated_at_unix_ms"
            " FROM services s LEFT JOIN relay_instances r ON r.id = s.relay_id"
            " WHERE s.tenant = ? AND s.name = ?"
            " AND (? = 0 OR coalesce(r.last_heartbeat_unix_ms, 0) >= ?)"
            " ORDER BY s.updated_at_unix_ms DESC, s.agent_uri LIMIT ?",
            (tenant, name, self.alive_since_ms, self.alive_since_ms, MAX_PROVIDERS),
        )
        return tuple(ServiceRecord(*row) for row in rows)


# Policy.


@dataclass(slots=True)
class LoadRules(StoreRequest[PolicySource]):
    """Every rule by (created_ms, id). The store adds what it keeps in memory."""

    writes: ClassVar[bool] = False

    def run(self, connection: sqlite3.Connection) -> PolicySource:
        """See the class."""
        rows = connection.execute(
            "SELECT id, tenant, caller_pattern, target_pattern, method_pattern, decision,"
            " expires_unix_ms, created_at_unix_ms, p2p_mode, relay_mode FROM policies"
            " ORDER BY created_at_unix_ms, id LIMIT ?",
            (MAX_RULES + 1,),
        )
        rules = tuple(
            Rule(
                id=rule_id,
                tenant=tenant,
                caller=caller,
                target=target,
                method=method,
                effect=Effect(decision),
                expires_ms=expires,
                created_ms=created,
                p2p_mode=P2PMode(p2p_mode),
                relay_mode=RelayMode(relay_mode),
            )
            for (
                rule_id,
                tenant,
                caller,
                target,
                method,
                decision,
                expires,
                created,
                p2p_mode,
                relay_mode,
            ) in rows
        )
        return PolicySource(rules, None)


@dataclass(slots=True)
class InsertRule(StoreRequest[str]):
    """Store a rule whose id and creation time are set. Answer: the id."""

    rule: Rule

    def run(self, connection: sqlite3.Connection) -> str:
        """See the class. Raises `DuplicateRule`."""
        rule = self.rule
        (newest,) = connection.execute(
            "SELECT coalesce(max(created_at_unix_ms), 0) FROM policies"
        ).fetchone()
        # A later rule always sorts behind an earlier one, even when the clock stepped back.
        rule = replace(rule, created_ms=max(rule.created_ms, int(newest) + 1))
        try:
            connection.execute(
                "INSERT INTO policies (id, tenant, caller_pattern, target_pattern,"
                " method_pattern, decision, expires_unix_ms, created_at_unix_ms, p2p_mode,"
                " relay_mode) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    rule.id,
                    rule.tenant,
                    rule.caller,
                    rule.target,
                    rule.method,
                    rule.effect.value,
                    rule.expires_ms,
                    rule.created_ms,
                    rule.p2p_mode.value,
                    rule.relay_mode.value,
                ),
            )
        except sqlite3.IntegrityError as exc:
            if exc.sqlite_errorcode == sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY:
                raise DuplicateRule(rule.id) from exc
            raise
        return rule.id


@dataclass(slots=True)
class DeleteRule(StoreRequest[bool]):
    """Remove a rule. Answer: whether the tenant had it."""

    tenant: str
    rule_id: str

    def run(self, connection: sqlite3.Connection) -> bool:
        """See the class."""
        done = connection.execute(
            "DELETE FROM policies WHERE tenant = ? AND id = ?", (self.tenant, self.rule_id)
        )
        return done.rowcount > 0


@dataclass(slots=True)
class KeepFileRules:
    """To the store, a plain message: hold this in memory for the policy actor."""

    kept: FileRules


@dataclass(slots=True)
class WatchPolicy:
    """To the store, a plain message: tell `watcher` about changed rules while it lives."""

    watcher: ActorRef


# Audit.


@dataclass(slots=True)
class AppendAudit(StoreRequest[None]):
    """Append records."""

    records: Sequence[AuditRecord]

    def run(self, connection: sqlite3.Connection) -> None:
        """See the class."""
        connection.executemany(
            "INSERT INTO audit_events (ts_unix_ms, tenant, caller, target, method, decision,"
            " reason, stream_id) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            [
                (
                    record.at,
                    record.tenant,
                    record.caller,
                    record.target,
                    record.method,
                    "allow" if record.allow else "deny",
                    record.reason,
                    record.stream_id,
                )
                for record in self.records
            ],
        )


@dataclass(slots=True)
class FindAudit(StoreRequest[tuple[AuditRecord, ...]]):
    """Matching records, newest first."""

    wanted: AuditFilter

    writes: ClassVar[bool] = False

    def run(self, connection: sqlite3.Connection) -> tuple[AuditRecord, ...]:
        """See the class."""
        wanted = self.wanted
        conditions = ["tenant = ?", "ts_unix_ms >= ?"]
        values: list[str | int] = [wanted.tenant, wanted.since_ms]
        for column, value in (("caller", wanted.caller), ("target", wanted.target)):
            if value:
                conditions.append(f"{column} = ?")
                values.append(value)
        limit = min(wanted.limit, MAX_AUDIT_ROWS) if wanted.limit > 0 else MAX_AUDIT_ROWS
        rows = connection.execute(
            "SELECT ts_unix_ms, tenant, caller, target, method, decision, reason, stream_id"
            f" FROM audit_events WHERE {' AND '.join(conditions)}"
            " ORDER BY ts_unix_ms DESC, rowid DESC LIMIT ?",
            (*values, limit),
        )
        return tuple(
            AuditRecord(at, tenant, caller, target, method, word == "allow", reason, stream_id)
            for at, tenant, caller, target, method, word, reason, stream_id in rows
        )
