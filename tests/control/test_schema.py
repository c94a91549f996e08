"""The store's tables: new, from a reference controller, from before a column, from the future."""

from __future__ import annotations

import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from actors.control.store.database import open_database
from actors.control.store.schema import VERSION, SchemaError, migrate

#: As a reference controller from before p2p_mode and relay_mode wrote it.
OLD = """
CREATE TABLE agents (uri TEXT PRIMARY KEY, tenant TEXT NOT NULL,
    last_seen_unix_ms INTEGER NOT NULL, metadata TEXT);
CREATE TABLE services (id TEXT PRIMARY KEY, tenant TEXT NOT NULL, name TEXT NOT NULL,
    agent_uri TEXT NOT NULL, relay_id TEXT NOT NULL, local_addr TEXT,
    health TEXT NOT NULL DEFAULT 'healthy', updated_at_unix_ms INTEGER NOT NULL,
    UNIQUE (tenant, name));
CREATE INDEX some_index ON services (tenant, agent_uri);
CREATE TABLE relay_instances (id TEXT PRIMARY KEY, region TEXT, endpoint TEXT NOT NULL,
    last_heartbeat_unix_ms INTEGER NOT NULL);
CREATE TABLE policies (id TEXT PRIMARY KEY, tenant TEXT NOT NULL, caller_pattern TEXT NOT NULL,
    target_pattern TEXT NOT NULL, method_pattern TEXT NOT NULL DEFAULT '',
    decision TEXT NOT NULL CHECK (decision IN ('allow', 'deny')),
    expires_unix_ms INTEGER NOT NULL DEFAULT 0, created_at_unix_ms INTEGER NOT NULL);
CREATE TABLE audit_events (ts_unix_ms INTEGER NOT NULL, tenant TEXT NOT NULL,
    caller TEXT NOT NULL, target TEXT NOT NULL, method TEXT NOT NULL DEFAULT '',
    decision TEXT NOT NULL, reason TEXT NOT NULL DEFAULT '', stream_id TEXT NOT NULL DEFAULT '');
INSERT INTO agents VALUES ('u1', 'acme', 5, NULL);
INSERT INTO services VALUES ('acme/web', 'acme', 'web', 'u1', 'r9', NULL, 'healthy', 7);
INSERT INTO relay_instances VALUES ('r9', NULL, '192.0.2.1:7443', 6);
INSERT INTO policies VALUES ('p1', 'acme', '*', 'web', '', 'allow', 0, 1);
INSERT INTO audit_events VALUES (1, 'acme', 'u1', 'web', '', 'allow', 'p1', '');
"""


@contextmanager
def database(path: Path) -> Iterator[sqlite3.Connection]:
    with closing(open_database(str(path))) as connection:
        yield connection


def columns(connection: sqlite3.Connection, table: str) -> list[tuple[str, str, int, object]]:
    return [tuple(row[1:5]) for row in connection.execute(f"PRAGMA table_info({table})")]


def make_old(path: Path, more: str = "") -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(OLD + more)


def test_a_new_database_has_the_tables_of_the_sheet(tmp_path: Path) -> None:
    with database(tmp_path / "new.db") as connection:
        assert {table: columns(connection, table) for table in _SHEET} == _SHEET
        assert connection.execute("PRAGMA user_version").fetchone() == (VERSION,)
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert connection.execute("PRAGMA synchronous").fetchone() == (1,)
        assert connection.execute("PRAGMA foreign_keys").fetchone() == (1,)
        assert connection.execute("PRAGMA busy_timeout").fetchone() == (2000,)


TEXT, INT = "TEXT", "INTEGER"
_SHEET: dict[str, list[tuple[str, str, int, object]]] = {
    "agents": [
        ("uri", TEXT, 1, None),
        ("tenant", TEXT, 1, None),
        ("last_seen_unix_ms", INT, 1, None),
        ("metadata", TEXT, 0, None),
    ],
    "services": [
        ("id", TEXT, 1, None),
        ("tenant", TEXT, 1, None),
        ("name", TEXT, 1, None),
        ("agent_uri", TEXT, 1, None),
        ("relay_id", TEXT, 1, None),
        ("local_addr", TEXT, 0, None),
        ("health", TEXT, 1, "'healthy'"),
        ("updated_at_unix_ms", INT, 1, None),
    ],
    "relay_instances": [
        ("id", TEXT, 1, None),
        ("region", TEXT, 0, None),
        ("endpoint", TEXT, 1, None),
        ("last_heartbeat_unix_ms", INT, 1, None),
        ("heartbeats", INT, 1, "0"),
    ],
    "policies": [
        ("id", TEXT, 1, None),
        ("tenant", TEXT, 1, None),
        ("caller_pattern", TEXT, 1, None),
        ("target_pattern", TEXT, 1, None),
        ("method_pattern", TEXT, 1, "''"),
        ("decision", TEXT, 1, None),
        ("expires_unix_ms", INT, 1, "0"),
        ("created_at_unix_ms", INT, 1, None),
        ("p2p_mode", TEXT, 1, "'allowed'"),
        ("relay_mode", TEXT, 1, "'splice'"),
    ],
    "audit_events": [
        ("ts_unix_ms", INT, 1, None),
        ("tenant", TEXT, 1, None),
        ("caller", TEXT, 1, None),
        ("target", TEXT, 1, None),
        ("method", TEXT, 1, "''"),
        ("decision", TEXT, 1, None),
        ("reason", TEXT, 1, "''"),
        ("stream_id", TEXT, 1, "''"),
    ],
}


@pytest.mark.parametrize(
    "column, value",
    [("decision", "perhaps"), ("p2p_mode", "never"), ("relay_mode", "carrier pigeon")],
)
@pytest.mark.parametrize("old", [False, True])
def test_words_are_checked(tmp_path: Path, column: str, value: str, *, old: bool) -> None:
    if old:
        make_old(tmp_path / "c.db")
    with database(tmp_path / "c.db") as connection:
        values = {"decision": "allow", "p2p_mode": "allowed", "relay_mode": "splice", column: value}
        with pytest.raises(sqlite3.IntegrityError, match="CHECK"):
            connection.execute(
                "INSERT INTO policies (id, tenant, caller_pattern, target_pattern,"
                " created_at_unix_ms, decision, p2p_mode, relay_mode)"
                " VALUES ('x', 't', '*', '*', 1, :decision, :p2p_mode, :relay_mode)",
                values,
            )


def test_the_file_is_for_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "new.db"
    with database(path) as connection:
        connection.execute("INSERT INTO agents VALUES ('u', 't', 1, NULL)")
        for file in tmp_path.iterdir():
            assert stat.S_IMODE(file.stat().st_mode) == 0o600, file


def test_opening_again_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "c.db"
    with database(path) as connection:
        connection.execute("INSERT INTO agents VALUES ('u', 't', 1, NULL)")
        assert migrate(connection, "c") == VERSION
    with database(path) as connection:
        assert connection.execute("SELECT count(*) FROM agents").fetchone() == (1,)


def test_a_database_from_before_relay_mode_is_migrated_with_its_rows(tmp_path: Path) -> None:
    path = tmp_path / "old.db"
    make_old(path)
    with database(path) as connection:
        assert {t: {c[0] for c in columns(connection, t)} for t in _SHEET} == {
            t: {c[0] for c in shape} for t, shape in _SHEET.items()
        }
        assert connection.execute("SELECT * FROM services").fetchall() == [
            ("acme/web@u1", "acme", "web", "u1", "r9", None, "healthy", 7)
        ]
        assert connection.execute(
            "SELECT id, decision, p2p_mode, relay_mode FROM policies"
        ).fetchall() == [("p1", "allow", "allowed", "splice")]
        for table in ("agents", "relay_instances", "audit_events"):
            assert connection.execute(f"SELECT count(*) FROM {table}").fetchone() == (1,)
        # Several agents may provide one name now, one agent only once.
        again = (
            "INSERT INTO services (id, tenant, name, agent_uri, relay_id, updated_at_unix_ms)"
            " VALUES (?, 'acme', 'web', ?, 'r9', 8)"
        )
        connection.execute(again, ("x", "u2"))
        with pytest.raises(sqlite3.IntegrityError, match="UNIQUE"):
            connection.execute(again, ("y", "u1"))


def test_a_database_that_has_the_modes_already(tmp_path: Path) -> None:
    path = tmp_path / "old.db"
    make_old(
        path,
        "ALTER TABLE policies ADD COLUMN p2p_mode TEXT NOT NULL DEFAULT 'forbidden';"
        "ALTER TABLE policies ADD COLUMN relay_mode TEXT NOT NULL DEFAULT 'forward';",
    )
    with database(path) as connection:
        assert connection.execute("SELECT p2p_mode, relay_mode FROM policies").fetchall() == [
            ("forbidden", "forward")
        ]


def test_a_newer_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "future.db"
    with database(path) as connection:
        connection.execute(f"PRAGMA user_version = {VERSION + 1}")
    with pytest.raises(SchemaError, match=rf"future\.db: schema version {VERSION + 1} is newer"):
        open_database(str(path))
    with closing(sqlite3.connect(path)) as raw:
        assert raw.execute("PRAGMA user_version").fetchone() == (VERSION + 1,)


def test_a_migration_that_does_not_fit_leaves_the_database_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "odd.db"
    with closing(sqlite3.connect(path)) as raw:
        raw.executescript("CREATE TABLE services (something TEXT);")
    with pytest.raises(SchemaError, match=r"odd\.db: cannot migrate from schema version 0"):
        open_database(str(path))
    with closing(sqlite3.connect(path)) as raw:
        assert raw.execute("SELECT name FROM sqlite_master").fetchall() == [("services",)]
        assert raw.execute("PRAGMA user_version").fetchone() == (0,)


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    path = tmp_path / "c.db"
    path.write_bytes(b"this is not a database at all, but long enough to look like one" * 20)
    with pytest.raises(sqlite3.DatabaseError, match="not a database"):
        open_database(str(path))
    with pytest.raises(FileNotFoundError):
        open_database(str(tmp_path / "missing" / "c.db"))
