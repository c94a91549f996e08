"""`trunkline ctl`: ask and steer a running daemon from the shell.

Exit codes: 0 done; 1 refused or not found; 2 usage; 3 no daemon answers.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import click
import orjson

from config.paths import find_control_socket
from tools.control_client import CannotConnect, ControlClient, ControlError, Disconnected
from wire.admin.messages import Row

EXIT_REFUSED = 1
EXIT_NO_DAEMON = 3

_json = click.option("--json", "as_json", is_flag=True, help="Machine-readable output.")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--socket",
    type=click.Path(path_type=Path),
    envvar="TRUNKLINE_CONTROL_SOCKET",
    help="Control socket of the daemon.",
)
@click.pass_context
def cli(ctx: click.Context, socket: Path | None) -> None:
    """Ask and steer a running daemon."""
    ctx.obj = socket or find_control_socket()


def run(path: Path, work: Callable[[ControlClient], Awaitable[None]]) -> None:
    """Connect, work, and turn failures into exit codes."""

    async def main() -> None:
        client = await ControlClient.connect(path)
        try:
            await work(client)
        finally:
            await client.close()

    try:
        asyncio.run(main())
    except CannotConnect as error:
        click.echo(f"no daemon answers: {error}", err=True)
        sys.exit(EXIT_NO_DAEMON)
    except (ControlError, Disconnected) as error:
        click.echo(str(error), err=True)
        sys.exit(EXIT_REFUSED)
    except TimeoutError:
        click.echo("the daemon did not answer in time", err=True)
        sys.exit(EXIT_REFUSED)
    except KeyboardInterrupt:
        sys.exit(0)


def dump(value: object) -> None:
    """Print one JSON value."""
    click.echo(orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS).decode())


def line(value: object) -> None:
    """Print one JSON value on one line."""
    click.echo(orjson.dumps(value).decode())


# Tree.


def nested(rows: list[Row]) -> Row:
    """One object per actor, children inside, from rows in tree order.

    A row whose parent was left out (by depth or filter) hangs below its nearest ancestor shown.
    """
    places: dict[str, Row] = {}
    top: Row | None = None
    for row in rows:
        entry: Row = {**row, "children": []}
        if isinstance(row.get("children"), int):
            entry["child_count"] = row["children"]
        path = str(row.get("path", ""))
        parent = _nearest(places, path)
        if parent is None:
            if top is None:
                top = entry
        else:
            below = parent["children"]
            assert isinstance(below, list)
            below.append(entry)
        places[path] = entry
    return top or {"path": "/", "children": []}


def _nearest(places: dict[str, Row], path: str) -> Row | None:
    while path and path != "/":
        path = path.rpartition("/")[0] or "/"
        if path in places:
            return places[path]
    return None


@cli.command()
@click.argument("path", default="/")
@click.option("--depth", type=click.IntRange(0), help="Levels below PATH.")
@click.option("--filter", "needle", default="", help="Only actors whose path or class contains it.")
@_json
@click.pass_obj
def tree(socket: Path, path: str, depth: int | None, needle: str, as_json: bool) -> None:
    """Print the actor tree."""

    async def work(client: ControlClient) -> None:
        args: dict[str, Any] = {"path": path}
        if depth is not None:
            args["depth"] = depth
        if needle:
            args["filter"] = needle
        root = nested(await client.rows("tree", **args))
        if as_json:
            dump(root)
        else:
            _draw(root, "", "")

    run(socket, work)


def _draw(row: Row, first: str, rest: str) -> None:
    name = str(row.get("id") or row.get("path"))
    notes = [str(row.get("state", ""))]
    if row.get("class"):
        notes.append(str(row["class"]))
    if row.get("mailbox"):
        notes.append(f"mailbox {row['mailbox']}/{row.get('bound')}")
    if row.get("restarts"):
        notes.append(f"restarts {row['restarts']}")
    moved = int(str(row.get("bytes_in") or 0)) + int(str(row.get("bytes_out") or 0))
    if moved:
        notes.append(f"{moved} bytes")
    click.echo(f"{first}{name}  [{', '.join(note for note in notes if note)}]")
    children = row["children"]
    assert isinstance(children, list)
    for index, child in enumerate(children):
        last = index == len(children) - 1
        _draw(child, rest + ("└─ " if last else "├─ "), rest + ("   " if last else "│  "))


# Single actors.


@cli.command()
@click.argument("path")
@_json
@click.pass_obj
def describe(socket: Path, path: str, as_json: bool) -> None:
    """Show everything about one actor."""

    async def work(client: ControlClient) -> None:
        details = await client.request("describe", path=path)
        if as_json:
            dump(details)
        else:
            _show(details, "")

    run(socket, work)


def _show(value: Row, indent: str) -> None:
    for key, entry in value.items():
        if isinstance(entry, dict):
            click.echo(f"{indent}{key}:")
            _show(entry, indent + "  ")
        elif isinstance(entry, list):
            click.echo(f"{indent}{key}: {', '.join(str(item) for item in entry) or '-'}")
        else:
            click.echo(f"{indent}{key}: {entry if entry not in ('', None) else '-'}")


def _verb(name: str, summary: str) -> None:
    @cli.command(name, help=summary)
    @click.argument("path")
    @click.option("--reason", default="", help="Recorded with the action.")
    @click.option("--force", is_flag=True, help="Also on the root and on the control server.")
    @_json
    @click.pass_obj
    def act(socket: Path, path: str, reason: str, force: bool, as_json: bool) -> None:
        async def work(client: ControlClient) -> None:
            before = await client.request(name, path=path, reason=reason, force=force)
            if as_json:
                dump(before)
            else:
                click.echo(
                    f"{name}: {before.get('path')} ({before.get('class')}, "
                    f"incarnation {before.get('incarnation')}, {before.get('restart')})"
                )

        run(socket, work)


_verb("kill", "Kill an actor; its supervisor decides what follows.")
_verb("crash", "Make an actor fail as if its own code had raised.")
_verb("stop", "Ask an actor to end gracefully.")
_verb("suspend", "Stop serving an actor's mailbox.")
_verb("resume", "Serve it again.")


# Streams of rows.


@cli.command()
@click.option("--path", default="/", help="Only this subtree.")
@click.option("--last", default=20, type=click.IntRange(0, 2048), help="Earlier events to show.")
@click.option("--count", type=click.IntRange(1), help="End after so many.")
@click.option("--seconds", type=float, help="End after so long.")
@_json
@click.pass_obj
def events(
    socket: Path, path: str, last: int, count: int | None, seconds: float | None, as_json: bool
) -> None:
    """Follow what supervisors decide."""
    _follow(
        socket,
        "events",
        {"path": path, "last": last, "follow": True},
        _event_text if not as_json else None,
        count,
        seconds,
    )


@cli.command()
@click.argument("path")
@click.option("--limit", default=1000, type=click.IntRange(1), help="Messages at most.")
@click.option("--seconds", default=60.0, help="Seconds at most.")
@click.option("--subtree", is_flag=True, help="The whole subtree.")
@_json
@click.pass_obj
def trace(
    socket: Path, path: str, limit: int, seconds: float, subtree: bool, as_json: bool
) -> None:
    """Show the messages an actor handles; ends by itself."""
    args = {"path": path, "limit": limit, "seconds": seconds, "subtree": subtree}
    _follow(socket, "trace", args, _trace_text if not as_json else None, None, seconds + 1)


def _follow(
    socket: Path,
    op: str,
    args: dict[str, Any],
    text: Callable[[Row], str] | None,
    count: int | None,
    seconds: float | None,
) -> None:
    async def work(client: ControlClient) -> None:
        call = client.call(op, **args)
        shown = 0
        try:
            async with asyncio.timeout(seconds):
                async for row in call.rows():
                    if text is None:
                        line(row)
                    else:
                        click.echo(text(row))
                    shown += 1
                    if count is not None and shown >= count:
                        break
        except TimeoutError:
            pass
        call.cancel()

    run(socket, work)


def _event_text(row: Row) -> str:
    at = row.get("at")
    clock = time.strftime("%H:%M:%S", time.localtime(at)) if isinstance(at, (int, float)) else "?"
    fields = row.get("fields")
    notes = ""
    if isinstance(fields, dict):
        chosen = ("reason", "decision", "initiator", "detail", "verb", "class", "message")
        notes = "; ".join(f"{key} {fields[key]}" for key in chosen if fields.get(key))
    return f"{clock} {row.get('kind', ''):<12} {row.get('path', '')}  {notes}".rstrip()


def _trace_text(row: Row) -> str:
    return f"{row.get('at')} {row.get('path')} {row.get('message_type')} depth {row.get('depth')}"


@cli.command()
@click.option("--classes", is_flag=True, help="Sums per actor class.")
@_json
@click.pass_obj
def stats(socket: Path, classes: bool, as_json: bool) -> None:
    """Counters of the whole node."""

    async def work(client: ControlClient) -> None:
        answer = await client.request("stats", classes=classes, timeout=60.0)
        if as_json:
            dump(answer)
        else:
            _show(answer, "")

    run(socket, work)


@cli.command("dead-letters")
@_json
@click.pass_obj
def dead_letters(socket: Path, as_json: bool) -> None:
    """Messages that reached nobody."""

    async def work(client: ControlClient) -> None:
        call = client.call("dead_letters")
        rows = [row async for row in call.rows()]
        answer = await call.result()
        if as_json:
            dump({**answer, "samples": rows or answer.get("samples", [])})
        else:
            _show({**answer, "samples": rows} if rows else answer, "")

    run(socket, work)
