"""`trunkline bench`: measurements, each beside something to compare with, in one run."""

from __future__ import annotations

import asyncio

import click
import orjson

from tools.bench.runtime import measure


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """Measure the runtime and the relay. Figures hold for this machine and this moment."""


@cli.command()
@click.option("--actors", default=100_000, show_default=True, help="Live actors at the most.")
@click.option("--json", "as_json", is_flag=True, help="Machine-readable output.")
def runtime(actors: int, as_json: bool) -> None:
    """The actor runtime beside bare asyncio and pykka."""
    rows = asyncio.run(measure(actors))
    if as_json:
        click.echo(orjson.dumps(rows, option=orjson.OPT_INDENT_2).decode())
        return
    for row in rows:
        click.echo(f"{row['what']:<46} {row['value']:>12.3f} {row['unit']}")
