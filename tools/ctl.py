"""`trunkline ctl`: ask and steer a running daemon from the shell.

Exit codes: 0 done; 1 refused or not found; 2 usage; 3 no daemon answers. `--json` prints one JSON
value, or one per line where rows come as they happen. Everything else is for people and may change.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click

from tools.control_client import ControlClient, ControlError
from tools.control_text import actor_words, clock, event_line, places, size, text, whole
from tools.control_tree import nested
from tools.ctl_explain import explain
from tools.ctl_peer import peer
from tools.ctl_policy import audit, policy
from tools.ctl_rendezvous import rendezvous
from tools.ctl_running import (
    PLAIN_SECONDS,
    RELOAD_SECONDS,
    SOCKET_VARIABLE,
    WALK_SECONDS,
    configured_socket,
    dump,
    dump_line,
    options,
    run,
)
from tools.ctl_turn import turn
from tools.ctl_views import agents, services, streams
from wire.admin.messages import Row


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--socket",
    type=click.Path(path_type=Path, dir_okay=False, readable=False),
    envvar=SOCKET_VARIABLE,
    help="Control socket of the daemon.",
)
@click.option(
    "--config",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The TOML settings file of a daemon or agent, which says where its socket is.",
)
@click.pass_context
def cli(context: click.Context, socket: Path | None, config: Path | None) -> None:
    """Ask and steer a running daemon.

    Exit codes: 0 done, 1 refused or not found, 2 usage, 3 no daemon answers.
    """
    context.obj = socket or (configured_socket(config) if config is not None else None)


cli.add_command(policy)
cli.add_command(audit)
cli.add_command(peer)
cli.add_command(rendezvous)
cli.add_command(turn)
cli.add_command(explain)
cli.add_command(agents)
cli.add_command(services)
cli.add_command(streams)


# The tree.


@cli.command()
@click.argument("path", default="/")
@click.option("--depth", type=click.IntRange(0), help="Levels below PATH.")
@click.option("--filter", "needle", default="", help="Only what has it in its id, class or path.")
@options
def tree(socket: Path | None, path: str, depth: int | None, needle: str, as_json: bool) -> None:
    """Show the actor tree, from PATH down.

    With --json: one object per actor, with `path`, its figures, and `children`, a list of the
    same; `child_count` tells when --depth or --filter left children out.
    """

    async def work(client: ControlClient) -> None:
        call = client.call("tree", path=path, depth=depth, filter=needle)
        rows: list[Row] = []
        async with asyncio.timeout(WALK_SECONDS):
            rows = [row async for row in call.rows()]
            result = await call.result()
        missing = result.get("unavailable")
        for one in missing if isinstance(missing, list) else []:
            click.echo(f"{text(one.get('path'))}: {text(one.get('message'))}", err=True)
        root = nested(rows)
        if root is None:
            raise ControlError("not_found", f"nothing at or below {path} matches {needle!r}")
        if as_json:
            dump(root)
        else:
            _draw(root)

    run(socket, work)


def _draw(root: Row) -> None:
    """Print a nested tree with box characters; depth-first without recursion."""
    stack: list[tuple[Row, str, str]] = [(root, "", "")]
    while stack:
        row, first, rest = stack.pop()
        name = text(row.get("path") if not first else row.get("id", row.get("path")))
        children = row["children"]
        assert isinstance(children, list)
        left_out = whole(row, "child_count") - len(children)
        more = f"  +{left_out} children" if left_out > 0 else ""
        click.echo(f"{first}{name}  {actor_words(row)}{more}")
        for index in range(len(children) - 1, -1, -1):
            last = index == len(children) - 1
            stack.append(
                (
                    children[index],
                    rest + ("└─ " if last else "├─ "),
                    rest + ("   " if last else "│  "),
                )
            )


# One actor.


@cli.command()
@click.argument("path")
@options
def describe(socket: Path | None, path: str, as_json: bool) -> None:
    """Show everything known of the actor at PATH."""

    async def work(client: ControlClient) -> None:
        details = await client.request("describe", path=path, timeout=PLAIN_SECONDS)
        if as_json:
            dump(details)
        else:
            _show(details)

    run(socket, work)


def _show(value: Mapping[str, object], indent: str = "") -> None:
    """Print fields aligned, objects indented below their name."""
    width = max((len(key) for key in value), default=0)
    for key, entry in value.items():
        if isinstance(entry, dict) and entry:
            click.echo(f"{indent}{key}:")
            _show(entry, indent + "  ")
        elif isinstance(entry, list) and entry and isinstance(entry[0], dict):
            click.echo(f"{indent}{key}:")
            for one in entry:
                click.echo(f"{indent}  " + "  ".join(f"{k} {text(v)}" for k, v in one.items()))
        else:
            shown = ", ".join(text(one) for one in entry) if isinstance(entry, list) else entry
            click.echo(f"{indent}{key:<{width}}  {text(shown) if shown not in ('', {}) else '-'}")


def _verb(name: str, summary: str) -> None:
    @cli.command(name, help=summary)
    @click.argument("path")
    @click.option("--reason", default="", help="Recorded in the log, the events and the exit.")
    @click.option("--force", is_flag=True, help="Also on the root and on the control server.")
    @options
    def act(socket: Path | None, path: str, reason: str, force: bool, as_json: bool) -> None:
        async def work(client: ControlClient) -> None:
            answer = await client.request(
                name, path=path, reason=reason, force=force, timeout=PLAIN_SECONDS
            )
            if as_json:
                dump(answer)
                return
            click.echo(
                f"{name} {text(answer.get('path'))}: {text(answer.get('class') or '-')}, "
                f"incarnation {whole(answer, 'incarnation')}, {text(answer.get('restart'))}"
            )

        run(socket, work)


_verb("kill", "Kill the actor at PATH; its supervisor decides what follows.")
_verb("crash", "Make the actor at PATH fail as if its own code had raised.")
_verb("stop", "Ask the actor at PATH to end gracefully.")
_verb("suspend", "Stop serving the mailbox of the actor at PATH; messages queue up to its bound.")
_verb("resume", "Serve the mailbox of a suspended actor again.")


# Rows as they happen.


@cli.command()
@click.argument("path", default="/")
@click.option("--last", default=20, type=click.IntRange(0, 2048), help="Past events to show first.")
@click.option("--kind", "kinds", multiple=True, help="Only this kind, such as exited; repeatable.")
@click.option("--count", type=click.IntRange(1), help="End after so many events.")
@click.option("--seconds", type=click.FloatRange(0), help="End after so many seconds.")
@click.option("--no-follow", is_flag=True, help="Only past events.")
@options
def events(
    socket: Path | None,
    path: str,
    last: int,
    kinds: tuple[str, ...],
    count: int | None,
    seconds: float | None,
    no_follow: bool,
    as_json: bool,
) -> None:
    """Show what happens at or below PATH: starts, exits, restarts, operators' acts.

    Runs until interrupted, or as long as --count, --seconds or --no-follow say.
    """
    args = {"path": path, "last": last, "kinds": ",".join(kinds), "follow": not no_follow}
    _follow(socket, "events", args, None if as_json else event_line, count, seconds)


@cli.command()
@click.argument("path")
@click.option("--limit", default=1000, type=click.IntRange(1, 100_000), help="Messages at most.")
@click.option("--rate", default=100, type=click.IntRange(1, 10_000), help="A second at most.")
@click.option("--seconds", default=60.0, type=click.FloatRange(0, 3600), help="At most so long.")
@click.option("--subtree", is_flag=True, help="Also the actors below PATH.")
@options
def trace(
    socket: Path | None,
    path: str,
    limit: int,
    rate: int,
    seconds: float,
    subtree: bool,
    as_json: bool,
) -> None:
    """Show which messages the actor at PATH handles: types, never contents. Ends by itself."""
    args = {"path": path, "limit": limit, "rate": rate, "seconds": seconds, "subtree": subtree}
    _follow(socket, "trace", args, None if as_json else _trace_line, None, None)


def _follow(
    socket: Path | None,
    op: str,
    args: Mapping[str, Any],
    line: Callable[[Row], str] | None,
    count: int | None,
    seconds: float | None,
) -> None:
    async def work(client: ControlClient) -> None:
        call = client.call(op, **args)
        shown = 0
        try:
            async with asyncio.timeout(seconds):
                async for row in call.rows():
                    if line is None:
                        dump_line(row)
                    else:
                        click.echo(line(row))
                    shown += 1
                    if shown == count:
                        return
        except TimeoutError:
            return
        result = await call.result()
        if op == "trace" and line is not None:
            click.echo("  ".join(f"{key} {text(value)}" for key, value in result.items()), err=True)

    run(socket, work)


def _trace_line(row: Row) -> str:
    at = f"{row['at']:.3f}" if isinstance(row.get("at"), float) else text(row.get("at"))
    return (
        f"{at} {text(row.get('path'))}  {text(row.get('message_type'))}"
        f"  queued {whole(row, 'depth')}"
    )


# The node.


@cli.command()
@options
def doors(socket: Path | None, as_json: bool) -> None:
    """List the doors: which protocols are served, and where."""

    async def work(client: ControlClient) -> None:
        rows = await client.rows("doors")
        if as_json:
            dump(rows)
            return
        for row in rows:
            click.echo(f"{row['door']}: {'draining' if row['draining'] else 'open'}")
            click.echo("\n".join(f"  {address}" for address in places(row)))

    run(socket, work)


@cli.command("reload")
@options
def reload_(socket: Path | None, as_json: bool) -> None:
    """Read settings, certificates and rules again, as SIGHUP does; all of them or none."""

    async def work(client: ControlClient) -> None:
        answer = await client.request("reload", timeout=RELOAD_SECONDS)
        if as_json:
            dump(answer)
        else:
            click.echo(f"reloaded: {text(answer.get('reloaded'))}")

    run(socket, work)


@cli.command()
@click.argument("path", default="/")
@click.option("--classes", is_flag=True, help="Sums per actor class.")
@options
def stats(socket: Path | None, path: str, classes: bool, as_json: bool) -> None:
    """Show counters of the node, and of the actors at or below PATH."""

    async def work(client: ControlClient) -> None:
        answer = await client.request("stats", path=path, classes=classes, timeout=WALK_SECONDS)
        if as_json:
            dump(answer)
            return
        table = answer.pop("classes", None)
        _show(answer)
        if isinstance(table, list):
            _show_classes(table)

    run(socket, work)


def _show_classes(rows: list[Row]) -> None:
    columns = ("actors", "mailbox", "handled", "restarts")
    width = max((len(text(row.get("class"))) for row in rows), default=0)
    heads = "".join(f"{name:>10}" for name in columns)
    click.echo(f"\n{'class':<{width}}{heads}{'in':>8}{'out':>8}")
    for row in rows:
        figures = "".join(f"{whole(row, name):>10}" for name in columns)
        moved = f"{size(whole(row, 'bytes_in')):>8}{size(whole(row, 'bytes_out')):>8}"
        click.echo(f"{text(row.get('class') or '-'):<{width}}{figures}{moved}")


@cli.command("dead-letters")
@click.argument("path", default="/")
@click.option("--last", default=50, type=click.IntRange(0, 2048), help="Samples to show.")
@options
def dead_letters(socket: Path | None, path: str, last: int, as_json: bool) -> None:
    """Show messages that reached nobody: counts by type and cause, and the last ones."""

    async def work(client: ControlClient) -> None:
        call = client.call("dead_letters", path=path, last=last)
        async with asyncio.timeout(PLAIN_SECONDS):
            samples = [row async for row in call.rows()]
            answer = await call.result()
        if as_json:
            dump({**answer, "samples": samples})
            return
        click.echo(f"{whole(answer, 'total')} dead letters")
        by_type = answer.get("by_type")
        for one in by_type if isinstance(by_type, list) else []:
            kind, why = text(one.get("message_type")), text(one.get("why"))
            click.echo(f"{whole(one, 'count'):>10}  {kind}, {why}")
        for row in samples:
            click.echo(
                f"{clock(row.get('at'))} {text(row.get('message_type'))} "
                f"{text(row.get('sender') or 'outside')} -> {text(row.get('target'))}: "
                f"{text(row.get('why'))}"
            )

    run(socket, work)
