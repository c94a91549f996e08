"""`trunkline ctl turn`: allocations, whose they are, and an end to one of them."""

from __future__ import annotations

from pathlib import Path

import click

from tools.control_client import ControlClient
from tools.control_text import number, size, text, whole
from tools.ctl_running import dump, options, run


@click.group()
def turn() -> None:
    """Allocations of the TURN door, and their users."""


@turn.command("list")
@click.argument("user", default="")
@click.option("--filter", "needle", default="", help="Only rows with this text in any field.")
@options
def list_allocations(user: str, needle: str, socket: Path | None, as_json: bool) -> None:
    """List allocations, of one USER or of all."""

    async def work(client: ControlClient) -> None:
        rows = await client.rows("turn_list", user=user, filter=needle)
        if as_json:
            dump(rows)
            return
        for row in rows:
            relayed = row["relayed"]
            assert isinstance(relayed, list)
            click.echo(
                f"{whole(row, 'number'):>7}  {text(row['user']):<24}  {text(row['client']):<24}  "
                f"{text(row['transport']):<6}  {', '.join(map(text, relayed))}  "
                f"{whole(row, 'channels')} channels, {size(number(row, 'bytes_from_client'))} up, "
                f"{size(number(row, 'bytes_from_peers'))} down"
            )

    run(socket, work)


@turn.command("show")
@click.argument("which", type=click.IntRange(1))
@options
def show_allocation(which: int, socket: Path | None, as_json: bool) -> None:
    """Show one allocation with its peers and channels. WHICH is its number."""

    async def work(client: ControlClient) -> None:
        row = await client.request("turn_show", number=which)
        if as_json:
            dump(row)
            return
        for name, value in row.items():
            if isinstance(value, dict):
                value = ", ".join(f"{k}: {text(v)}" for k, v in value.items()) or "-"  # as text
            click.echo(f"{name:<20}  {text(value)}")

    run(socket, work)


@turn.command("users")
@options
def list_users(socket: Path | None, as_json: bool) -> None:
    """List users: their allocations, and their bytes since the daemon was started."""

    async def work(client: ControlClient) -> None:
        rows = await client.rows("turn_users")
        if as_json:
            dump(rows)
            return
        for row in rows:
            click.echo(
                f"{text(row['user']):<32}  {whole(row, 'allocations'):>6}  "
                f"{size(number(row, 'bytes'))}"
            )

    run(socket, work)


@turn.command("close")
@click.argument("which", type=click.IntRange(1))
@options
def close_allocation(which: int, socket: Path | None, as_json: bool) -> None:
    """End an allocation; its client hears 437. WHICH is its number."""

    async def work(client: ControlClient) -> None:
        answer = await client.request("turn_close", number=which)
        if as_json:
            dump(answer)
        else:
            click.echo(f"closed: {whole(answer, 'closed')}")

    run(socket, work)
