"""`trunkline chaos`: kill and crash random actors of a running daemon, and judge it."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from dataclasses import asdict
from pathlib import Path

import click
import orjson

from actors.files.atomic import replace_file
from actors.node.logging import install
from actors.pki.files import PkiError
from config.endpoint import parse_endpoint
from config.paths import find_control_socket
from tools.chaos.checker import Violation
from tools.chaos.history import History
from tools.chaos.load import LoadFailed
from tools.chaos.run import Plan, run
from tools.chaos.stream_checks import recoveries
from tools.control_client import CannotConnect, Disconnected

#: When relay and certificates are found and nothing else was asked for.
DEFAULT_STREAMS = 50


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--seed", type=int, default=1, show_default=True, help="Drives every choice.")
@click.option("--duration", type=float, default=30.0, show_default=True, help="Seconds.")
@click.option("--rate", type=float, default=1.0, show_default=True, help="Faults per second.")
@click.option("--only", metavar="PATTERN", help="Glob on actor paths, such as '/edge/streams/*'.")
@click.option(
    "--streams",
    type=click.IntRange(0, 1000),
    default=None,
    help="Byte-verified streams at a time; 50 when relay and certificates are found.",
)
@click.option("--relay", metavar="HOST:PORT", help="Relay; default: what the daemon says.")
@click.option(
    "--pki",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Directory with ca.crt and ca.key; default: pki beside the control socket.",
)
@click.option("--tenant", default="", help="Of the run's agents; default: as the others in --pki.")
@click.option(
    "--within",
    type=float,
    default=1.0,
    show_default=True,
    help="Seconds after a fault in which a new stream must work.",
)
@click.option("--probe", default="", metavar="URL", help="Page that must keep coming back.")
@click.option(
    "--almost-kill",
    "almost",
    is_flag=True,
    help="Bring every supervisor one restart below its limit instead.",
)
@click.option(
    "--record",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write everything that was seen to this file, as JSON.",
)
@click.option("--socket", type=click.Path(path_type=Path), envvar="TRUNKLINE_CONTROL_SOCKET")
def cli(
    seed: int,
    duration: float,
    rate: float,
    only: str | None,
    streams: int | None,
    relay: str | None,
    pki: Path | None,
    tenant: str,
    within: float,
    probe: str,
    almost: bool,
    record: Path | None,
    socket: Path | None,
) -> None:
    """Hurt a running daemon through its control socket and check the invariants.

    The last line is the verdict; exit status 0 when it is ok, 1 when an invariant is broken, 2
    when the streams cannot be set up, 3 when no daemon answers, 4 when the machine was too slow to
    judge.
    """
    if rate <= 0 or duration <= 0:
        raise click.UsageError("--rate and --duration must be positive")
    socket = socket or find_control_socket()
    if streams is None:
        found = pki is not None or (socket.parent / "pki" / "ca.key").exists()
        streams = DEFAULT_STREAMS if found else 0
        if not found:
            click.echo("no certificates found beside the control socket: no verified streams")
    install("ERROR", "human")
    plan = Plan(
        socket=socket,
        seed=seed,
        duration=duration,
        rate=rate,
        only=only,
        probe=probe,
        almost=almost,
        streams=streams,
        relay=_address(relay) if relay else None,
        pki=pki,
        tenant=tenant,
        within=within,
    )
    try:
        history, violations = asyncio.run(run(plan, click.echo))
    except (CannotConnect, Disconnected) as error:
        click.echo(f"verdict: broken: no daemon answers: {error}")
        sys.exit(3)
    except (LoadFailed, PkiError) as error:
        click.echo(f"verdict: none: {error}")
        sys.exit(2)
    if record is not None:
        replace_file(record, orjson.dumps(asdict(history), default=sorted), 0o644)
    sys.exit(_report(plan, history, violations))


def _address(text: str) -> tuple[str, int]:
    try:
        endpoint = parse_endpoint(text)
    except ValueError as error:
        raise click.UsageError(f"{text!r}: {error}") from None
    return endpoint.host, endpoint.port


def _report(plan: Plan, history: History, violations: list[Violation]) -> int:
    """Print violations and verdict; returns the exit status."""
    texts = Counter(str(violation) for violation in violations)
    for text, times in texts.items():
        click.echo(f"{text} ({times} times)" if times > 1 else text)
    slowest = max(recoveries(history, within=plan.within), key=lambda r: r.seconds, default=None)
    if slowest is not None and plan.streams:
        click.echo(
            f"slowest recovery: a new stream worked {slowest.seconds:.2f} s after "
            f"{slowest.fault.verb} {slowest.fault.path}"
        )
        machine = max((p.seconds for p in history.probes if p.source == "direct"), default=0.0)
        click.echo(f"machine: the slowest exchange without the relay took {machine:.2f} s")
    faults = sum(action.done for action in history.actions)
    outcomes = Counter(transfer.outcome for transfer in history.transfers)
    streams = ", ".join(f"{count} {outcome}" for outcome, count in outcomes.most_common())
    probes = [probe for probe in history.probes if probe.source != "direct"]
    failed = sum(1 for probe in probes if probe.error)
    summary = (
        f"seed {plan.seed}: {faults} faults, {len(history.events)} events, "
        f"{sum(outcomes.values())} streams ({streams or 'none asked for'}), "
        f"{len(probes)} probes ({failed} failed)"
    )
    broken = sum(not violation.doubtful for violation in violations)
    if broken:
        click.echo(f"verdict: broken: {broken} violations; {summary}")
        return 1
    if violations:
        times = len(violations)
        click.echo(f"verdict: unclear: the machine was too slow to judge {times} times; {summary}")
        return 4
    click.echo(f"verdict: ok; {summary}")
    return 0
