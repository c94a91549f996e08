"""What the store forgets: by age and size, the tenant with the most first, never all at once."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.control.audit_usage import ROW_BYTES
from actors.control.backend import AuditFilter, Backend, Registration, Relay
from actors.control.messages import AuditRecord
from actors.control.policy.rule import Effect, Rule
from actors.control.retention import PORTION_ROWS, ForgetGone, PruneAudit, Retention, Usage
from actors.control.store.database import IN_MEMORY, open_database
from actors.control.store.requests import (
    AppendAudit,
    FindAudit,
    InsertRule,
    RegisterServices,
    UpsertRelay,
)
from actors.control.store.store import StoreActor
from actors.observe.meters import Meters
from actors.runtime import ActorSystem, ChildSpec, Supervisor
from tests.conftest import eventually, run

DAY_MS = 86_400_000
NOW_MS = 1000 * DAY_MS
FOREVER = Retention(0, 0, 0)


def record(at: int, tenant: str = "acme", *, text: str = "rule") -> AuditRecord:
    return AuditRecord(at, tenant, "u1", "web", "", True, text, str(at))


@pytest.fixture
def connection() -> Iterator[sqlite3.Connection]:
    opened = open_database(IN_MEMORY)
    yield opened
    opened.close()


def append(connection: sqlite3.Connection, records: Sequence[AuditRecord]) -> None:
    AppendAudit(records).run(connection)


def prune(connection: sqlite3.Connection, limits: Retention) -> Usage:
    """Until nothing more is to go; see that no portion is large."""
    while True:
        before = sum(left(connection).values())
        usage = PruneAudit(limits, NOW_MS).run(connection)
        assert before - sum(left(connection).values()) == usage.removed <= PORTION_ROWS
        check_usage(connection)
        if not usage.more:
            return usage


def left(connection: sqlite3.Connection) -> Counter[str]:
    rows = connection.execute("SELECT tenant, count(*) FROM audit_events GROUP BY tenant")
    return Counter(dict(rows.fetchall()))


def check_usage(connection: sqlite3.Connection) -> None:
    counted = connection.execute("SELECT tenant, rows, bytes FROM audit_usage").fetchall()
    there = connection.execute(
        f"SELECT tenant, count(*), sum({ROW_BYTES}) FROM audit_events GROUP BY tenant"
    ).fetchall()
    assert sorted(counted) == sorted(there)


def test_old_records_go(connection: sqlite3.Connection) -> None:
    append(connection, [record(NOW_MS - n * DAY_MS) for n in range(100)])
    append(connection, [record(NOW_MS - n * DAY_MS, "other") for n in range(0, 2000, 2)])
    usage = prune(connection, Retention(90 * 86_400, 0, 0))
    assert left(connection) == {"acme": 91, "other": 46}
    assert usage.rows == 137
    assert prune(connection, FOREVER).rows == 137


def test_a_flood_of_one_tenant_pushes_out_its_own_records(connection: sqlite3.Connection) -> None:
    append(connection, [record(n, "small") for n in range(40)])
    append(connection, [record(n, "middle") for n in range(300)])
    append(connection, [record(1000 + n, "flood") for n in range(5000)])
    prune(connection, Retention(0, 1000, 0))
    assert left(connection) == {"small": 40, "middle": 300, "flood": 660}
    (oldest,) = connection.execute(
        "SELECT min(ts_unix_ms) FROM audit_events WHERE tenant = 'flood'"
    ).fetchone()
    assert oldest == 1000 + 5000 - 660
    # Two that have as much lose as much.
    append(connection, [record(n, "middle") for n in range(1000)])
    prune(connection, Retention(0, 400, 0))
    remaining = left(connection)
    assert remaining["small"] == 40
    assert sum(remaining.values()) == 400
    assert abs(remaining["middle"] - remaining["flood"]) <= 2


def test_long_texts_count_by_their_size(connection: sqlite3.Connection) -> None:
    append(connection, [record(n, "short") for n in range(1000)])
    append(connection, [record(n, "long", text="x" * 20_000) for n in range(200)])
    usage = prune(connection, Retention(0, 0, 1_000_000))
    assert usage.size <= 1_000_000
    assert left(connection)["short"] == 1000
    assert 0 < left(connection)["long"] < 50


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["a", "b", "c", "\u00fc\u0000x"]),
            st.text(max_size=30),
            st.integers(0, 200),
        ),
        max_size=60,
    ),
    st.integers(0, 100),
    st.integers(0, 20_000),
    st.integers(0, 200),
)
def test_the_count_is_always_right(
    events: list[tuple[str, str, int]], rows: int, size: int, days: int
) -> None:
    connection = open_database(IN_MEMORY)
    try:
        limits = Retention(days * 86_400, rows, size)
        append(connection, [record(NOW_MS - age * DAY_MS, t, text=x) for t, x, age in events])
        check_usage(connection)
        usage = prune(connection, limits)
        assert usage.rows == sum(left(connection).values())
        assert not rows or usage.rows <= rows
        assert not size or usage.size <= size
    finally:
        connection.close()


def test_what_is_long_gone_is_forgotten(connection: sqlite3.Connection) -> None:
    old, new = 1, 900 * DAY_MS
    UpsertRelay(Relay("dead", "", "a:1"), old).run(connection)
    UpsertRelay(Relay("alive", "", "a:2"), new).run(connection)
    UpsertRelay(Relay("silent", "", "a:3"), old, heartbeats=False).run(connection)
    services = [
        Registration("acme", f"s-{relay}", f"u-{relay}", relay, "", old)
        for relay in ("dead", "alive", "silent", "unknown")
    ]
    RegisterServices(services).run(connection)
    for rule_id, expires in (("expired", old), ("later", NOW_MS), ("never", 0)):
        rule = Rule(rule_id, "acme", "*", "*", effect=Effect.ALLOW, expires_ms=expires)
        InsertRule(rule).run(connection)
    assert ForgetGone(500 * DAY_MS).run(connection)

    def column(query: str) -> set[str]:
        return {row[0] for row in connection.execute(query)}

    assert column("SELECT relay_id FROM services") == {"alive", "silent"}
    assert column("SELECT id FROM relay_instances") == {"alive", "silent"}
    assert column("SELECT uri FROM agents") == {"u-alive", "u-silent"}
    assert column("SELECT id FROM policies") == {"later", "never"}
    assert not ForgetGone(500 * DAY_MS).run(connection)


def test_a_database_of_before_is_counted(tmp_path: Path) -> None:
    path = str(tmp_path / "c.db")
    opened = open_database(path)
    append(opened, [record(n, f"t{n % 3}") for n in range(100)])
    opened.execute("DROP TABLE audit_usage")
    opened.execute("DROP INDEX audit_time")
    opened.execute("PRAGMA user_version = 3")
    opened.close()
    again = open_database(path)
    check_usage(again)
    assert sum(left(again).values()) == 100
    again.close()


@asynccontextmanager
async def store(
    path: Path, limits: Retention, meters: Meters
) -> AsyncIterator[tuple[ActorSystem, Backend]]:
    system = ActorSystem("test", seed=1)

    def actor() -> StoreActor:
        return StoreActor(
            str(path), retention=limits, meters=meters, wall_clock=lambda: NOW_MS / 1000
        )

    await system.start(lambda: Supervisor([ChildSpec("store", actor)]))
    ref = system.ref("/store")
    assert ref is not None
    yield system, Backend(ref, relay_alive_seconds=0)
    await system.stop()


def test_the_store_stays_small_under_a_flood(tmp_path: Path) -> None:
    """20 000 records of one tenant: the file is bounded, the other tenant's record is there."""

    async def main() -> None:
        meters = Meters()
        path = tmp_path / "c.db"
        async with store(path, Retention(0, 1000, 0), meters) as (_, backend):
            await backend.ask(AppendAudit([record(1, "small")]))
            largest = 0
            for portion in range(100):
                at = NOW_MS + portion * 200
                await backend.ask(AppendAudit([record(at + n, "flood") for n in range(200)]))
                largest = max(largest, int(meters.gauges["store_file_bytes"]()))
            await eventually(lambda: meters.gauges["audit_kept_records"]() == 1000)
            assert len(await backend.ask(FindAudit(AuditFilter("small", limit=0)))) == 1
            assert len(await backend.ask(FindAudit(AuditFilter("flood", limit=0)))) == 999
            assert meters.counters["audit_pruned_total"] == 19_001
            assert meters.gauges["audit_kept_bytes"]() < 1000 * 400
            assert largest < 10_000_000

    run(main())


def test_what_is_too_old_goes_at_the_start(tmp_path: Path) -> None:
    async def main(limits: Retention, records: int) -> None:
        meters = Meters()
        async with store(tmp_path / "c.db", limits, meters) as (_, backend):
            if not records:
                await backend.ask(AppendAudit([record(NOW_MS - n * DAY_MS) for n in range(1500)]))
                return
            await eventually(lambda: meters.gauges["audit_kept_records"]() == records)
            assert len(await backend.ask(FindAudit(AuditFilter("acme", limit=0)))) == records

    run(main(FOREVER, 0))
    run(main(Retention(90 * 86_400, 0, 0), 91))
