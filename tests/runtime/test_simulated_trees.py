"""Random trees, random faults, every interleaving a seed draws: the invariants hold.

`TRUNKLINE_SIM_SEEDS` sets how many seeds run; `python -m tests.runtime.simulate` runs thousands.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from .scenario import run_seed
from .simulate import main

SEEDS = int(os.environ.get("TRUNKLINE_SIM_SEEDS", "240"))
CHUNKS = 8
ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_invariants_hold_in_every_simulated_run(chunk: int) -> None:
    for seed in range(chunk, SEEDS, CHUNKS):
        outcome = run_seed(seed)
        assert not outcome.violations, f"seed {seed}: {outcome.violations[:3]}"


def test_the_simulated_world_contains_what_it_is_meant_to_test() -> None:
    kinds: Counter[str] = Counter()
    outcomes: Counter[str] = Counter()
    for seed in range(1000, 1060):
        outcome = run_seed(seed)
        for event in outcome.log.events:
            kinds[event.kind] += 1
            kinds[f"reason {event.fields.get('kind')}"] += 1
            kinds[f"decision {str(event.fields.get('decision')).split(' in ')[0]}"] += 1
        outcomes.update(asked.outcome for asked in outcome.ledger.asked)
    wanted = {
        *("started", "exited", "escalated", "gave_up", "removed", "undead", "release_error"),
        *(f"reason {kind}" for kind in ("normal", "shutdown", "killed", "crash", "init_failed")),
        *(f"reason {kind}" for kind in ("resource", "linked", "escalated", "stuck")),
        *("decision restart", "decision restart with group", "decision restart now"),
        *("decision remove", "decision give up", "decision escalate", "decision stopped"),
    }
    assert wanted <= set(kinds)
    assert {"answer", "ActorDown", "AskTimeout", "AskCycle", "ReplyError", "cancelled"} <= set(
        outcomes
    )


def test_the_same_seed_gives_the_same_event_log() -> None:
    for seed in (1, 2, 3):
        first, second = run_seed(seed).log, run_seed(seed).log
        assert first.lines == second.lines
        assert first.digest == second.digest
    assert run_seed(1).log.digest != run_seed(2).log.digest


def test_the_same_seed_gives_the_same_event_log_in_another_process() -> None:
    code = (
        "from loguru import logger; logger.disable('actors.runtime')\n"
        "from tests.runtime.scenario import run_seed; print(run_seed(5).log.digest)"
    )
    digests = set()
    for hash_seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        result = subprocess.run(
            [sys.executable, "-c", code],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        digests.add(result.stdout.strip())
    assert digests == {run_seed(5).log.digest}


def test_the_command_reports_how_many_seeds_it_ran(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--seeds", "3"]) == 0
    assert "3 seeds, 0 broken" in capsys.readouterr().out
