"""Many seeds of the simulated world: `python -m tests.runtime.simulate --seeds N [--first S]`.

Prints one line per broken seed and a summary; exit status 1 when a seed was broken. A broken seed
is run again with `--first S --seeds 1 --log`, on the same Python version.
"""

from __future__ import annotations

import argparse
import sys
import time

from loguru import logger

from actors.runtime.simulation import SimulationFault

from .scenario import run_seed


def main(arguments: list[str] | None = None) -> int:
    """Run the seeds. Returns the exit status."""
    parser = argparse.ArgumentParser(description="run the simulated world with many seeds")
    parser.add_argument("--seeds", type=int, default=2000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--log", action="store_true", help="print the event log of every seed")
    options = parser.parse_args(arguments)
    logger.disable("actors.runtime")
    out = sys.stdout.write
    began, broken, events, seconds = time.monotonic(), 0, 0, 0.0
    for seed in range(options.first, options.first + options.seeds):
        try:
            outcome = run_seed(seed)
        except SimulationFault as fault:
            broken += 1
            out(f"seed {seed}: {type(fault).__name__}: {fault}\n")
            continue
        events += len(outcome.log.events)
        seconds += outcome.log.seconds
        if options.log:
            out("\n".join(outcome.log.lines) + "\n")
        if outcome.violations:
            broken += 1
            for violation in outcome.violations[:5]:
                out(f"seed {seed}: invariant {violation.number}: {violation.text}\n")
    took = time.monotonic() - began
    out(
        f"{options.seeds} seeds, {broken} broken, {events} events, {seconds:.0f} virtual seconds "
        f"in {took:.1f} s on Python {sys.version.split()[0]}\n"
    )
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
