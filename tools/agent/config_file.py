"""`trunkline agent --config agent.toml`: the options of an agent in a file.

::

    relay = ["relay.example.org:7443"]     # as --relay; every option of `agent run` by its name
    cert = "web.crt"                       # relative paths are relative to the file
    key = "web.key"
    ca = "ca.crt"
    control_socket = "/run/trunkline-agent/control.sock"

    [provide]
    web = "127.0.0.1:80"                   # or a list: whichever target answers

    [consume]
    db = "127.0.0.1:5432"

    [intercept]
    services = ["web", "db"]               # and dns_suffix, dns_listen, tproxy_listen

An environment variable of an option wins over the file. All is judged as on the command line.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import click

#: Bytes of a file.
MAX_BYTES: Final = 1024 * 1024
_PATHS: Final = ("cert", "key", "ca", "control_socket")
#: Options that are tables of the file, or make no sense in one.
_ELSEWHERE: Final = ("provide", "consume", "intercept", "check", "help")
#: Keys of [intercept], and their options.
_INTERCEPT: Final = {
    "services": "--intercept",
    "tproxy_listen": "--tproxy-listen",
    "dns_listen": "--dns-listen",
    "dns_suffix": "--dns-suffix",
}


def read(path: Path) -> dict[str, object]:
    """The file as a table.

    Raises:
        click.UsageError: it cannot be read, or is no TOML.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise click.UsageError(f"{path}: larger than {MAX_BYTES} bytes")
        return tomllib.loads(data.decode("utf-8"))
    except OSError as error:
        raise click.UsageError(f"{path}: cannot read: {error.strerror}") from None
    except ValueError as error:  # UnicodeDecodeError and TOMLDecodeError are ones
        raise click.UsageError(f"{path}: not TOML: {error}") from None


def is_agents(table: Mapping[str, object]) -> bool:
    """True for the file of an agent: a daemon's has nothing but tables at its top."""
    return any(not isinstance(value, dict) for value in table.values())


def control_socket(path: Path, table: Mapping[str, object]) -> Path:
    """Where an agent with this file can be asked.

    Raises:
        click.UsageError: it names no control socket.
    """
    named = table.get("control_socket")
    if not isinstance(named, str) or not named:
        raise click.UsageError(f"{path}: it is an agent's, and names no control_socket")
    return path.parent / Path(named).expanduser()


def arguments(path: Path, command: click.Command) -> list[str]:
    """The command line that says the same.

    Args:
        command: whose options the keys are.

    Raises:
        click.UsageError: the file cannot be read, a key is unknown, or a value of the wrong kind.
    """
    return [*_arguments(path, command)]


def _arguments(path: Path, command: click.Command) -> Iterator[str]:
    options = {
        name.removeprefix("--").replace("-", "_"): one
        for one in command.params
        for name in one.opts
        if name.startswith("--")
    }
    known = [name for name in options if name not in _ELSEWHERE]
    for key, value in read(path).items():
        if key in ("provide", "consume"):
            for service, addresses in _table(path, key, value).items():
                for address in _texts(path, f"{key}.{service}", addresses):
                    yield f"--{key}={service}={address}"
        elif key == "intercept":
            for inner, found in _table(path, key, value).items():
                if inner not in _INTERCEPT:
                    raise _unknown(
                        path, f"intercept.{inner}", [f"intercept.{n}" for n in _INTERCEPT]
                    )
                for text in _texts(path, f"intercept.{inner}", found):
                    yield f"{_INTERCEPT[inner]}={text}"
        elif key not in known:
            raise _unknown(path, key, [*known, "provide", "consume", "intercept"])
        elif not _in_environment(options[key]):
            for text in _texts(path, key, value):
                shown = path.parent / Path(text).expanduser() if key in _PATHS else text
                yield f"--{key.replace('_', '-')}={shown}"


def _in_environment(option: click.Parameter) -> bool:
    return isinstance(option.envvar, str) and bool(os.environ.get(option.envvar))


def _table(path: Path, key: str, value: object) -> Mapping[str, object]:
    if not isinstance(value, dict):
        raise click.UsageError(f"{path}: {key}: a table is wanted, as [{key}] and lines below it")
    return value


def _texts(path: Path, key: str, value: object) -> list[str]:
    """One value or a list of them."""
    values = value if isinstance(value, list) else [value]
    for one in values:
        if isinstance(one, bool) or not isinstance(one, str | int | float):
            raise click.UsageError(f"{path}: {key}: a text is wanted, or a list of texts")
    return [str(one) for one in values]


def _unknown(path: Path, key: str, known: list[str]) -> click.UsageError:
    close = difflib.get_close_matches(key, known, 1)
    hint = f"did you mean {close[0]}?" if close else f"known are {', '.join(sorted(known))}"
    return click.UsageError(f"{path}: {key}: no such setting; {hint}")
