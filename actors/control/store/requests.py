"""What the store can be asked: one message per statement group, each with its SQL.

`run` is called in the database thread, inside a transaction. Service ids on the wire are
`<tenant>/<name>`; the row id adds the agent, because several agents may provide one name.

Every call into SQLite gives the interpreter lock away and has to get it back from an event loop
that may be busy all the time, which takes milliseconds. So rows go in as one statement with many
values, and come out as a few JSON texts of `PAGE_ROWS` rows instead of one by one.

Source: protocol sheet ORP 4.1, 4.3; 6.2 R19, R20.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import ClassVar, TypeVar

from actors.control.audit_usage import add_usage, record_bytes
from actors.control.backend import (
    AuditFilter,
    DuplicateRule,
    FileRules,
    PolicySource,
    Registration,
    Relay,
    ServiceRecord,
    Withdrawal,
    Withdrawn,
)
from actors.control.limits import MAX_AUDIT_ROWS, MAX_RULES
from actors.control.messages import AuditRecord, P2PMode, RelayMode
from actors.control.policy.rule import Effect, Rule
from actors.runtime import ActorRef, Request

R_co = TypeVar("R_co", covariant=True)

#: Providers of one name a lookup returns.
MAX_PROVIDERS = 256
#: What a DELETE tells of the services it withdrew: the fields of `Withdrawn`.
RETURNING = "RETURNING tenant, name, agent_uri, relay_id"
#: Rows of values in one statement: old builds of SQLite allow 999 values.
CHUNK_ROWS = 100
#: Rows in one JSON text.
PAGE_ROWS = 500


class StoreRequest(Request[R_co]):
    """A request that is answered by the database thread."""

    __slots__ = ()
    #: It changes rows.
    writes: ClassVar[bool] = True
    #: It is one statement, which is undone by itself when it fails.
    single: ClassVar[bool] = True

    def run(self, connection: sqlite3.Connection) -> R_co:
        """Do it. Raises `BackendError` for a refusal, `sqlite3.Error` for a failure."""
        raise TypeError(f"{type(self).__name__} has no statements")


def _values(columns: int, rows: int) -> str:
    """`(?, ?), (?, ?)` for two rows of two columns."""
    row = "(" + ", ".join("?" * columns) + ")"
    return ", ".join([row] * rows)


def _chunks(rows: Sequence[tuple[object, ...]]) -> Iterator[tuple[int, list[object]]]:
    """Rows in portions for one statement: how many, and their values in a row."""
    remaining = iter(rows)
    while chunk := list(islice(remaining, CHUNK_ROWS)):
        yield len(chunk), [value for row in chunk for value in row]


# Registry.


@dataclass(slots=True)
class UpsertRelay(StoreRequest["int | None"]):
    """Announce a relay, or renew its heartbeat. Answer: how many services are at it.

    None: whoever keeps them does not say.
    """

    relay: Relay
    now_ms: int
    heartbeats: bool = True

    single: ClassVar[bool] = False

    def run(self, connection: sqlite3.Connection) -> int:
        """A relay that `heartbeats` is dead when it stops."""
        relay = self.relay
        connection.execute(
            "INSERT INTO relay_instances (id, region, endpoint, last_heartbeat_unix_ms, heartbeats)"
            " VALUES (?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET region = excluded.region,"
            " endpoint = excluded.endpoint, heartbeats = excluded.heartbeats,"
            " last_heartbeat_unix_ms = excluded.last_heartbeat_unix_ms",
            (relay.id, relay.region or None, relay.endpoint, self.now_ms, self.heartbeats),
        )
        (services,) = connection.execute(
            "SELECT count(*) FROM services WHERE relay_id = ?", (relay.id,)
        ).fetchone()
        return int(services)


@dataclass(slots=True)
class RegisterServices(StoreRequest[tuple[str, ...]]):
    """Publish services, and see their agents. Answer: per service an error, or empty."""

    registrations: Sequence[Registration]

    single: ClassVar[bool] = False

    def run(self, connection: sqlite3.Connection) -> tuple[str, ...]:
        try:
            self._insert(connection, self.registrations)
        except sqlite3.IntegrityError:
            # One of them is refused: find out which. Those already stored are stored again.
            return tuple(self._one(connection, each) for each in self.registrations)
        return ("",) * len(self.registrations)

    def _one(self, connection: sqlite3.Connection, registration: Registration) -> str:
        try:
            self._insert(connection, [registration])
        except sqlite3.IntegrityError as exc:  # undoes its own statement only
            return str(exc)
        return ""

    @staticmethod
    def _insert(connection: sqlite3.Connection, registrations: Sequence[Registration]) -> None:
        agents = {each.agent_uri: (each.tenant, each.updated_ms) for each in registrations}
        for count, values in _chunks([(uri, *seen) for uri, seen in agents.items()]):
            connection.execute(
                f"INSERT INTO agents (uri, tenant, last_seen_unix_ms) VALUES {_values(3, count)}"
                " ON CONFLICT (uri) DO UPDATE SET tenant = excluded.tenant,"
                " last_seen_unix_ms = excluded.last_seen_unix_ms",
                values,
            )
        services: list[tuple[object, ...]] = [
            (
                f"{each.tenant}/{each.name}@{each.agent_uri}",
                each.tenant,
                each.name,
                each.agent_uri,
                each.relay_id,
                each.local_address or None,
                each.updated_ms,
            )
            for each in registrations
        ]
        for count, values in _chunks(services):
            # Agents send the local address with the first REGISTER only.
            connection.execute(
                "INSERT INTO services (id, tenant, name, agent_uri, relay_id, local_addr,"
                f" updated_at_unix_ms) VALUES {_values(7, count)}"
                " ON CONFLICT (tenant, name, agent_uri) DO UPDATE SET"
                " relay_id = excluded.relay_id, health = 'healthy',"
                " local_addr = coalesce(excluded.local_addr, services.local_addr),"
                " updated_at_unix_ms = excluded.updated_at_unix_ms",
                values,
            )


@dataclass(slots=True)
class DeregisterAgents(StoreRequest[tuple[Withdrawn, ...]]):
    """Withdraw every service of these agents at their relay; the agent rows stay.

    Answer: the services that were there.
    """

    agents: Sequence[Withdrawal]

    single: ClassVar[bool] = False

    def run(self, connection: sqlite3.Connection) -> tuple[Withdrawn, ...]:
        rows = [(agent.tenant, agent.agent_uri, agent.relay_id) for agent in self.agents]
        gone: list[Withdrawn] = []
        for count, values in _chunks(rows):
            deleted = connection.execute(
                f"WITH gone (tenant, uri, relay) AS (VALUES {_values(3, count)})"
                " DELETE FROM services WHERE rowid IN (SELECT s.rowid FROM gone CROSS JOIN"
                " services s ON s.tenant = gone.tenant AND s.agent_uri = gone.uri"
                " AND s.relay_id = gone.relay)"
                f" {RETURNING}",
                values,
            )
            gone.extend(Withdrawn(*row) for row in deleted.fetchall())
        return tuple(gone)


@dataclass(slots=True)
class DeregisterStale(StoreRequest[tuple[Withdrawn, ...]]):
    """Withdraw what a relay published before a time. Answer: those services."""

    relay_id: str
    before_ms: int

    def run(self, connection: sqlite3.Connection) -> tuple[Withdrawn, ...]:
        deleted = connection.execute(
            f"DELETE FROM services WHERE relay_id = ? AND updated_at_unix_ms < ? {RETURNING}",
            (self.relay_id, self.before_ms),
        )
        return tuple(Withdrawn(*row) for row in deleted.fetchall())


@dataclass(slots=True)
class FindProviders(StoreRequest[tuple[tuple[ServiceRecord, ...], ...]]):
    """Providers per (tenant, name), newest first.

    With `alive_since_ms` above 0, only those of relays that showed a heartbeat since, or never
    said that they repeat it.
    """

    names: Sequence[tuple[str, str]]
    alive_since_ms: int = 0

    writes: ClassVar[bool] = False

    def run(self, connection: sqlite3.Connection) -> tuple[tuple[ServiceRecord, ...], ...]:
        found: dict[tuple[str, str], list[ServiceRecord]] = {name: [] for name in self.names}
        for count, values in _chunks(list(found)):
            pages = connection.execute(
                f"WITH wanted (tenant, name) AS (VALUES {_values(2, count)})"
                " SELECT json_group_array(json_array(tenant, name, agent_uri, relay_id, region,"
                " endpoint, local_addr, updated)) FROM (SELECT s.tenant, s.name, s.agent_uri,"
                " s.relay_id, coalesce(r.region, '') AS region,"
                " coalesce(r.endpoint, '') AS endpoint,"
                " coalesce(s.local_addr, '') AS local_addr, s.updated_at_unix_ms AS updated,"
                " row_number() OVER (PARTITION BY s.tenant, s.name"
                " ORDER BY s.updated_at_unix_ms DESC, s.agent_uri) AS place"
                " FROM wanted CROSS JOIN services s"
                " ON s.tenant = wanted.tenant AND s.name = wanted.name"
                " LEFT JOIN relay_instances r ON r.id = s.relay_id"
                " WHERE ? = 0 OR r.heartbeats = 0 OR coalesce(r.last_heartbeat_unix_ms, 0) >= ?)"
                f" WHERE place <= {MAX_PROVIDERS} GROUP BY place / {PAGE_ROWS // 5}",
                (*values, self.alive_since_ms, self.alive_since_ms),
            )
            for (page,) in pages:
                for row in json.loads(page):
                    record = ServiceRecord(*row)
                    found[record.tenant, record.name].append(record)
        for records in found.values():
            records.sort(key=lambda record: (-record.updated_ms, record.agent_uri))
        return tuple(tuple(found[name]) for name in self.names)


# Policy.


@dataclass(slots=True)
class LoadRules(StoreRequest[PolicySource]):
    """Every rule by (created_ms, id). The store adds what it keeps in memory."""

    writes: ClassVar[bool] = False

    def run(self, connection: sqlite3.Connection) -> PolicySource:
        pages = connection.execute(
            "SELECT json_group_array(json_array(id, tenant, caller_pattern, target_pattern,"
            " method_pattern, decision, expires_unix_ms, created_at_unix_ms, p2p_mode,"
            " relay_mode)) FROM (SELECT *, row_number() OVER"
            " (ORDER BY created_at_unix_ms, id) AS place FROM policies LIMIT ?)"
            f" GROUP BY place / {PAGE_ROWS}",
            (MAX_RULES + 1,),
        )
        rules = [
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
            for (page,) in pages
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
            ) in json.loads(page)
        ]
        rules.sort(key=lambda rule: (rule.created_ms, rule.id))
        return PolicySource(tuple(rules), None)


@dataclass(slots=True)
class InsertRule(StoreRequest[str]):
    """Store a rule whose id and creation time are set. Answer: the id."""

    rule: Rule

    single: ClassVar[bool] = False

    def run(self, connection: sqlite3.Connection) -> str:
        """Raises `DuplicateRule`."""
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

    single: ClassVar[bool] = False

    def run(self, connection: sqlite3.Connection) -> None:
        rows: list[tuple[object, ...]] = [
            (
                record.at,
                _storable(record.tenant),
                _storable(record.caller),
                _storable(record.target),
                _storable(record.method),
                "allow" if record.allow else "deny",
                _storable(record.reason),
                record.stream_id,
            )
            for record in self.records
        ]
        for count, values in _chunks(rows):
            connection.execute(
                "INSERT INTO audit_events (ts_unix_ms, tenant, caller, target, method, decision,"
                f" reason, stream_id) VALUES {_values(8, count)}",
                values,
            )
        used: dict[str, list[int]] = {}
        for _, tenant, caller, target, method, _, reason, stream_id in rows:
            texts = (tenant, caller, target, method, reason, stream_id)
            of = used.setdefault(str(tenant), [0, 0])
            of[0] += 1
            of[1] += record_bytes(*map(str, texts))
        add_usage(connection, [(tenant, n, size) for tenant, (n, size) in used.items()])


def _storable(text: str) -> str:
    """What a peer said, without what is no text at all."""
    return text if text.isascii() else text.encode(errors="replace").decode()


@dataclass(slots=True)
class FindAudit(StoreRequest[tuple[AuditRecord, ...]]):
    """Matching records, newest first."""

    wanted: AuditFilter

    writes: ClassVar[bool] = False

    def run(self, connection: sqlite3.Connection) -> tuple[AuditRecord, ...]:
        wanted = self.wanted
        conditions = ["tenant = ?", "ts_unix_ms >= ?"]
        values: list[str | int] = [wanted.tenant, wanted.since_ms]
        for column, value in (("caller", wanted.caller), ("target", wanted.target)):
            if value:
                conditions.append(f"{column} = ?")
                values.append(value)
        limit = min(wanted.limit, MAX_AUDIT_ROWS) if wanted.limit > 0 else MAX_AUDIT_ROWS
        pages = connection.execute(
            "SELECT json_group_array(json_array(ts_unix_ms, rowid, tenant, caller, target, method,"
            " decision, reason, stream_id)) FROM (SELECT *, rowid, row_number() OVER"
            " (ORDER BY ts_unix_ms DESC, rowid DESC) AS place FROM audit_events"
            f" WHERE {' AND '.join(conditions)} ORDER BY place LIMIT ?)"
            f" GROUP BY place / {PAGE_ROWS}",
            (*values, limit),
        )
        rows = [row for (page,) in pages for row in json.loads(page)]
        rows.sort(key=lambda row: (-row[0], -row[1]))
        return tuple(
            AuditRecord(at, tenant, caller, target, method, word == "allow", reason, stream_id)
            for at, _, tenant, caller, target, method, word, reason, stream_id in rows
        )
