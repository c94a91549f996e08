"""The command `trunkline inspect`."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from config.paths import find_control_socket
from tools.ctl_running import configured_socket
from wire.admin.limits import MAX_WATCH_INTERVAL, MIN_WATCH_INTERVAL


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--socket",
    type=click.Path(path_type=Path),
    envvar="TRUNKLINE_CONTROL_SOCKET",
    help="Control socket of the daemon.",
)
@click.option(
    "--config",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The TOML settings file of a daemon or agent, which says where its socket is.",
)
@click.option("--readonly", is_flag=True, help="Look only: no kill, crash, suspend, stop.")
@click.option(
    "--interval",
    type=click.FloatRange(MIN_WATCH_INTERVAL, MAX_WATCH_INTERVAL),
    default=1.0,
    show_default=True,
    help="Seconds between two pictures.",
)
def cli(socket: Path | None, config: Path | None, readonly: bool, interval: float) -> None:
    """Watch the live actor tree."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise click.UsageError("inspect needs a terminal; for programs: trunkline ctl tree --json")
    if socket is None and config is not None:
        socket = configured_socket(config)
    # Textual takes a moment to import: `--help` does without.
    from tools.inspector.app import InspectorApp

    InspectorApp(socket or find_control_socket(), readonly=readonly, interval=interval).run()


__all__ = ["cli"]
