"""`trunkline ctl agents`, `services` and `streams`: what the relay does, over all its doors."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, TypeVar

import click

from tools.control_client import ControlClient
from tools.control_text import duration, number, size, text, whole
from tools.ctl_running import WALK_SECONDS, dump, options, run
from wire.admin.messages import Row

Command = TypeVar("Command", bound=Callable[..., None])

#: Totals whose growth is a rate: the field, and the field that says bytes a second.
RATES: Final = {
    "bytes_in": "rate_in",
    "bytes_out": "rate_out",
    "bytes_up": "rate_up",
    "bytes_down": "rate_down",
}


def _filters(command: Command) -> Command:
    for option in (
        click.option("--limit", default=1000, type=click.IntRange(1, 100_000), help="Rows."),
        click.option("--service", default="", help="Only this service."),
        click.option("--agent", default="", help="Only this agent (its URI), on either side."),
        click.option("--tenant", default="", help="Only this tenant."),
        click.option("--door", default="", help="Only this door."),
        click.option("--filter", default="", help="Only rows with this text in any field."),
    ):
        command = option(command)
    return options(command)


_over = click.option(
    "--over",
    default=1.0,
    type=click.FloatRange(0, 60),
    help="Seconds over which rates are measured; 0 for none.",
)


@click.command()
@_over
@_filters
def agents(socket: Path | None, as_json: bool, over: float, **filters: object) -> None:
    """List who is connected: from where, since when, with which services and streams."""

    def line(row: Row) -> str:
        provided = row.get("services")
        names = provided if isinstance(provided, list) else []
        services = ", ".join(text(one) for one in names) or "no services"
        trip = f", {number(row, 'round_trip_ms'):.1f} ms" if "round_trip_ms" in row else ""
        streams = f", {whole(row, 'streams')} streams" if row.get("streams") is not None else ""
        ends = row.get("certificate_ends")
        return (
            f"{text(row.get('agent'))}\n  {text(row['door'])}, {text(row.get('transport'))} from "
            f"{text(row.get('remote'))}, up {duration(number(row, 'seconds'))}{trip}, "
            f"{services}{streams}{_rate(row, 'in', 'out')}\n"
            f"  {text(row.get('path'))}{f', certificate until {text(ends)}' if ends else ''}"
        )

    _show(socket, "agents", filters, as_json, line, over)


@click.command()
@_filters
def services(socket: Path | None, as_json: bool, **filters: object) -> None:
    """List what is offered here: by whom, at which target, with how many streams."""

    def line(row: Row) -> str:
        target = f" at {text(row['target'])}" if row.get("target") else ""
        if row.get("listen"):
            target += f", users come to port {whole(row, 'listen')}"
        return (
            f"{text(row.get('service'))}  {text(row['door'])}{_tenant(row)}, by "
            f"{text(row.get('provider'))}{target}, {whole(row, 'streams')} streams  "
            f"{text(row.get('path'))}"
        )

    _show(socket, "services", filters, as_json, line, 0.0)


@click.command()
@_over
@_filters
def streams(socket: Path | None, as_json: bool, over: float, **filters: object) -> None:
    """List what is carried: who to whom, service, age, bytes and rates up (from the consumer)
    and down.
    """

    def line(row: Row) -> str:
        moved = (
            f", up {size(number(row, 'bytes_up'))}, down {size(number(row, 'bytes_down'))}"
            if row.get("bytes_up") is not None
            else ""
        )
        method = f" {text(row['method'])}" if row.get("method") else ""
        return (
            f"{text(row.get('stream'))}  {text(row.get('service'))}{method}  "
            f"{text(row.get('state'))}, {text(row['door'])}, {text(row.get('mode'))}, "
            f"{duration(number(row, 'seconds'))}{moved}{_rate(row, 'up', 'down')}\n"
            f"  {text(row.get('consumer'))} -> {text(row.get('provider') or 'nobody yet')}\n"
            f"  {text(row.get('path'))}"
        )

    _show(socket, "streams", filters, as_json, line, over)


def _tenant(row: Row) -> str:
    return f", {text(row['tenant'])}" if row.get("tenant") else ""


def _rate(row: Row, *ways: str) -> str:
    found = [way for way in ways if row.get(f"rate_{way}") is not None]
    if not found:
        return ""
    return " (" + ", ".join(f"{way} {size(number(row, f'rate_{way}'))}/s" for way in found) + ")"


def _show(
    socket: Path | None,
    view: str,
    filters: Mapping[str, object],
    as_json: bool,
    line: Callable[[Row], str],
    over: float,
) -> None:
    async def work(client: ControlClient) -> None:
        loop = asyncio.get_running_loop()
        asked = loop.time()
        rows, result = await _ask(client, view, filters)
        if over and rows:
            await asyncio.sleep(over)
            before = {(row.get("door"), row.get("path")): row for row in rows}
            seconds = loop.time() - asked
            rows, result = await _ask(client, view, filters)
            add_rates(rows, before, seconds)
        if as_json:
            dump(rows)
        else:
            for row in rows:
                click.echo(line(row))
        left = whole(result, "matched") - len(rows)
        if left > 0:
            click.echo(f"{left} more: --limit", err=True)
        silent = result.get("silent")
        if isinstance(silent, list) and silent and not as_json:
            names = ", ".join(text(one) for one in silent)
            click.echo(f"not listed, see ctl tree: {names}", err=True)
        if not rows and not as_json:
            click.echo(f"no {view}", err=True)

    run(socket, work)


async def _ask(
    client: ControlClient, view: str, filters: Mapping[str, object]
) -> tuple[list[Row], Row]:
    call = client.call(view, **filters)
    async with asyncio.timeout(WALK_SECONDS):
        return [row async for row in call.rows()], await call.result()


def add_rates(
    rows: Sequence[Row], before: Mapping[tuple[object, object], Row], over: float
) -> None:
    """Bytes a second, where a row was there before; None where it is new."""
    for row in rows:
        older = before.get((row.get("door"), row.get("path")))
        for total, rate in RATES.items():
            if isinstance(row.get(total), int):
                grown = None if older is None else whole(row, total) - whole(older, total)
                row[rate] = None if grown is None else round(max(0, grown) / over, 1)
