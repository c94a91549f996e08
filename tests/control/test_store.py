"""The store actor: group commit, refusals, durability, and its sudden end."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest

from actors.control.backend import (
    AuditFilter,
    Backend,
    BackendUnavailable,
    DuplicateRule,
    FileRules,
    PolicyChanged,
    Registration,
    Relay,
    Withdrawal,
)
from actors.control.messages import AuditRecord
from actors.control.policy.rule import Effect, Rule
from actors.control.store import store as store_module
from actors.control.store.database import open_database
from actors.control.store.requests import (
    AppendAudit,
    DeleteRule,
    DeregisterAgents,
    DeregisterStale,
    FindAudit,
    FindProviders,
    InsertRule,
    KeepFileRules,
    LoadRules,
    RegisterServices,
    StoreRequest,
    UpsertRelay,
    WatchPolicy,
)
from actors.control.store.store import StoreActor
from actors.runtime import (
    Actor,
    ActorDown,
    ActorRef,
    ActorSystem,
    ChildSpec,
    Intensity,
    Supervisor,
    handles,
)
from tests.conftest import eventually, run

RELAY = Relay("r1", "eu", "192.0.2.1:7443")


class Watcher(Actor):
    changes = 0

    @handles(PolicyChanged)
    def _changed(self, message: PolicyChanged) -> None:
        Watcher.changes += 1


@asynccontextmanager
async def store(path: Path) -> AsyncIterator[tuple[ActorSystem, ActorRef, Backend]]:
    system = ActorSystem("test", seed=1)
    await system.start(
        lambda: Supervisor(
            [
                ChildSpec("store", lambda: StoreActor(str(path))),
                ChildSpec("watcher", Watcher),
            ],
            intensity=Intensity(1000, 30.0),
        )
    )
    ref = system.ref("/store")
    assert ref is not None
    try:
        yield system, ref, Backend(ref)
    finally:
        await system.stop()


def registration(uri: str, name: str = "web", at: int = 1, relay: str = "r1") -> Registration:
    return Registration("acme", name, uri, relay, "127.0.0.1:80", at)


def allow(rule_id: str = "") -> Rule:
    return Rule(rule_id, "acme", "*", "web", effect=Effect.ALLOW)


def record(n: int, caller: str = "u1", target: str = "web", tenant: str = "acme") -> AuditRecord:
    return AuditRecord(n, tenant, caller, target, "", n % 2 == 0, f"rule {n}", str(n))


def test_everything_survives_a_reopening(tmp_path: Path) -> None:
    async def write() -> None:
        async with store(tmp_path / "c.db") as (_, _, backend):
            await backend.ask(UpsertRelay(RELAY, 10))
            await backend.ask(RegisterServices([registration("u1")]))
            await backend.ask(InsertRule(allow("p1").as_stored(int(time.time() * 1000))))
            await backend.ask(AppendAudit([record(1)]))

    async def read() -> None:
        async with store(tmp_path / "c.db") as (_, _, backend):
            ((found,),) = await backend.ask(
                FindProviders([("acme", "web")], backend.alive_since(10))
            )
            assert (found.agent_uri, found.relay_id) == ("u1", "r1")
            assert (found.relay_region, found.relay_endpoint) == ("eu", "192.0.2.1:7443")
            assert [rule.id for rule in (await backend.ask(LoadRules())).rules] == ["p1"]
            assert await backend.ask(FindAudit(AuditFilter("acme"))) == (record(1),)

    run(write())
    run(read())


def test_providers(tmp_path: Path) -> None:
    async def main() -> None:
        async with store(tmp_path / "c.db") as (_, _, backend):
            await backend.ask(UpsertRelay(RELAY, 200_000))
            await backend.ask(UpsertRelay(Relay("r2", "us", "192.0.2.2:7443"), 1))
            rows = [registration("u1", at=1), registration("u2", at=3), registration("u3", at=2)]
            assert await backend.ask(RegisterServices(rows)) == ("", "", "")
            await backend.ask(RegisterServices([registration("u4", relay="r2")]))
            await backend.ask(RegisterServices([registration("u5", relay="nobody knows")]))
            names = [("acme", "web"), ("other", "web"), ("acme", "none")]
            web, other, none = await backend.ask(FindProviders(names, backend.alive_since(200_000)))
            assert [row.agent_uri for row in web] == ["u2", "u3", "u1"]  # r2 is silent for long
            assert (other, none) == ((), ())
            # The agent moved: the old relay's withdrawal does not touch the new row.
            await backend.ask(RegisterServices([registration("u1", at=9, relay="r2")]))
            await backend.ask(DeregisterAgents([Withdrawal("acme", "u1", "r1")]))
            await backend.ask(UpsertRelay(Relay("r2", "us", "192.0.2.2:7443"), 200_000))
            ((first, *_),) = await backend.ask(
                FindProviders([("acme", "web")], backend.alive_since(200_000))
            )
            assert (first.agent_uri, first.relay_id) == ("u1", "r2")
            await backend.ask(DeregisterAgents([Withdrawal("acme", "u1", "r2")]))
            assert len(await backend.ask(DeregisterStale("r1", 3))) == 1
            (web,) = await backend.ask(
                FindProviders([("acme", "web")], backend.alive_since(200_000))
            )
            assert {row.agent_uri for row in web} == {"u2", "u4"}

    run(main())


def test_a_repeated_registration_keeps_the_address_the_first_one_told(tmp_path: Path) -> None:
    async def main() -> None:
        async with store(tmp_path / "c.db") as (_, _, backend):
            await backend.ask(UpsertRelay(RELAY, 10))
            await backend.ask(RegisterServices([registration("u1")]))
            await backend.ask(RegisterServices([Registration("acme", "web", "u1", "r1", "", 5)]))
            ((found,),) = await backend.ask(
                FindProviders([("acme", "web")], backend.alive_since(10))
            )
            assert (found.local_address, found.updated_ms) == ("127.0.0.1:80", 5)

    run(main())


def test_a_service_the_database_refuses_does_not_take_the_others_with_it(tmp_path: Path) -> None:
    async def main() -> None:
        async with store(tmp_path / "c.db") as (_, _, backend):
            await backend.ask(UpsertRelay(RELAY, 10))
            # Two different services that give one row id.
            rows = [registration("u1@v", "web"), registration("v", "web@u1"), registration("u2")]
            first, second, third = await backend.ask(RegisterServices(rows))
            assert (first, third) == ("", "")
            assert "UNIQUE" in second
            (found,) = await backend.ask(FindProviders([("acme", "web")], backend.alive_since(10)))
            assert {row.agent_uri for row in found} == {"u1@v", "u2"}

    run(main())


def test_rules_are_ordered_by_creation_also_when_the_clock_steps_back(tmp_path: Path) -> None:
    async def main() -> None:
        async with store(tmp_path / "c.db") as (_system, ref, _):
            backend = Backend(ref)
            for name, now_ms in (("z", 100_000), ("y", 50_000), ("a", 50_000)):
                assert await backend.ask(InsertRule(allow(name).as_stored(now_ms))) == name
            rules = (await backend.ask(LoadRules())).rules
            assert [rule.id for rule in rules] == ["z", "y", "a"]
            assert sorted(rule.created_ms for rule in rules) == [100_000, 100_001, 100_002]

    run(main())


def test_adding_and_removing_rules(tmp_path: Path) -> None:
    async def main() -> None:
        async with store(tmp_path / "c.db") as (system, _, backend):
            Watcher.changes = 0
            watcher = system.ref("/watcher")
            assert watcher is not None
            backend.tell(WatchPolicy(watcher))
            fresh = await backend.ask(InsertRule(allow().as_stored(int(time.time() * 1000))))
            assert len(fresh) == 36
            await backend.ask(InsertRule(allow("p").as_stored(int(time.time() * 1000))))
            with pytest.raises(DuplicateRule, match="'p' exists"):
                await backend.ask(InsertRule(allow("p").as_stored(int(time.time() * 1000))))
            assert not await backend.ask(DeleteRule("other", "p"))
            assert await backend.ask(DeleteRule("acme", "p"))
            assert not await backend.ask(DeleteRule("acme", "p"))
            await eventually(lambda: Watcher.changes == 3)
            system.kill(watcher)
            await eventually(lambda: system.find("/store").actor.describe()["policy_watchers"] == 0)  # type: ignore[union-attr]  # it runs
            await backend.ask(InsertRule(allow().as_stored(int(time.time() * 1000))))

    run(main())


def test_the_store_holds_the_file_rules_and_loses_them_with_itself(tmp_path: Path) -> None:
    async def main() -> None:
        async with store(tmp_path / "c.db") as (system, ref, backend):
            assert (await backend.ask(LoadRules())).file_rules is None
            kept = FileRules((Path("a.toml"),), (allow("f"),))
            backend.tell(KeepFileRules(kept))
            assert (await backend.ask(LoadRules())).file_rules is kept
            system.kill(ref)
            await ref.started(timeout=5)
            assert (await backend.ask(LoadRules())).file_rules is None

    run(main())


def test_audit_queries(tmp_path: Path) -> None:
    async def main() -> None:
        async with store(tmp_path / "c.db") as (_, _, backend):
            await backend.ask(AppendAudit([record(n) for n in range(10)]))
            await backend.ask(AppendAudit([record(3, caller="u2"), record(4, target="db")]))
            await backend.ask(AppendAudit([record(9, tenant="other")]))

            async def found(**more: Any) -> list[int]:
                rows = await backend.ask(FindAudit(AuditFilter("acme", **more)))
                return [row.at for row in rows]

            assert await found() == [9, 8, 7, 6, 5, 4, 4, 3, 3, 2, 1, 0]
            assert await found(since_ms=8) == [9, 8]
            assert await found(limit=2) == [9, 8]
            assert len(await found(limit=0)) == 12
            assert await found(caller="u2") == [3]
            assert await found(target="db") == [4]
            assert await found(caller="u2", target="db") == []

    run(main())


def test_many_requests_at_once_share_commits(tmp_path: Path) -> None:
    async def main() -> None:
        async with store(tmp_path / "c.db") as (system, ref, backend):
            await backend.ask(UpsertRelay(RELAY, 1))
            requests = [UpsertRelay(Relay(f"r{n}", "", "e"), n) for n in range(200)]
            async with asyncio.TaskGroup() as group:
                for request in requests:
                    group.create_task(ref.ask(request, timeout=10))
            cell = system.find("/store")
            assert cell is not None
            assert cell.actor is not None
            commits = cell.actor.describe()["commits"]
            assert isinstance(commits, int)
            assert commits < 100

    run(main())


class Slow(StoreRequest[str]):
    """Takes longer than any test, unless it is interrupted."""

    def run(self, connection: sqlite3.Connection) -> str:
        connection.execute("INSERT INTO agents VALUES ('half', 'acme', 1, NULL)")
        connection.execute(
            "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n)"
            " SELECT count(*) FROM n WHERE x < 1000000000000"
        ).fetchone()
        return "never"


class Broken(StoreRequest[None]):
    """A bug in a request."""

    def run(self, connection: sqlite3.Connection) -> None:
        raise ZeroDivisionError("a bug")


class Vanishing(StoreRequest[None]):
    """Ends the transaction under everybody's feet, as a full disk does."""

    def run(self, connection: sqlite3.Connection) -> None:
        connection.execute("ROLLBACK")
        raise sqlite3.OperationalError("database or disk is full")


class OpenStore(StoreActor):
    """The store, taking requests only tests make."""

    @handles(Slow, Broken, Vanishing)
    def _more(self, request: StoreRequest[object]) -> object:
        return self._request(request)


@asynccontextmanager
async def open_store(path: Path) -> AsyncIterator[tuple[ActorSystem, ActorRef, Backend]]:
    system = ActorSystem("test", seed=1)
    await system.start(
        lambda: Supervisor(
            [ChildSpec("store", lambda: OpenStore(str(path)))], intensity=Intensity(100)
        )
    )
    ref = system.ref("/store")
    assert ref is not None
    try:
        yield system, ref, Backend(ref)
    finally:
        await system.stop()


def _store_threads() -> int:
    return sum(thread.name == "control-store" for thread in threading.enumerate())


def test_killed_in_the_middle_of_a_statement(tmp_path: Path) -> None:
    """Committed stays, the rest is undone, whoever asked knows at once, the thread ends."""

    async def main() -> None:
        async with open_store(tmp_path / "c.db") as (system, ref, backend):
            await backend.ask(UpsertRelay(RELAY, 1))
            await backend.ask(RegisterServices([registration("u1")]))
            asked = [asyncio.create_task(ref.ask(Slow(), timeout=30)) for _ in range(3)]
            asked.append(
                asyncio.create_task(
                    backend.ask(InsertRule(allow("p").as_stored(int(time.time() * 1000))))
                )
            )
            await asyncio.sleep(0.05)
            began = asyncio.get_running_loop().time()
            system.kill(ref)
            done, _ = await asyncio.wait(asked, timeout=5)
            assert asyncio.get_running_loop().time() - began < 1
            assert len(done) == 4
            for task in asked[:3]:
                assert isinstance(task.exception(), ActorDown)
            assert isinstance(asked[3].exception(), BackendUnavailable)
            await ref.started(timeout=10)
            await eventually(lambda: _store_threads() == 1, what="one thread")
            ((found,),) = await backend.ask(
                FindProviders([("acme", "web")], backend.alive_since(1))
            )
            assert found.agent_uri == "u1"
            assert (await backend.ask(LoadRules())).rules == ()
        with closing(open_database(str(tmp_path / "c.db"))) as connection:
            assert connection.execute("SELECT uri FROM agents").fetchall() == [("u1",)]

    run(main())


def test_requests_that_do_not_fit_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "MAX_STORE_REQUESTS", 2)

    async def main() -> None:
        async with open_store(tmp_path / "c.db") as (system, ref, backend):
            slow = [asyncio.create_task(ref.ask(Slow(), timeout=30)) for _ in range(2)]
            await asyncio.sleep(0.02)
            with pytest.raises(BackendUnavailable, match="2 requests are waiting"):
                await backend.ask(UpsertRelay(RELAY, 1))
            system.kill(ref)
            await asyncio.wait(slow)
            assert all(isinstance(task.exception(), ActorDown) for task in slow)
            await ref.started(timeout=5)
            await backend.ask(UpsertRelay(RELAY, 1))

    run(main())


def test_odd_text_is_stored_as_it_is_or_marked(tmp_path: Path) -> None:
    async def main() -> None:
        async with store(tmp_path / "c.db") as (_, _, backend):
            odd = 'nul \0 quote " back \\ line \u2028 smile \U0001f600'
            records = [record(1, target=odd), record(0, target="half \ud800")]
            await backend.ask(AppendAudit(records))
            first, second = await backend.ask(FindAudit(AuditFilter("acme")))
            assert first.target == odd
            assert second.target == "half ?"

    run(main())


def test_many_rows_come_in_and_out_complete(tmp_path: Path) -> None:
    async def main() -> None:
        async with store(tmp_path / "c.db") as (_, _, backend):
            await backend.ask(UpsertRelay(RELAY, 10))
            rows = [registration(f"u{n:03}", at=n) for n in range(250)]
            assert await backend.ask(RegisterServices(rows)) == ("",) * 250
            names = [("acme", f"other{n}") for n in range(120)]
            found = await backend.ask(
                FindProviders([*names, ("acme", "web")], backend.alive_since(10))
            )
            assert found[:-1] == ((),) * 120
            assert [row.updated_ms for row in found[-1]] == list(range(249, -1, -1))
            await backend.ask(
                DeregisterAgents([Withdrawal("acme", f"u{n:03}", "r1") for n in range(240)])
            )
            (left,) = await backend.ask(FindProviders([("acme", "web")], backend.alive_since(10)))
            assert [row.agent_uri for row in left] == [f"u{n}" for n in range(249, 239, -1)]
            for n in range(1203):
                await backend.ask(InsertRule(allow(f"p{n}").as_stored(int(time.time() * 1000))))
            rules = (await backend.ask(LoadRules())).rules
            assert [rule.id for rule in rules] == [f"p{n}" for n in range(1203)]
            for start in range(0, 1200, 200):
                await backend.ask(AppendAudit([record(n) for n in range(start, start + 200)]))
            everything = await backend.ask(FindAudit(AuditFilter("acme", limit=0)))
            assert [each.at for each in everything] == list(range(1199, -1, -1))

    run(main())


def test_a_bug_in_a_request_crashes_the_store_and_harms_no_other_request(tmp_path: Path) -> None:
    async def main() -> None:
        async with open_store(tmp_path / "c.db") as (system, ref, backend):
            tasks = [
                asyncio.create_task(backend.ask(UpsertRelay(RELAY, 1))),
                asyncio.create_task(ref.ask(Broken(), timeout=5)),
                asyncio.create_task(backend.ask(RegisterServices([registration("u1")]))),
            ]
            await asyncio.wait(tasks, timeout=5)
            assert isinstance(tasks[1].exception(), ActorDown)
            await ref.started(timeout=5)
            assert tasks[0].exception() is None
            await backend.ask(RegisterServices([registration("u2")]))
            assert (
                len(
                    (await backend.ask(FindProviders([("acme", "web")], backend.alive_since(1))))[0]
                )
                >= 1
            )
            (exited,) = [e for e in system.events.history if "ZeroDivision" in str(e.fields)][:1]
            assert "a bug" in str(exited.fields)

    run(main())


def test_a_lost_transaction_fails_everybody_in_it_and_nobody_after_it(tmp_path: Path) -> None:
    async def main() -> None:
        async with open_store(tmp_path / "c.db") as (_, ref, backend):
            tasks = [
                asyncio.create_task(backend.ask(UpsertRelay(RELAY, 1))),
                asyncio.create_task(ref.ask(Vanishing(), timeout=5)),
                asyncio.create_task(backend.ask(UpsertRelay(RELAY, 2))),
            ]
            await asyncio.wait(tasks, timeout=5)
            # Requests of the same transaction may fail with it, but none is left unanswered.
            errors = [task.exception() for task in tasks]
            assert "disk is full" in str(errors[1])
            assert all(error is None or "disk is full" in str(error) for error in errors)
            await backend.ask(UpsertRelay(RELAY, 3))
            await backend.ask(RegisterServices([registration("u1")]))
            assert (
                len(
                    (await backend.ask(FindProviders([("acme", "web")], backend.alive_since(3))))[0]
                )
                == 1
            )

    run(main())


def test_a_locked_database_is_waited_for(tmp_path: Path) -> None:
    async def main() -> None:
        async with store(tmp_path / "c.db") as (_, ref, backend):
            await backend.ask(UpsertRelay(RELAY, 1))
            with closing(sqlite3.connect(tmp_path / "c.db", isolation_level=None)) as other:
                other.execute("BEGIN IMMEDIATE")
                waiting = asyncio.create_task(backend.ask(RegisterServices([registration("u1")])))
                await asyncio.sleep(0.05)
                assert not waiting.done()
                other.execute("COMMIT")
                await waiting
            ((found,),) = await ref.ask(FindProviders([("acme", "web")]), timeout=5)
            assert found.agent_uri == "u1"

    run(main())


def test_an_unusable_database_says_which_and_why(tmp_path: Path) -> None:
    path = tmp_path / "c.db"
    path.write_bytes(b"not a database, not a database, not a database, not a database" * 40)
    path.chmod(0o600)

    async def main() -> None:
        system = ActorSystem("test", seed=1)
        with pytest.raises(ActorDown):
            await system.start(
                lambda: Supervisor(
                    [ChildSpec("store", lambda: StoreActor(str(path)))], intensity=Intensity(0)
                )
            )
        await system.stop()
        told = [str(e.fields) for e in system.events.history if e.path == "/store"]
        assert any("c.db" in text and "not a database" in text for text in told), told

    run(main())
