"""`trunkline chaos`: kill and crash random actors of a running daemon, and judge it."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from pathlib import Path

import click

from config.paths import find_control_socket
from tools.chaos.run import Plan, run
from tools.control_client import CannotConnect, Disconnected


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--seed", type=int, default=1, show_default=True, help="Drives every choice.")
@click.option("--duration", type=float, default=30.0, show_default=True, help="Seconds.")
@click.option("--rate", type=float, default=1.0, show_default=True, help="Faults per second.")
@click.option("--only", metavar="PATTERN", help="Glob on actor paths, such as '/edge/streams/*'.")
@click.option("--probe", default="", metavar="URL", help="Page that must keep coming back.")
@click.option("--almost-kill", "almost", is_flag=True,
              help="Bring every supervisor one restart below its limit instead.")  # fmt: skip
@click.option("--socket", type=click.Path(path_type=Path), envvar="TRUNKLINE_CONTROL_SOCKET")
def cli(
    seed: int,
    duration: float,
    rate: float,
    only: str | None,
    probe: str,
    almost: bool,
    socket: Path | None,
) -> None:
    """Hurt a running daemon through its control socket and check the invariants.

    The last line is the verdict; exit status 0 when it is ok, 1 when an invariant is broken, 3
    when no daemon answers.
    """
    if rate <= 0 or duration <= 0:
        raise click.UsageError("--rate and --duration must be positive")
    plan = Plan(socket or find_control_socket(), seed, duration, rate, only, probe, almost)
    try:
        history, violations = asyncio.run(run(plan, click.echo))
    except (CannotConnect, Disconnected) as error:
        click.echo(f"verdict: broken: no daemon answers: {error}")
        sys.exit(3)
    texts = Counter(str(violation) for violation in violations)
    for text, times in texts.items():
        click.echo(f"{text} ({times} times)" if times > 1 else text)
    faults = sum(action.done for action in history.actions)
    failed = sum(1 for probe_ in history.probes if probe_[2])
    summary = (
        f"seed {seed}: {faults} faults, {len(history.events)} events, "
        f"{len(history.probes)} probes ({failed} failed)"
    )
    if violations:
        click.echo(f"verdict: broken: {len(violations)} violations; {summary}")
        sys.exit(1)
    click.echo(f"verdict: ok; {summary}")
