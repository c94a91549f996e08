"""The policy actor: sources, reload, restart, operators' verbs, and never failing open."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import pytest

from actors.control.backend import (
    AuditFilter,
    Backend,
    BackendSpec,
    BackendUnavailable,
)
from actors.control.messages import Decide, Decision, P2PMode
from actors.control.operator_messages import (
    AddRule,
    ListRules,
    PolicyLoaded,
    PolicyRefused,
    QueryAudit,
    ReloadPolicy,
    RemoveRule,
)
from actors.control.policy.match import NO_MATCH, NO_SNAPSHOT
from actors.control.policy.rule import Effect, Rule
from actors.control.store.embedded import embedded_backend
from actors.control.store.requests import InsertRule, LoadRules
from actors.runtime import Actor, ReplyError, Request
from tests.conftest import eventually, run
from tests.control.rig import Rig, running

R = TypeVar("R")

CALLER = "outrelay://acme/agent/00000000-0000-0000-0000-000000000002"


def toml(rule_id: str, decision: str = "allow", target: str = "web", more: str = "") -> str:
    return (
        f'[[rule]]\nid = "{rule_id}"\ntenant = "acme"\ncaller = "*"\ntarget = "{target}"\n'
        f'decision = "{decision}"\n{more}\n'
    )


def stored(rule_id: str, effect: Effect = Effect.ALLOW, target: str = "web") -> Rule:
    return Rule(rule_id, "acme", "*", target, effect=effect)


async def ask(rig: Rig, target: str = "web", tenant: str = "acme") -> Decision:
    message = Decide(tenant, CALLER, target, stream_id=7)
    return await rig.policy.ask_again(message, timeout=5)


async def decide(rig: Rig, target: str = "web") -> str:
    decision = await ask(rig, target)
    return f"{'allow' if decision.allow else 'deny'} {decision.reason}"


async def reload(rig: Rig, files: Sequence[Path] | None = None) -> PolicyLoaded | tuple[str, ...]:
    message = ReloadPolicy(None if files is None else tuple(files))
    try:
        return await rig.policy.ask(message, timeout=5)
    except ReplyError as exc:
        refusal = exc.refusal
    assert isinstance(refusal, PolicyRefused)
    return refusal.problems


async def listed(rig: Rig, tenant: str = "") -> list[tuple[str, str]]:
    found = await rig.policy.ask(ListRules(tenant), timeout=5)
    return [(entry.rule.id, entry.source) for entry in found]


def test_default_deny() -> None:
    async def main() -> None:
        async with running() as rig:
            assert await decide(rig) == f"deny {NO_MATCH}"

    run(main())


def test_rules_of_files_stand_before_those_of_the_store(tmp_path: Path) -> None:
    first, second = tmp_path / "first.toml", tmp_path / "second.toml"
    first.write_text(toml("f1", "deny"))
    second.write_text(toml("f2") + toml("f3", "deny", "*"))

    async def main() -> None:
        async with running(policy_files=[first, second]) as rig:
            assert await decide(rig) == "deny f1"
            await rig.policy.ask(AddRule(stored("s1")), timeout=5)
            await rig.policy.ask(AddRule(stored("s2", target="db")), timeout=5)
            assert await decide(rig) == "deny f1"
            assert await decide(rig, "db") == "allow s2"  # an exact target beats f3's wildcard
            assert await decide(rig, "other") == "deny f3"
            sources = [(n, "file") for n in ("f1", "f2", "f3")] + [("s1", "store"), ("s2", "store")]
            assert await listed(rig) == sources
            assert await listed(rig, "acme") == sources
            assert await listed(rig, "other") == []

    run(main())


def test_rules_added_and_removed_are_in_force_when_answered(tmp_path: Path) -> None:
    async def main() -> None:
        async with running(tmp_path / "c.db") as rig:
            rule_id = await rig.policy.ask(AddRule(stored("")), timeout=5)
            assert await decide(rig) == f"allow {rule_id}"
            assert not await rig.policy.ask(RemoveRule("other", rule_id), timeout=5)
            assert await decide(rig) == f"allow {rule_id}"
            assert await rig.policy.ask(RemoveRule("acme", rule_id), timeout=5)
            assert await decide(rig) == f"deny {NO_MATCH}"

    run(main())


@pytest.mark.parametrize(
    "rule, says",
    [
        (Rule("x", "", "*", "*", effect=Effect.ALLOW), "tenant must not be empty"),
        (Rule("x", "acme", "", "*", effect=Effect.ALLOW), "caller must not be empty"),
        (Rule("x", "acme", "*", "", effect=Effect.ALLOW), "target must not be empty"),
        (Rule("x", "acme", "*", "*", effect=Effect.UNSPECIFIED), "allow or deny"),
        (Rule("x" * 1025, "acme", "*", "*"), "id has 1025 characters"),
        (Rule("x", "acme", "*", "*", expires_ms=-1), "out of range"),
        (Rule("x", "acme", "*", "*", expires_ms=2**63), "out of range"),
        (Rule("twice", "acme", "*", "*"), "'twice' exists"),
    ],
)
def test_rules_that_are_not_taken(rule: Rule, says: str) -> None:
    async def main() -> None:
        async with running() as rig:
            await rig.policy.ask(AddRule(stored("twice")), timeout=5)
            with pytest.raises(ReplyError, match=says):
                await rig.policy.ask(AddRule(rule), timeout=5)
            assert await decide(rig) == "allow twice"

    run(main())


def test_a_rule_of_somebody_else_at_the_store_comes_into_force(tmp_path: Path) -> None:
    async def main() -> None:
        async with running(tmp_path / "c.db") as rig:
            await decide(rig)
            store = Backend(rig.ref("/control/store"))
            await store.ask(InsertRule(stored("s").as_stored(int(time.time() * 1000))))
            await eventually(lambda: rig.describe("policy")["store_rules"] == 1)
            assert await decide(rig) == "allow s"

    run(main())


def test_reload(tmp_path: Path) -> None:
    file, other = tmp_path / "rules.toml", tmp_path / "other.toml"
    file.write_text(toml("before"))
    other.write_text(toml("other"))

    async def main() -> None:
        async with running(policy_files=[file]) as rig:
            assert await decide(rig) == "allow before"
            file.write_text(toml("after", "deny"))
            assert await decide(rig) == "allow before"
            assert await reload(rig) == PolicyLoaded(1, 0)
            assert await decide(rig) == "deny after"
            # Another list of files; it stays the list, also for the next reload and restart.
            assert await reload(rig, [other]) == PolicyLoaded(1, 0)
            assert await reload(rig) == PolicyLoaded(1, 0)
            assert await decide(rig) == "allow other"
            rig.system.kill(rig.policy)
            assert await decide(rig) == "allow other"
            assert await reload(rig) == PolicyLoaded(1, 0)
            assert await decide(rig) == "allow other"
            assert await reload(rig, []) == PolicyLoaded(0, 0)
            assert await decide(rig) == f"deny {NO_MATCH}"

    run(main())


def test_a_broken_reload_changes_nothing_and_says_what_is_wrong(tmp_path: Path) -> None:
    file, fine = tmp_path / "rules.toml", tmp_path / "fine.toml"
    file.write_text(toml("good"))
    fine.write_text(toml("fine", "deny"))

    async def main() -> None:
        async with running(policy_files=[file]) as rig:
            await decide(rig)
            for broken in ("[[rule", toml("x", "perhaps"), toml("x") + toml("x")):
                file.write_text(broken)
                problems = await reload(rig, [fine, file])
                assert isinstance(problems, tuple)
                assert str(file) in problems[0]
                assert rig.describe("policy")["problems"] == list(problems)
                assert await decide(rig) == "allow good"
            # A crash now does not bring the half-edited file into force either.
            rig.system.crash(rig.policy)
            assert await decide(rig) == "allow good"
            file.write_text(toml("repaired"))
            assert await reload(rig) == PolicyLoaded(1, 0)
            assert rig.describe("policy")["problems"] == []

    run(main())


def test_without_readable_files_everything_is_denied_until_they_are_repaired(
    tmp_path: Path,
) -> None:
    file = tmp_path / "rules.toml"
    file.write_text("[[rule")

    async def main() -> None:
        async with running(policy_files=[file]) as rig:
            assert await decide(rig) == f"deny {NO_SNAPSHOT}"
            await rig.policy.ask(AddRule(stored("s")), timeout=5)
            assert await decide(rig) == f"deny {NO_SNAPSHOT}"
            assert rig.describe("policy")["snapshot"] is False
            file.write_text(toml("f", target="db"))
            await eventually(lambda: rig.describe("policy")["snapshot"] is True)
            assert await decide(rig) == "allow s"
            assert await decide(rig, "db") == "allow f"

    run(main())


class Silent(Backend):
    """A backend whose rules cannot be loaded."""

    silent = True

    async def ask(self, request: Request[R]) -> R:
        if Silent.silent and isinstance(request, LoadRules):
            raise BackendUnavailable("nobody answers")
        return await super().ask(request)


def test_without_the_store_everything_is_denied_and_then_served(tmp_path: Path) -> None:
    file = tmp_path / "rules.toml"
    file.write_text(toml("f"))
    embedded = embedded_backend(":memory:")

    def connect(actor: Actor) -> Silent:
        store = actor.system.ref("/control/store")
        assert store is not None
        return Silent(store)

    async def main() -> None:
        Silent.silent = True
        backend = BackendSpec(embedded.children, connect)
        async with running(backend=backend, policy_files=[file]) as rig:
            assert await decide(rig) == f"deny {NO_SNAPSHOT}"
            assert await reload(rig) == ("store: nobody answers",)
            Silent.silent = False
            await eventually(lambda: rig.describe("policy")["snapshot"] is True)
            assert await decide(rig) == "allow f"
            Silent.silent = True  # what is in force stays
            file.write_text(toml("f2"))
            assert await reload(rig) == ("store: nobody answers",)
            assert await decide(rig) == "allow f"
            Silent.silent = False

    run(main())


def test_the_snapshot_survives_every_restart(tmp_path: Path) -> None:
    file = tmp_path / "rules.toml"
    file.write_text(toml("f"))

    async def main() -> None:
        async with running(tmp_path / "c.db", policy_files=[file]) as rig:
            await rig.policy.ask(AddRule(stored("s", target="db")), timeout=5)
            for name in ("policy", "audit", "registry", "store"):
                rig.system.kill(rig.ref(f"/control/{name}"))
                assert await decide(rig) == "allow f"
                rig.system.crash(rig.ref(f"/control/{name}"))
                assert await decide(rig, "db") == "allow s"

    run(main())


def test_decisions_asked_for_during_a_restart_are_answered_by_the_next_incarnation() -> None:
    async def main() -> None:
        async with running() as rig:
            await rig.policy.ask(AddRule(stored("s")), timeout=5)
            rig.system.suspend(rig.policy)
            message = Decide("acme", CALLER, "web")
            waiting = [asyncio.create_task(rig.policy.ask(message, timeout=5)) for _ in range(200)]
            await asyncio.sleep(0)
            rig.system.kill(rig.policy)
            await asyncio.wait(waiting)
            assert {task.result().reason for task in waiting} == {"s"}

    run(main())


def test_not_enforced_is_said_aloud_and_recorded_nowhere() -> None:
    async def main() -> None:
        async with running(enforce=False) as rig:
            await rig.policy.ask(AddRule(stored("s", Effect.DENY)), timeout=5)
            decision = await ask(rig)
            assert decision.allow
            assert decision.reason == "policy not enforced"
            assert rig.describe("policy")["enforced"] is False
            assert await listed(rig) == [("s", "store")]
            query = QueryAudit(AuditFilter("acme"))
            assert await rig.audit.ask(query, timeout=5) == ()

    run(main())


def test_tenants_are_apart() -> None:
    async def main() -> None:
        async with running() as rig:
            await rig.policy.ask(AddRule(stored("s")), timeout=5)
            assert (await ask(rig, tenant="acme")).allow
            assert not (await ask(rig, tenant="other")).allow

    run(main())


def test_modes_and_expiry_reach_the_door(tmp_path: Path) -> None:
    file = tmp_path / "rules.toml"
    soon = toml("soon", "deny", more='expires = "300ms"')
    file.write_text(soon + toml("forever", more='p2p_mode = "forbidden"'))

    async def main() -> None:
        async with running(policy_files=[file]) as rig:
            assert await decide(rig) == "deny soon"
            deadline = asyncio.get_running_loop().time() + 5
            while (decision := await ask(rig)).reason == "soon":
                assert asyncio.get_running_loop().time() < deadline
                await asyncio.sleep(0.02)
            assert decision.allow
            assert decision.p2p_mode is P2PMode.FORBIDDEN

    run(main())


def test_changes_are_announced_for_whoever_checks_again() -> None:
    async def main() -> None:
        async with running() as rig:
            await decide(rig)

            def announced() -> int:
                return sum(event.kind == "policy_changed" for event in rig.system.events.history)

            before = announced()
            await rig.policy.ask(AddRule(stored("s")), timeout=5)
            assert announced() == before + 1
            await reload(rig)  # nothing changed
            assert announced() == before + 1

    run(main())


def test_operators_never_hold_up_decisions(tmp_path: Path) -> None:
    """A slow store delays an AddRule, not the decisions beside it."""

    async def main() -> None:
        async with running(tmp_path / "c.db") as rig:
            await decide(rig)
            rig.system.suspend(rig.ref("/control/store"))
            adding = asyncio.create_task(rig.policy.ask(AddRule(stored("s")), timeout=5))
            for _ in range(50):
                assert await decide(rig) == f"deny {NO_MATCH}"
            assert not adding.done()
            rig.system.resume(rig.ref("/control/store"))
            await adding
            assert await decide(rig) == "allow s"

    run(main())


def test_thousands_of_rules(tmp_path: Path) -> None:
    file = tmp_path / "rules.toml"
    file.write_text("".join(toml(f"r{n}", target=f"svc{n}") for n in range(3000)))

    async def main() -> None:
        async with running(policy_files=[file]) as rig:
            assert await decide(rig, "svc2999") == "allow r2999"
            assert await decide(rig, "svc3000") == f"deny {NO_MATCH}"
            assert await reload(rig) == PolicyLoaded(3000, 0)

    run(main())
