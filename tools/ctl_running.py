"""What the commands of `trunkline ctl` share: options, connecting, failing, printing JSON.

Exit codes: 0 done; 1 refused or not found; 2 usage; 3 no daemon answers.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import NoReturn, TypeVar

import click
import orjson

from config.errors import ConfigError
from config.load import load
from config.paths import find_control_socket, state_paths
from tools.agent import config_file
from tools.control_client import CannotConnect, ControlClient, ControlError, Disconnected
from tools.control_text import text

EXIT_REFUSED = 1
EXIT_NO_DAEMON = 3
SOCKET_VARIABLE = "TRUNKLINE_CONTROL_SOCKET"
#: Seconds for answers that visit the whole tree, and for plain ones.
WALK_SECONDS = 60.0
PLAIN_SECONDS = 10.0
#: For files and a store to be read again.
RELOAD_SECONDS = 15.0

Command = TypeVar("Command", bound=Callable[..., None])


def socket_option(command: Command) -> Command:
    """`--socket`."""
    return click.option(
        "--socket",
        "socket",
        type=click.Path(path_type=Path, dir_okay=False, readable=False),
        help=f"Control socket of the daemon; also ${SOCKET_VARIABLE}.",
    )(command)


def options(command: Command) -> Command:
    """`--json` and `--socket`, which also stands before the subcommand."""
    as_json = click.option("--json", "as_json", is_flag=True, help="JSON for programs.")
    return as_json(socket_option(command))


def socket_path(context: click.Context, chosen: Path | None) -> Path:
    """The socket to try: the command's option, the group's, the environment, the usual places."""
    inherited = context.obj if isinstance(context.obj, Path) else None
    return chosen or inherited or find_control_socket()


def configured_socket(config: Path) -> Path:
    """Where a daemon, or an agent, with this settings file listens.

    Raises:
        click.UsageError: the file cannot be used; its text names every problem.
    """
    table = config_file.read(config)
    if config_file.is_agents(table):
        return config_file.control_socket(config, table)
    try:
        return state_paths(load(config, check_files=False)).control_socket
    except ConfigError as error:
        raise click.UsageError(str(error)) from None


def _remedy(path: Path) -> str:
    """What may help when the socket cannot be used."""
    try:
        there = path.exists()
        ours = there and os.access(path, os.R_OK | os.W_OK)
    except PermissionError:
        there, ours = True, False
    if there and not ours:
        return "It is running as another user: ask as that user, or with sudo."
    where = f"Another socket is named with --config, --socket or ${SOCKET_VARIABLE}."
    if there:
        return f"It was not stopped in order, or hangs. {where}"
    return f"Is it running? {where}"


def run(socket: Path | None, work: Callable[[ControlClient], Awaitable[None]]) -> None:
    """Connect, work, and turn failures into one line and an exit code."""
    path = socket_path(click.get_current_context(), socket)

    async def main() -> None:
        client = await ControlClient.connect(path)
        try:
            await work(client)
        finally:
            await client.close()

    try:
        asyncio.run(main())
    except CannotConnect as error:
        fail(
            EXIT_NO_DAEMON,
            f"no daemon answers at {error}\n" + _remedy(path),
        )
    except ControlError as error:
        fail(EXIT_REFUSED, text(error))
    except Disconnected as error:
        fail(EXIT_NO_DAEMON, f"the daemon went away: {text(error)}")
    except TimeoutError:
        fail(EXIT_REFUSED, "the daemon did not answer in time")
    except KeyboardInterrupt:
        sys.exit(0)


def fail(code: int, message: str) -> NoReturn:
    """Say it, and end with this exit code."""
    click.echo(f"trunkline ctl: {message}", err=True)
    sys.exit(code)


def dump(value: object) -> None:
    """Print one JSON value for reading."""
    click.echo(orjson.dumps(value, option=orjson.OPT_INDENT_2).decode())


def dump_line(value: object) -> None:
    """Print one JSON value on one line."""
    click.echo(orjson.dumps(value).decode())
