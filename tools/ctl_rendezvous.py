"""`trunkline ctl rendezvous`: the services that are registered, and an end to one of them."""

from __future__ import annotations

from pathlib import Path

import click

from tools.control_client import ControlClient
from tools.control_text import number, size, text, whole
from tools.ctl_running import dump, options, run


@click.group()
def rendezvous() -> None:
    """Services of the rendezvous door, and their users."""


@rendezvous.command("list")
@click.option("--filter", "needle", default="", help="Only rows with this text in any field.")
@options
def list_services(needle: str, socket: Path | None, as_json: bool) -> None:
    """List services: port, protocol, name, whose they are, users and bytes."""

    async def work(client: ControlClient) -> None:
        rows = await client.rows("rendezvous_list", filter=needle)
        if as_json:
            dump(rows)
            return
        for row in rows:
            who = text(row["client"]) or text(row["source"])
            click.echo(
                f"{whole(row, 'port'):>5}  {text(row['protocol']):<9}  {text(row['name']):<20}  "
                f"{who:<24}  {whole(row, 'users')} users, {whole(row, 'waiting')} wait, "
                f"{whole(row, 'served')} so far, {size(number(row, 'bytes_in'))} in, "
                f"{size(number(row, 'bytes_out'))} out"
            )

    run(socket, work)


@rendezvous.command("close")
@click.argument("which")
@options
def close_service(which: str, socket: Path | None, as_json: bool) -> None:
    """Close a service, and reset its users. WHICH is a port, a name or an id."""

    async def work(client: ControlClient) -> None:
        answer = await client.request("rendezvous_close", which=which)
        if as_json:
            dump(answer)
        else:
            click.echo(f"closed: {whole(answer, 'closed')}")

    run(socket, work)
