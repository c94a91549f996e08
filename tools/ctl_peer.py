"""`trunkline ctl peer`: the peers that are connected, and an end to one of them."""

from __future__ import annotations

from pathlib import Path

import click

from tools.control_client import ControlClient
from tools.control_text import number, size, text, whole
from tools.ctl_running import dump, options, run


@click.group()
def peer() -> None:
    """Peers of the peer door."""


@peer.command("list")
@click.option("--filter", "needle", default="", help="Only rows with this text in any field.")
@options
def list_peers(needle: str, socket: Path | None, as_json: bool) -> None:
    """List peers: ID, transport, where from, messages and bytes."""

    async def work(client: ControlClient) -> None:
        rows = await client.rows("peer_list", filter=needle)
        if as_json:
            dump(rows)
            return
        for row in rows:
            click.echo(
                f"{text(row['peer'])}  {text(row['transport']):<4}  {text(row['source']):<24}  "
                f"{whole(row, 'messages_in')} in ({size(number(row, 'bytes_in'))}), "
                f"{whole(row, 'messages_out')} out ({size(number(row, 'bytes_out'))})"
            )

    run(socket, work)


@peer.command("close")
@click.argument("which")
@options
def close_peer(which: str, socket: Path | None, as_json: bool) -> None:
    """Close a peer's connection. WHICH is an ID as the list has it."""

    async def work(client: ControlClient) -> None:
        answer = await client.request("peer_close", which=which)
        if as_json:
            dump(answer)
        else:
            click.echo(f"closed: {whole(answer, 'closed')}")

    run(socket, work)
