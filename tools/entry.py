"""The console script `trunkline`: finds the subcommand and imports only that one.

Knows names and one-line descriptions, so `trunkline --help` stays fast and works when an optional
piece is missing. Also the guard against the well-known PyPI package `supervisor`, which would win
over our module of that name if both are installed in one environment.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any

import click

from actors.node.standard_streams import open_standard_streams

PROJECT_ROOT = Path(__file__).resolve().parent.parent
DISTRIBUTION = "trunkline"


@dataclass(frozen=True, slots=True)
class Subcommand:
    """Where a subcommand lives: `module:attribute`, a click command, and its line in --help."""

    module: str
    attribute: str
    summary: str


SUBCOMMANDS: Mapping[str, Subcommand] = MappingProxyType(
    {
        "serve": Subcommand("supervisor", "serve", "Run the relay daemon."),
        "agent": Subcommand("tools.agent.main", "cli", "Provide or consume services."),
        "forward": Subcommand("tools.forward.main", "cli", "Put local servers at a relay's ports."),
        "compat": Subcommand("tools.compat.main", "cli", "Programs of others, with their flags."),
        "ctl": Subcommand("tools.ctl", "cli", "Ask and steer a running daemon."),
        "inspect": Subcommand("tools.inspector.main", "cli", "Watch the live actor tree."),
        "pki": Subcommand("tools.pki.main", "cli", "Make and show certificates."),
        "doctor": Subcommand("tools.doctor", "cli", "Look for what would keep a relay from work."),
        "chaos": Subcommand("tools.chaos.main", "cli", "Kill random actors, check invariants."),
        "bench": Subcommand("tools.bench.main", "cli", "Measure runtime and relay."),
    }
)


#: Subcommands that run on, with a log.
_DAEMONS = ("serve", "agent", "forward")


class LazyGroup(click.Group):
    """A group that imports a subcommand when it is used, not to list it."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        open_standard_streams()  # before anything is imported that opens something
        words = list(args[0] if args and args[0] is not None else sys.argv[1:])
        if words[:1] and words[0] in _DAEMONS and kwargs.get("standalone_mode", True):
            from actors.node.early_words import json_wanted, run_in_json

            if json_wanted(words):
                run = super().main
                kwargs["standalone_mode"] = False
                run_in_json(lambda: run(*args, **kwargs), click.ClickException)
        return super().main(*args, **kwargs)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(SUBCOMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        subcommand = SUBCOMMANDS.get(cmd_name)
        return None if subcommand is None else load_command(cmd_name, subcommand)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.summary) for name, entry in SUBCOMMANDS.items()])


def load_command(name: str, subcommand: Subcommand) -> click.Command:
    """Import a subcommand.

    Raises:
        click.ClickException: a package it needs is missing, or `supervisor` is not ours.
    """
    try:
        module = importlib.import_module(subcommand.module)
    except ModuleNotFoundError as error:
        raise click.ClickException(_missing_text(name, error)) from error
    if subcommand.module == "supervisor":
        check_is_ours(module)
    command = getattr(module, subcommand.attribute)
    if not isinstance(command, click.Command):
        raise TypeError(f"{subcommand.module}:{subcommand.attribute} is not a click command")
    return command


def check_is_ours(module: ModuleType) -> None:
    """Refuse a `supervisor` that is not the module beside `tools/`.

    Raises:
        click.ClickException: with the path found and what to do about it.
    """
    expected = PROJECT_ROOT / "supervisor.py"
    found = getattr(module, "__file__", None)
    if found is not None and Path(found).resolve() == expected:
        return
    raise click.ClickException(
        f"the module `supervisor` was found at {found}, expected {expected}.\n"
        "The PyPI package `supervisor` hides it when both share an environment: install trunkline "
        "in a virtual environment of its own (make install), or run `pip uninstall supervisor`."
    )


def _missing_text(name: str, error: ModuleNotFoundError) -> str:
    return (
        f"`trunkline {name}` needs the module {error.name}, which is not installed in "
        f"{sys.prefix}.\nInstall the locked dependencies with `make install`."
    )


def _version() -> str:
    try:
        return importlib.metadata.version(DISTRIBUTION)
    except importlib.metadata.PackageNotFoundError:
        return "(not installed; running from a checkout)"


def _print_version(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        python = ".".join(str(part) for part in sys.version_info[:3])
        click.echo(f"trunkline {_version()} (Python {python})")
        ctx.exit()


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Show the version and exit.",
)
def main() -> None:
    """Trunkline: a relay daemon that lets two machines which can only dial out talk."""


if __name__ == "__main__":
    main(prog_name="trunkline")
