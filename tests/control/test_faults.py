"""Control actors die at random under load; invariants 3 and 15 to 18 of docs/chaos.md hold."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from pathlib import Path

import pytest

from actors.control.backend import AuditFilter
from actors.control.messages import Decide, Resolve
from actors.control.operator_messages import AddRule, QueryAudit
from actors.control.policy.rule import Effect, Rule
from actors.runtime import ActorDown, ReplyError
from tests.conftest import eventually, run
from tests.control.rig import CONTROL_ACTORS, Connection, Rig, running

AGENTS = 20
SECONDS = 1.0
#: What a new stream may wait for registry and policy (rule 16), and the slack of a shared machine.
PATIENCE = 1.0 + 2.0


class Load:
    """Resolves and decides without pause, and remembers what must never happen."""

    def __init__(self, rig: Rig, seed: int) -> None:
        self.rig = rig
        self.rng = random.Random(seed)
        self.answered: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.slowest = 0.0
        self.asked = 0
        self.decided: set[str] = set()
        self.over = asyncio.Event()

    async def resolves(self) -> None:
        while not self.over.is_set():
            name = f"svc{self.rng.randrange(AGENTS // 2)}"  # those whose agents never end
            began = asyncio.get_running_loop().time()
            message = Resolve("acme", name)
            try:
                found = await self.rig.registry.ask_again(message, timeout=PATIENCE)
            except (ActorDown, ReplyError) as exc:
                self.wrong.append(f"resolve: {exc}")
            else:
                self.answered["found" if found.providers else "not found"] += 1
                if not found.providers:
                    self.wrong.append(f"{name} not found")
            self._took(began)
            await asyncio.sleep(0)

    async def decides(self) -> None:
        while not self.over.is_set():
            began = asyncio.get_running_loop().time()
            target = self.rng.choice(["web", "secret"])
            self.asked += 1
            stream_id = self.asked
            message = Decide("acme", "u", target, stream_id=stream_id)
            try:
                decision = await self.rig.policy.ask_again(message, timeout=PATIENCE)
            except ActorDown as exc:
                self.wrong.append(f"decide: {exc}")
            else:
                self.decided.add(str(stream_id))
                self.answered[f"{target} {decision.allow} {decision.reason}"] += 1
                if decision.allow is not (target == "web"):
                    self.wrong.append(f"{target}: {decision}")
            self._took(began)
            await asyncio.sleep(0.001)

    async def reconnects(self, connections: dict[int, Connection]) -> None:
        """The second half of the agents comes and goes."""
        while not self.over.is_set():
            n = self.rng.randrange(AGENTS // 2, AGENTS)
            old = connections.get(n)
            if old is not None and self.rng.random() < 0.5:
                self.rig.system.kill(old.ref)  # it ends before ...
            if self.rng.random() < 0.8:
                connections[n] = self.rig.agent(f"u{n}", f"svc{n}")
            else:
                connections.pop(n, None)
            if old is not None:
                self.rig.system.kill(old.ref)  # ... or after the next one began
            await asyncio.sleep(0.01)

    async def faults(self, rate: float) -> None:
        loop = asyncio.get_running_loop()
        until = loop.time() + SECONDS
        places = [f"/control/{name}" for name in CONTROL_ACTORS] + ["/control"]
        while loop.time() < until:
            place = self.rng.choices(places, weights=[4, 8, 8, 8, 1])[0]
            ref = self.rig.system.ref(place)
            if ref is not None:
                verb = self.rng.choice([self.rig.system.kill, self.rig.system.crash])
                verb(ref)
            await asyncio.sleep(self.rng.random() * 2 / rate)
        self.over.set()

    def _took(self, began: float) -> None:
        self.slowest = max(self.slowest, asyncio.get_running_loop().time() - began)


@pytest.mark.parametrize("seed", range(3))
def test_random_deaths_under_load(tmp_path: Path, seed: int) -> None:
    async def main() -> None:
        async with running(tmp_path / "c.db", grace=1.0) as rig:
            await rig.policy.ask(
                AddRule(Rule("web", "acme", "*", "web", effect=Effect.ALLOW)), timeout=5
            )
            connections = {n: rig.agent(f"u{n}", f"svc{n}") for n in range(AGENTS)}
            await eventually(lambda: rig.describe("registry")["service_names"] == AGENTS)
            load = Load(rig, seed)
            async with asyncio.TaskGroup() as group:
                for _ in range(4):
                    group.create_task(load.resolves())
                for _ in range(2):
                    group.create_task(load.decides())
                group.create_task(load.reconnects(connections))
                group.create_task(load.faults(rate=20.0))
            assert load.wrong == []
            assert load.answered["found"] > 50
            assert len(load.decided) > 50
            assert load.slowest < PATIENCE

            # The registry is the set of live agents again, and the store says the same.
            alive = {f"u{n}" for n in connections}
            await eventually(lambda: rig.describe("registry")["agents"] == len(alive))
            for n, connection in connections.items():
                for provider in (await rig.resolve(f"svc{n}")).providers:
                    assert provider.uri == f"u{n}"
                    assert provider.connection == connection.ref
            await eventually(lambda: rig.describe("registry")["in_grace"] is False)
            await eventually(lambda: rig.describe("registry")["unpublished"] == 0)
            for n in set(range(AGENTS)) - set(connections):
                assert await rig.providers(f"svc{n}") == []

            # Every answered decision was recorded at least once or counted as lost.
            await eventually(lambda: rig.describe("audit")["queued"] == 0)
            query = QueryAudit(AuditFilter("acme", limit=0))
            stored = {record.stream_id for record in await rig.audit.ask_again(query, timeout=5)}
            letters = rig.system.dead_letters.by_type
            lost = sum(count for (name, _), count in letters.items() if name == "AuditRecord")
            assert len(load.decided - stored) <= lost
            assert rig.system.undead == 0
            assert rig.system.unowned_exceptions == 0

    run(main(), timeout=40)


@pytest.mark.parametrize("name", CONTROL_ACTORS)
def test_asks_in_flight_end_at_once_when_their_actor_dies(tmp_path: Path, name: str) -> None:
    """Answered by the next incarnation or failed with the reason, never left to their deadline."""

    async def main() -> None:
        async with running(tmp_path / "c.db", grace=0.2) as rig:
            await rig.connect("u1", "web")
            asks = [
                lambda: rig.registry.ask(Resolve("acme", "web"), timeout=30),
                lambda: rig.registry.ask(Resolve("acme", "none"), timeout=30),
                lambda: rig.policy.ask(Decide("acme", "u", "web"), timeout=30),
                lambda: rig.audit.ask(QueryAudit(AuditFilter("acme")), timeout=30),
            ]
            tasks = [asyncio.create_task(ask()) for ask in asks for _ in range(25)]  # type: ignore[no-untyped-call]
            await asyncio.sleep(0.002)
            began = asyncio.get_running_loop().time()
            rig.system.kill(rig.ref(f"/control/{name}"))
            _, pending = await asyncio.wait(tasks, timeout=5)
            assert not pending
            assert asyncio.get_running_loop().time() - began < PATIENCE
            for task in tasks:
                error = task.exception()
                assert error is None or isinstance(error, ActorDown | ReplyError)

    run(main())


def test_the_whole_subtree_stops_in_time_in_the_middle_of_everything(tmp_path: Path) -> None:
    async def main() -> None:
        async with running(tmp_path / "c.db", grace=1.0) as rig:
            for n in range(200):
                rig.agent(f"u{n}", "web")
            for n in range(200):
                rig.policy.tell(Decide("acme", f"u{n}", "web"))
            message = Resolve("acme", "none")
            tasks = [asyncio.create_task(rig.registry.ask(message, timeout=20)) for _ in range(50)]
            await asyncio.sleep(0.01)
            rig.system.kill(rig.ref("/control/store"))
            began = asyncio.get_running_loop().time()
            await rig.system.stop(timeout=10.0)
            assert asyncio.get_running_loop().time() - began < 5.0
            await asyncio.wait(tasks)
            assert all(task.exception() is not None for task in tasks)
            assert rig.system.undead == 0

    run(main())


def test_start_and_crash_cycles_leave_nothing_behind(tmp_path: Path) -> None:
    """The rig's leak check looks for threads and descriptors afterwards."""

    async def main() -> None:
        async with running(tmp_path / "c.db") as rig:
            for n in range(25):
                place = rig.ref(f"/control/{CONTROL_ACTORS[n % 4]}")
                rig.system.kill(place)
                await place.started(timeout=5)
            assert rig.system.undead == 0

    run(main())
