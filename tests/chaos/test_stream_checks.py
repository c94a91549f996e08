"""The checks of what users see can fail: doctored histories, each with one promise broken."""

from __future__ import annotations

import pytest

from tools.chaos import stream_checks as checks
from tools.chaos.history import Action, History, Probe, Transfer


def _killed(path: str, at: float = 100.0, *, done: bool = True) -> Action:
    return Action(at, "kill", path, 1, frozenset({path}), done, at)


def _stream(outcome: str, began: float = 99.0, ended: float = 101.0) -> Transfer:
    return Transfer("t", began, ended, outcome)


def _worked(at: float, seconds: float = 0.01) -> Probe:
    return Probe(at, seconds, "", "stream")


@pytest.mark.parametrize("outcome, invariant", [("truncated", 23), ("corrupt", 23), ("stuck", 3)])
def test_dishonest_transfers_are_never_allowed(outcome: str, invariant: int) -> None:
    history = History(actions=[_killed("/edge/agents/one")], transfers=[_stream(outcome)])
    assert [v.invariant for v in checks.transfers_are_honest(history)] == [invariant]
    for allowed in ("complete", "reset", "refused"):
        assert not checks.transfers_are_honest(History(transfers=[_stream(allowed)]))


def test_a_reset_needs_the_death_of_a_carrier() -> None:
    for carrier in ("/edge/streams/a", "/edge/streams", "/edge/agents/x", "/edge/agents", "/edge"):
        explained = History(actions=[_killed(carrier)], transfers=[_stream("reset")])
        assert not checks.resets_are_explained(explained), carrier
    for other in ("/control/registry", "/control", "/edge/listeners/quic", "/node/web"):
        unexplained = History(actions=[_killed(other)], transfers=[_stream("reset")])
        assert checks.resets_are_explained(unexplained), other


def test_one_pair_takes_one_stream_with_it() -> None:
    pair = _killed("/edge/streams/a")
    two = [_stream("reset"), _stream("reset", 99.5, 102.0)]
    assert len(checks.resets_are_explained(History(actions=[pair], transfers=two))) == 1
    both = [pair, _killed("/edge/streams/b", 101.5)]
    assert not checks.resets_are_explained(History(actions=both, transfers=two))
    late = History(actions=[_killed("/edge/streams/a", 105.0)], transfers=[_stream("reset")])
    assert checks.resets_are_explained(late)


def test_a_violation_says_which_stream_when_after_what_and_how_fast_the_machine_was() -> None:
    history = History(
        actions=[_killed("/node/web", 93.0), _killed("/control/policy", 97.5)],
        probes=[
            Probe(90.0, 0.01, "", "stream", "new.1"),
            Probe(99.0, 2.07, "refused by peer", "stream", "new.7"),
            Probe(100.0, 0.03, "", "direct"),
        ],
    )
    (violation,) = [
        v for v in checks.new_streams_work(history) if "without a recent fault" in v.text
    ]
    assert violation.text == (
        "the new stream new.7 took 2.07 s without a recent fault (refused by peer) "
        "[9.00 to 11.07 s; faults: kill /control/policy 3.57 s before; "
        "the same exchange without the relay: 0.03 s at most]"
    )


def test_being_late_is_not_judged_where_the_machine_alone_is_late() -> None:
    late = Probe(99.0, 6.0, "", "stream", "new.7")
    for slowest, doubtful in ((0.1, False), (1.5, True)):
        history = History(probes=[late, Probe(100.0, slowest, "", "direct")])
        (violation,) = checks.new_streams_work(history)
        assert violation.doubtful is doubtful
        assert str(violation).startswith("not judged") is doubtful
    wrong = History(transfers=[_stream("corrupt")], probes=[Probe(100.0, 1.5, "", "direct")])
    (violation,) = checks.transfers_are_honest(wrong)
    assert not violation.doubtful  # bytes are right on any machine


def test_a_fault_that_found_nobody_explains_nothing() -> None:
    gone = _killed("/edge/agents/x", done=False)
    assert checks.resets_are_explained(History(actions=[gone], transfers=[_stream("reset")]))
    assert checks.refusals_are_explained(History(actions=[gone], transfers=[_stream("refused")]))


def test_a_refusal_needs_a_recent_fault() -> None:
    recent = History(actions=[_killed("/control/policy")], transfers=[_stream("refused")])
    old = History(actions=[_killed("/control/policy", 90.0)], transfers=[_stream("refused")])
    other = History(actions=[_killed("/node/web")], transfers=[_stream("refused")])
    assert not checks.refusals_are_explained(recent)
    assert checks.refusals_are_explained(old)
    assert checks.refusals_are_explained(other)


def test_no_new_stream_within_a_second_is_seen() -> None:
    fault = [_killed("/control/registry")]
    assert not checks.new_streams_work(History(actions=fault, probes=[_worked(100.5)]))
    assert checks.new_streams_work(History(actions=fault, probes=[_worked(101.5)]))
    assert checks.new_streams_work(History(actions=fault))
    # One that began before the fault proves nothing.
    assert checks.new_streams_work(History(actions=fault, probes=[_worked(99.9, 0.3)]))


def test_faults_close_together_are_judged_from_the_last_one() -> None:
    faults = [_killed("/control/registry"), _killed("/edge", 100.8)]
    assert not checks.new_streams_work(History(actions=faults, probes=[_worked(101.5)]))
    assert checks.new_streams_work(History(actions=faults, probes=[_worked(101.9)]))
    # A fault that cannot delay a new stream does not extend the second.
    faults[1] = _killed("/edge/streams/a", 100.8)
    assert checks.new_streams_work(History(actions=faults, probes=[_worked(101.5)]))


def test_a_new_stream_that_waits_without_a_fault_is_seen() -> None:
    slow = [_worked(110.0, 1.5)]
    assert checks.new_streams_work(History(probes=slow))
    assert not checks.new_streams_work(
        History(actions=[_killed("/control", 111.0)], probes=[*slow, _worked(111.1)])
    )


def test_only_a_machine_that_is_seen_to_be_slow_excuses_a_late_stream() -> None:
    fault = [_killed("/control/registry")]
    late = _worked(101.3)
    for machine, excused in ((0.01, False), (0.3, True)):
        direct = Probe(100.5, machine, "", "direct")
        found = checks.new_streams_work(History(actions=fault, probes=[late, direct]))
        assert bool(found) is not excused
    elsewhere = Probe(90.0, 0.3, "", "direct")
    assert checks.new_streams_work(History(actions=fault, probes=[late, elsewhere]))


def test_a_crash_in_an_agent_is_seen() -> None:
    def ended(kind: str) -> History:
        event = {"kind": "exited", "path": "/bridges/in-1", "fields": {"kind": kind}}
        return History(agent_events=[event])

    assert not checks.agents_are_unharmed(ended("shutdown"))
    assert not checks.agents_are_unharmed(ended("normal"))
    assert checks.agents_are_unharmed(ended("crash"))
    assert checks.agents_are_unharmed(ended("killed"))


def test_pages_must_come_back() -> None:
    history = History(actions=[_killed("/control/registry")])
    history.probes = [Probe(100.5, 0.1, "refused"), Probe(102.0, 0.1)]
    assert not checks.pages_recover(history)
    history.probes.append(Probe(103.0, 0.1, "refused"))
    assert checks.pages_recover(history)
    history.actions = [_killed("/node/provider")]
    history.probes = [Probe(110.0, 0.1, "refused"), Probe(112.0, 0.1)]
    assert not checks.pages_recover(history)


def test_registry_and_connections_must_agree() -> None:
    assert not checks.registry_matches(["a"], ["a"])
    assert checks.registry_matches(["a"], [])
    assert checks.registry_matches([], ["a"])
    assert not checks.registry_counts(2, {"agents": 2})
    assert checks.registry_counts(2, {"agents": 1})
    assert checks.registry_counts(2, {})


def test_a_decision_neither_recorded_nor_lost_is_seen() -> None:
    assert not checks.audit_is_complete(10, 8, 2)
    assert not checks.audit_is_complete(10, 11, 0)  # at least once
    assert checks.audit_is_complete(10, 8, 1)


def test_a_forbidden_stream_that_reached_the_service_is_seen() -> None:
    assert not checks.policy_stays_closed([_stream("refused")])
    for outcome in ("complete", "reset", "truncated"):
        assert checks.policy_stays_closed([_stream(outcome)])
