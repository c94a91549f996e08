"""The group `trunkline compat`: a module per program, imported when it is used."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import click

#: Program: its module here, and its line in --help. The module has a command `cli`.
PROGRAMS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "relay": "The rendezvous relay and its forwarder (lyondhill/relay).",
        "firezone-relay": "Firezone's relay, with its flags and environment.",
        "netbird-relay": "NetBird's relay, with its flags and environment.",
        "openzro-relay": "openZro's relay, with its flags and environment.",
        "turnserver": "coturn's turnserver, with its configuration file.",
    }
)


class _Programs(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(PROGRAMS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in PROGRAMS:
            return None
        command = importlib.import_module(f"tools.compat.{cmd_name.replace('-', '_')}").cli
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Programs"):
            formatter.write_dl(list(PROGRAMS.items()))


@click.group(cls=_Programs, context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """Programs of others, with their flags as they are."""
