"""What the store forgets, so that it does not grow for ever.

Audit records go by age, and, oldest first, by number and size: then it is always the tenant with
the most that loses, so that a flood of one does not push out what others did. `audit_usage` knows
how much each tenant has; it is kept with every append and every removal, in their transactions.
Agents, relays, services of vanished relays and rules that expired go a month later.

Every request removes a small portion, because nothing else is served meanwhile.

Source: protocol sheet ORP 4.3; docs/decisions/0079.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import ClassVar, Final

from actors.control.audit_usage import ROW_BYTES, add_usage, total_usage
from actors.control.store.requests import StoreRequest

#: Rows one request removes at most.
PORTION_ROWS: Final = 500


@dataclass(frozen=True, slots=True)
class Retention:
    """How much is kept; 0: without that limit.

    Attributes:
        seconds: by age.
        rows: records of all tenants.
        size: bytes of all tenants, about.
        forget_seconds: how long agents, relays, services and expired rules are known after they
            are gone.
    """

    seconds: float = 0.0
    rows: int = 0
    size: int = 0
    forget_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Usage:
    """What is there after a removal.

    Attributes:
        rows, size: audit records, and their bytes, about.
        removed: by this request.
        more: there is more to remove.
    """

    rows: int
    size: int
    removed: int
    more: bool


@dataclass(slots=True)
class PruneAudit(StoreRequest[Usage]):
    """Remove a portion of what is beyond the limits. Answer: what is left."""

    limits: Retention
    now_ms: int

    single: ClassVar[bool] = False

    def run(self, connection: sqlite3.Connection) -> Usage:
        removed = self._by_age(connection)
        more = removed == PORTION_ROWS
        if not more:
            removed += self._by_size(connection, PORTION_ROWS - removed)
        rows, size = total_usage(connection)
        more = more or self._excess(rows, size)[0] > 0
        return Usage(rows, size, removed, more)

    def _by_age(self, connection: sqlite3.Connection) -> int:
        if not self.limits.seconds:
            return 0
        before = self.now_ms - int(self.limits.seconds * 1000)
        return _remove(
            connection,
            "SELECT e.rowid FROM audit_usage u CROSS JOIN audit_events e ON e.tenant = u.tenant"
            " AND e.ts_unix_ms < ? LIMIT ?",
            (before, PORTION_ROWS),
        )

    def _by_size(self, connection: sqlite3.Connection, most: int) -> int:
        removed = 0
        while removed < most:
            excess, column = self._excess(*total_usage(connection))
            if not excess:
                break
            heaviest = connection.execute(
                f"SELECT tenant, rows, {column} FROM audit_usage ORDER BY {column} DESC LIMIT 2"
            ).fetchall()
            tenant, rows, used = heaviest[0]
            lead = used - heaviest[1][2] if len(heaviest) > 1 else used
            # Down to the next one's level, and then both in turn.
            portion = min(excess, max(lead, 1 + excess // 2))
            gone = _remove(
                connection,
                "SELECT rowid FROM audit_events WHERE tenant = ? ORDER BY ts_unix_ms LIMIT ?",
                (tenant, min(most - removed, max(1, portion * rows // used))),
            )
            if not gone:
                # Counted, and not there: the count was wrong.
                connection.execute("DELETE FROM audit_usage WHERE tenant = ?", (tenant,))
            removed += gone
        return removed

    def _excess(self, rows: int, size: int) -> tuple[int, str]:
        """How much is too much, and of what column of the usage."""
        limits = self.limits
        if limits.rows and rows > limits.rows:
            return rows - limits.rows, "rows"
        if limits.size and size > limits.size:
            return size - limits.size, "bytes"
        return 0, ""


def _remove(connection: sqlite3.Connection, which: str, values: tuple[str | int, ...]) -> int:
    """Delete the records with these rowids, and count them out."""
    (ids,) = connection.execute(f"SELECT json_group_array(rowid) FROM ({which})", values).fetchone()
    among = "rowid IN (SELECT value FROM json_each(?))"
    used = connection.execute(
        f"SELECT tenant, -count(*), -sum({ROW_BYTES}) FROM audit_events WHERE {among}"
        " GROUP BY tenant",
        (ids,),
    ).fetchall()
    connection.execute(f"DELETE FROM audit_events WHERE {among}", (ids,))
    add_usage(connection, used)
    connection.execute("DELETE FROM audit_usage WHERE rows <= 0")
    return -sum(int(rows) for _, rows, _ in used)


@dataclass(slots=True)
class ForgetGone(StoreRequest[bool]):
    """Forget agents, relays, services of vanished relays, and rules that expired before a time.

    Relays that never said they repeat their announcement are kept with their services.
    Answer: True when rules went.
    """

    before_ms: int

    single: ClassVar[bool] = False

    def run(self, connection: sqlite3.Connection) -> bool:
        values = (self.before_ms,)
        connection.execute(
            "DELETE FROM services WHERE updated_at_unix_ms < ?1 AND NOT EXISTS (SELECT 1 FROM"
            " relay_instances r WHERE r.id = services.relay_id AND (r.heartbeats = 0 OR"
            " r.last_heartbeat_unix_ms >= ?1))",
            values,
        )
        forget_agents_and_relays(connection, self.before_ms)
        rules = connection.execute(
            "DELETE FROM policies WHERE expires_unix_ms > 0 AND expires_unix_ms < ?", values
        )
        return rules.rowcount > 0


def forget_agents_and_relays(connection: sqlite3.Connection, before_ms: int) -> None:
    """Those without services that were not heard of since a time."""
    connection.execute(
        "DELETE FROM relay_instances WHERE last_heartbeat_unix_ms < ?"
        " AND id NOT IN (SELECT relay_id FROM services)",
        (before_ms,),
    )
    connection.execute(
        "DELETE FROM agents WHERE last_seen_unix_ms < ?"
        " AND uri NOT IN (SELECT agent_uri FROM services)",
        (before_ms,),
    )
