"""The audit actor: stored at least once or counted as lost, and nobody ever waits for it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TypeVar

import pytest

from actors.control.audit import AuditActor
from actors.control.backend import AuditFilter, Backend, BackendSpec, BackendUnavailable
from actors.control.messages import AuditRecord, Decide, Unavailable
from actors.control.operator_messages import QueryAudit
from actors.control.store.embedded import embedded_backend
from actors.control.store.requests import AppendAudit
from actors.runtime import (
    Actor,
    ActorRef,
    ActorSystem,
    ChildSpec,
    Intensity,
    ReplyError,
    Request,
    Supervisor,
)
from tests.conftest import eventually, run
from tests.control.rig import Rig, running

R = TypeVar("R")


def record(n: int) -> AuditRecord:
    return AuditRecord(n, "acme", "u1", "web", "", True, "rule", str(n))


async def found(audit: ActorRef) -> list[str]:
    query = QueryAudit(AuditFilter("acme", limit=0))
    return [each.stream_id for each in await audit.ask_again(query, timeout=5)]


def lost(system: ActorSystem) -> int:
    letters = system.dead_letters.by_type
    return sum(count for (name, _), count in letters.items() if name == "AuditRecord")


def test_each_decision_is_recorded_with_what_was_decided() -> None:
    async def main() -> None:
        async with running() as rig:
            await rig.policy.ask(Decide("acme", "u1", "web", "get", 7), timeout=5)
            await rig.policy.ask(Decide("acme", "u2", "u1"), timeout=5)
            await rig.policy.ask(Decide("other", "u3", "web"), timeout=5)
            query = QueryAudit(AuditFilter("acme"))
            second, first = await rig.audit.ask(query, timeout=5)
            assert (first.caller, first.target, first.method) == ("u1", "web", "get")
            assert (first.allow, first.reason, first.stream_id) == (False, "no matching rule", "7")
            assert (second.caller, second.stream_id) == ("u2", "")

    run(main())


def test_a_query_sees_everything_told_before_it() -> None:
    async def main() -> None:
        async with running() as rig:
            for n in range(1000):
                rig.audit.tell(record(n))
            assert sorted(map(int, await found(rig.audit))) == list(range(1000))
            assert rig.describe("audit")["stored"] == 1000

    run(main())


def test_records_reach_the_store_by_themselves() -> None:
    async def main() -> None:
        async with running() as rig:
            rig.audit.tell(record(1))
            await eventually(lambda: rig.describe("audit")["stored"] == 1)

    run(main())


def test_a_stop_stores_what_is_left(tmp_path: Path) -> None:
    async def main() -> None:
        async with running(tmp_path / "c.db") as rig:
            for n in range(700):
                rig.audit.tell(record(n))
            await asyncio.sleep(0)

    async def again() -> None:
        async with running(tmp_path / "c.db") as rig:
            assert len(await found(rig.audit)) == 700

    run(main())
    run(again())


@pytest.mark.parametrize("name", ["audit", "policy", "registry", "store"])
@pytest.mark.parametrize("verb", ["kill", "crash"])
def test_no_record_is_lost_when_an_actor_dies(tmp_path: Path, name: str, verb: str) -> None:
    async def main() -> None:
        async with running(tmp_path / "c.db") as rig:
            for n in range(600):
                rig.audit.tell(record(n))
                if n % 100 == 50:
                    await asyncio.sleep(0)
                    getattr(rig.system, verb)(rig.ref(f"/control/{name}"))
                if n % 37 == 0:
                    await asyncio.sleep(0)
            await rig.audit.started(timeout=5)
            await eventually(lambda: rig.describe("audit")["queued"] == 0)
            stored = await found(rig.audit)
            assert lost(rig.system) == 0
            assert set(map(int, stored)) == set(range(600))

    run(main())


class Broken(Backend):
    """A store that takes no records for a while."""

    broken = False
    attempts = 0

    async def ask(self, request: Request[R]) -> R:
        if Broken.broken:
            Broken.attempts += isinstance(request, AppendAudit)
            raise BackendUnavailable("disk full")
        return await super().ask(request)


def broken() -> BackendSpec:
    Broken.broken, Broken.attempts = True, 0

    def connect(actor: Actor) -> Broken:
        store = actor.system.ref(actor.path.rpartition("/")[0] + "/store")
        assert store is not None
        return Broken(store)

    return BackendSpec(embedded_backend(":memory:").children, connect)


async def audit_only(queue: int, attempts: int) -> tuple[ActorSystem, ActorRef]:
    backend = broken()
    system = ActorSystem("test", seed=1)

    def audit() -> AuditActor:
        return AuditActor(backend.connect, queue=queue, attempts=attempts, pause=0.01)

    def root() -> Supervisor:
        children = [*backend.children, ChildSpec("audit", audit, mailbox="keep")]
        return Supervisor(children, intensity=Intensity(100, 30.0))

    await system.start(root)
    ref = system.ref("/audit")
    assert ref is not None
    return system, ref


def test_a_failing_store_is_asked_again() -> None:
    async def main() -> None:
        system, audit = await audit_only(queue=1000, attempts=50)
        for n in range(10):
            audit.tell(record(n))
        await eventually(lambda: Broken.attempts >= 3)
        Broken.broken = False
        assert len(await found(audit)) == 10
        assert lost(system) == 0
        await system.stop()

    run(main())


def test_what_is_given_up_or_does_not_fit_is_counted() -> None:
    async def main() -> None:
        system, audit = await audit_only(queue=100, attempts=3)
        for n in range(150):
            audit.tell(record(n))
        await eventually(lambda: lost(system) == 150)
        assert system.dead_letters.by_type["AuditRecord", "queue full"] == 50
        assert system.dead_letters.by_type["AuditRecord", "not stored"] == 100
        with pytest.raises(ReplyError) as caught:
            await audit.ask(QueryAudit(AuditFilter("acme")), timeout=5)
        assert isinstance(caught.value.refusal, Unavailable)
        Broken.broken = False
        audit.tell(record(1))
        assert await found(audit) == ["1"]
        assert lost(system) == 150
        cell = system.find("/audit")
        assert cell is not None
        assert cell.actor is not None
        assert cell.actor.describe()["lost"] == 150
        await system.stop()

    run(main())


def test_a_flood_while_the_store_is_stuck_costs_only_who_floods() -> None:
    """26 000 decisions of one tenant; another's are all stored, and it is known who lost."""

    async def main() -> None:
        system, audit = await audit_only(queue=1000, attempts=100_000)
        for n in range(26_000):
            audit.tell(AuditRecord(n, "flood", "u1", "web", "", True, "rule", str(n)))
            if n % 1000 == 0:
                audit.tell(AuditRecord(n, "acme", "u2", "web", "", True, "rule", str(n)))
                await asyncio.sleep(0)
        await eventually(lambda: lost(system) >= 25_000)
        Broken.broken = False
        assert sorted(map(int, await found(audit))) == list(range(0, 26_000, 1000))
        cell = system.find("/audit")
        assert cell is not None
        assert cell.actor is not None
        described = cell.actor.describe()
        assert described["lost_by_tenant"] == {"flood": lost(system)}
        assert lost(system) == 26_000 + 26 - 1000
        await system.stop()

    run(main())


def test_what_a_stop_cannot_store_is_counted() -> None:
    async def main() -> None:
        system, audit = await audit_only(queue=1000, attempts=1000)
        for n in range(300):
            audit.tell(record(n))
        await asyncio.sleep(0.05)
        began = asyncio.get_running_loop().time()
        await system.stop()
        assert asyncio.get_running_loop().time() - began < 4
        assert lost(system) == 300

    run(main())


def test_recording_never_holds_up_a_decision(tmp_path: Path) -> None:
    """With the store stuck and the queue full, decisions go on and the surplus is counted."""

    async def main() -> None:
        async with running(tmp_path / "c.db", audit_queue=50) as rig:
            await decide_many(rig, 1)
            rig.system.suspend(rig.ref("/control/store"))
            await decide_many(rig, 500)
            rig.system.resume(rig.ref("/control/store"))
            await eventually(lambda: rig.describe("audit")["queued"] == 0)
            stored = len(await found(rig.audit))
            assert stored + lost(rig.system) == 501
            assert 400 <= lost(rig.system) <= 451

    run(main())


async def decide_many(rig: Rig, count: int) -> None:
    for _ in range(count):
        await rig.policy.ask(Decide("acme", "u1", "web"), timeout=5)
