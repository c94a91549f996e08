"""Control actors die while streams are opened that the rules allow, and some that they forbid."""

from __future__ import annotations

from pathlib import Path

import pytest

from actors.control import audit
from actors.control.backend import AuditFilter
from actors.control.messages import Decision
from actors.control.operator_messages import QueryAudit
from actors.edge.opening import stream_pair
from tests.agent.rig import agents, says
from tests.chaos.in_process import InProcessControl
from tests.conftest import PkiFixture, eventually, run
from tests.edge.rig import relay
from tools.chaos import stream_checks
from tools.chaos.history import History, Transfer
from tools.chaos.nemesis import Nemesis
from tools.chaos.workload import Target, Workload

CONTROL = ("/control/store", "/control/registry", "/control/policy", "/control/audit", "/control")
DENY = (
    '[[rule]]\nid = "no"\ntenant = "acme"\ncaller = "*"\ntarget = "verified"\n'
    'decision = "deny"\n'
    '[[rule]]\nid = "all"\ntenant = "acme"\ncaller = "*"\ntarget = "*"\ndecision = "allow"\n'
)


async def _while_policy_dies(pki: PkiFixture, tmp_path: Path) -> list[Transfer]:
    """Forbidden streams, each opened at the very moment a control actor died."""
    history = History()
    target = Target(history)
    await target.start()
    tried: list[Transfer] = []
    async with (
        relay(pki, tmp_path, rules=DENY) as running,
        agents(running, pki, target.port) as address,
    ):
        workload = Workload(address, history, target=target)
        for number in range(20):
            place = running.system.ref(CONTROL[number % len(CONTROL)])
            if place is not None and place.alive:
                running.kill(place.path)
            tried.append(await workload.transfer(workload.small_plan()))
            policy = running.system.ref("/control/policy")
            await eventually(lambda policy=policy: policy is None or policy.alive)  # type: ignore[misc]
        assert running.counters["reject_403"] > 0
    await target.stop()
    return tried


def test_a_forbidden_stream_is_never_opened_while_control_dies(
    pki: PkiFixture, tmp_path: Path
) -> None:
    async def main() -> None:
        assert not stream_checks.policy_stays_closed(await _while_policy_dies(pki, tmp_path))

    run(main(), timeout=60)


def test_a_door_that_opens_when_policy_is_away_is_caught(
    pki: PkiFixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sound = stream_pair.StreamPair._decide

    async def fail_open(self: stream_pair.StreamPair, caller: str, target: str) -> Decision:
        if not self._door.control().policy.alive:
            return Decision(True, "nobody there to ask")
        return await sound(self, caller, target)

    async def main() -> None:
        monkeypatch.setattr(stream_pair.StreamPair, "_decide", fail_open)
        assert stream_checks.policy_stays_closed(await _while_policy_dies(pki, tmp_path))

    run(main(), timeout=60)


async def _audited(pki: PkiFixture, tmp_path: Path) -> tuple[int, int, int]:
    """Streams while the audit actor dies: decisions made, recorded, counted as lost."""
    history = History()
    target = Target(history)
    await target.start()
    async with relay(pki, tmp_path) as running, agents(running, pki, target.port) as address:
        control = InProcessControl(running.system, history)
        nemesis = Nemesis(control, seed=1, history=history, only="/control/audit")
        workload = Workload(address, history, target=target)
        complete = 0
        for _ in range(12):
            transfer = await workload.transfer(workload.small_plan())
            complete += transfer.outcome == "complete"
            await nemesis.strike()
        assert complete
        audit = running.system.ref("/control/audit")
        assert audit is not None
        await audit.started(timeout=5)
        await eventually(lambda: says(running.system, "/control/audit", "queued") == 0)
        query = QueryAudit(AuditFilter("acme", limit=0))
        stored = len(await audit.ask_again(query, timeout=5))
        letters = running.system.dead_letters.by_type
        lost = sum(count for (name, _), count in letters.items() if name == "AuditRecord")
    await target.stop()
    return 2 * complete, stored, lost  # caller and callee are decided for every stream


def test_every_decision_is_recorded_or_counted_while_audit_dies(
    pki: PkiFixture, tmp_path: Path
) -> None:
    async def main() -> None:
        assert not stream_checks.audit_is_complete(*await _audited(pki, tmp_path))

    run(main(), timeout=60)


def test_an_audit_that_forgets_its_queue_when_killed_is_caught(
    pki: PkiFixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        monkeypatch.setattr(audit._Held, "abort", lambda self: self.records.clear())
        assert stream_checks.audit_is_complete(*await _audited(pki, tmp_path))

    run(main(), timeout=60)
