"""Tables of the embedded store, and how a database of any earlier shape gets there.

`PRAGMA user_version` counts the migrations. 0 is an empty file or the database of a reference
controller, which never counts; such a database may lack the columns that came later. Columns,
names and constraints are those of the sheet, with one difference: services are unique per
(tenant, name, agent_uri) instead of (tenant, name), see docs/decisions/0020; relays have a column
that tells whether they repeat their announcement; and `audit_usage` is ours (docs/decisions/0079).

Migrations run in one transaction: a crash leaves the database as it was. A database that is newer
than this program is refused, because an older program would write wrong rows.

Source: protocol sheet ORP 4.3.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

from actors.control.audit_usage import count_all

_AGENTS = """
CREATE TABLE IF NOT EXISTS agents (
    uri               TEXT NOT NULL PRIMARY KEY,
    tenant            TEXT NOT NULL,
    last_seen_unix_ms INTEGER NOT NULL,
    metadata          TEXT
)
"""
_SERVICES = """
CREATE TABLE IF NOT EXISTS services (
    id                 TEXT NOT NULL PRIMARY KEY,
    tenant             TEXT NOT NULL,
    name               TEXT NOT NULL,
    agent_uri          TEXT NOT NULL,
    relay_id           TEXT NOT NULL,
    local_addr         TEXT,
    health             TEXT NOT NULL DEFAULT 'healthy',
    updated_at_unix_ms INTEGER NOT NULL,
    UNIQUE (tenant, name{more})
)
"""
_RELAYS = """
CREATE TABLE IF NOT EXISTS relay_instances (
    id                     TEXT NOT NULL PRIMARY KEY,
    region                 TEXT,
    endpoint               TEXT NOT NULL,
    last_heartbeat_unix_ms INTEGER NOT NULL
)
"""
_P2P_MODE = (
    "p2p_mode TEXT NOT NULL DEFAULT 'allowed'"
    " CHECK (p2p_mode IN ('allowed', 'forbidden', 'required'))"
)
_RELAY_MODE = (
    "relay_mode TEXT NOT NULL DEFAULT 'splice' CHECK (relay_mode IN ('splice', 'forward'))"
)
_POLICIES = f"""
CREATE TABLE IF NOT EXISTS policies (
    id                 TEXT NOT NULL PRIMARY KEY,
    tenant             TEXT NOT NULL,
    caller_pattern     TEXT NOT NULL,
    target_pattern     TEXT NOT NULL,
    method_pattern     TEXT NOT NULL DEFAULT '',
    decision           TEXT NOT NULL CHECK (decision IN ('allow', 'deny')),
    expires_unix_ms    INTEGER NOT NULL DEFAULT 0,
    created_at_unix_ms INTEGER NOT NULL,
    {_P2P_MODE},
    {_RELAY_MODE}
)
"""
_AUDIT = """
CREATE TABLE IF NOT EXISTS audit_events (
    ts_unix_ms INTEGER NOT NULL,
    tenant     TEXT NOT NULL,
    caller     TEXT NOT NULL,
    target     TEXT NOT NULL,
    method     TEXT NOT NULL DEFAULT '',
    decision   TEXT NOT NULL,
    reason     TEXT NOT NULL DEFAULT '',
    stream_id  TEXT NOT NULL DEFAULT ''
)
"""
_USAGE = """
CREATE TABLE audit_usage (
    tenant TEXT NOT NULL PRIMARY KEY,
    rows   INTEGER NOT NULL,
    bytes  INTEGER NOT NULL
) WITHOUT ROWID
"""
_INDEXES = (
    "CREATE INDEX IF NOT EXISTS agents_tenant ON agents (tenant)",
    "CREATE INDEX IF NOT EXISTS services_agent ON services (tenant, agent_uri)",
    "CREATE INDEX IF NOT EXISTS services_relay ON services (relay_id)",
    "CREATE INDEX IF NOT EXISTS policies_tenant ON policies (tenant)",
    "CREATE INDEX IF NOT EXISTS audit_caller ON audit_events (tenant, caller, ts_unix_ms)",
    "CREATE INDEX IF NOT EXISTS audit_target ON audit_events (tenant, target, ts_unix_ms)",
)


class SchemaError(Exception):
    """The database cannot be used by this program; the text says why."""


def _sheet(connection: sqlite3.Connection) -> None:
    """0 -> 1: the tables of the sheet; columns an older reference controller did not have."""
    for statement in (_AGENTS, _SERVICES.format(more=""), _RELAYS, _POLICIES, _AUDIT, *_INDEXES):
        connection.execute(statement)
    present = {str(row[1]) for row in connection.execute("PRAGMA table_info(policies)")}
    for name, definition in (
        ("method_pattern", "method_pattern TEXT NOT NULL DEFAULT ''"),
        ("p2p_mode", _P2P_MODE),
        ("relay_mode", _RELAY_MODE),
    ):
        if name not in present:
            connection.execute(f"ALTER TABLE policies ADD COLUMN {definition}")


def _several_providers(connection: sqlite3.Connection) -> None:
    """1 -> 2: one row per (tenant, name, agent_uri), the id made of the same three."""
    connection.execute("ALTER TABLE services RENAME TO services_before_2")
    connection.execute(_SERVICES.format(more=", agent_uri"))
    connection.execute(
        "INSERT INTO services (id, tenant, name, agent_uri, relay_id, local_addr, health,"
        " updated_at_unix_ms) SELECT tenant || '/' || name || '@' || agent_uri, tenant, name,"
        " agent_uri, relay_id, local_addr, health, updated_at_unix_ms FROM services_before_2"
    )
    connection.execute("DROP TABLE services_before_2")  # and with it its indexes
    for statement in _INDEXES:
        connection.execute(statement)


def _heartbeats(connection: sqlite3.Connection) -> None:
    """2 -> 3: whether a relay repeats its announcement. One of a reference relay does not."""
    connection.execute(
        "ALTER TABLE relay_instances ADD COLUMN heartbeats INTEGER NOT NULL DEFAULT 0"
    )


def _audit_usage(connection: sqlite3.Connection) -> None:
    """3 -> 4: how much audit each tenant has, and its records by age."""
    connection.execute(_USAGE)
    connection.execute("CREATE INDEX IF NOT EXISTS audit_time ON audit_events (tenant, ts_unix_ms)")
    count_all(connection)


#: Migration n turns user_version n into n + 1.
MIGRATIONS: tuple[Callable[[sqlite3.Connection], None], ...] = (
    _sheet,
    _several_providers,
    _heartbeats,
    _audit_usage,
)
VERSION = len(MIGRATIONS)


def migrate(connection: sqlite3.Connection, name: str) -> int:
    """Bring the database (in autocommit mode) to `VERSION`. Answer: the version it had.

    Raises:
        SchemaError: it is newer than this program, or a migration does not fit it.
        sqlite3.Error: it cannot be read or written.
    """
    found = _version(connection, name)
    if found == VERSION:
        return found
    connection.execute("BEGIN IMMEDIATE")
    try:
        found = _version(connection, name)  # another process may have been faster
        for number in range(found, VERSION):
            MIGRATIONS[number](connection)
        connection.execute(f"PRAGMA user_version = {VERSION}")
        connection.execute("COMMIT")
    except (sqlite3.Error, SchemaError) as exc:
        if connection.in_transaction:  # some errors end it by themselves
            connection.execute("ROLLBACK")
        if isinstance(exc, SchemaError):
            raise
        if isinstance(exc, sqlite3.OperationalError) and "locked" in str(exc):
            raise
        raise SchemaError(f"{name}: cannot migrate from schema version {found}: {exc}") from exc
    return found


def _version(connection: sqlite3.Connection, name: str) -> int:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if not 0 <= version <= VERSION:
        raise SchemaError(
            f"{name}: schema version {version} is newer than the {VERSION} this program knows; "
            "use a newer program or another file"
        )
    return int(version)
