"""`trunkline compat relay`: the command line of lyondhill/relay.

`relay PORT` serves at that port of every address, with ports from there on for services; `relay
--localForwardPort=P HOST PORT` forwards users of the relay at HOST to port P here.

Source: protocol sheet rendezvous 1.1.
"""

from __future__ import annotations

import asyncio
import socket
import sys

import click


@click.command("relay", context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--localForwardPort", "local_port", type=click.IntRange(1, 65535), metavar="P",
              help="Forward users to this port of localhost.")  # fmt: skip
@click.argument("arguments", nargs=-1, metavar="[HOST] PORT")
def cli(local_port: int | None, arguments: tuple[str, ...]) -> None:
    """The rendezvous relay, or its forwarder."""
    if local_port is not None:
        if len(arguments) != 2:
            raise click.UsageError("a forwarder has two arguments, HOST and PORT of the relay")
        sys.exit(_forward(arguments[0], _port(arguments[1]), local_port))
    if len(arguments) != 1:
        raise click.UsageError("a relay has one argument, its PORT")
    sys.exit(asyncio.run(_serve(_port(arguments[0]))))


def _port(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) > 65535:
        raise click.UsageError(f"{text!r} is no port")
    return int(text)


async def _serve(port: int) -> int:
    """The rendezvous door and nothing else, until a signal."""
    from actors.node.daemon import Daemon, Hooks
    from actors.node.logging import install
    from actors.rendezvous.access import Access
    from actors.rendezvous.settings import RendezvousSettings
    from actors.rendezvous.tree import Rendezvous
    from actors.runtime import ActorSystem, Supervisor

    install("INFO", "human")
    doors: list[Rendezvous] = []

    def root(system: ActorSystem) -> Supervisor:
        host = "::" if socket.has_dualstack_ipv6() else "0.0.0.0"
        doors.append(
            Rendezvous(
                system, listen=[(host, port)], settings=RendezvousSettings(), access=Access(None)
            )
        )
        return Supervisor([doors[0].spec()])

    async def drain(_: ActorSystem) -> None:
        await doors[0].drain()

    try:
        hooks = Hooks(drain=drain)
        return int(await Daemon("relay", root, drain_seconds=lambda: 10.0, hooks=hooks).run())
    finally:
        for door in doors:
            door.abort()


def _forward(host: str, port: int, local_port: int) -> int:
    from config.endpoint import Endpoint
    from tools.forward.main import serve
    from tools.forward.settings import ForwardedService, ForwardSettings
    from wire.rendezvous.line import Protocol

    service = ForwardedService(
        f"localhost:{local_port}",
        (Endpoint(host, port),),
        (Endpoint("localhost", local_port),),
        Protocol.MULTIPLEX,
    )

    def announce(_: ForwardedService, address: str) -> None:
        click.echo(f"established relay address: {host}:{address.rpartition(':')[2]}")

    options = {"log_level": "WARNING", "log_format": "human", "drain_seconds": 10.0}
    return serve(ForwardSettings({service.title: service}), announce, options)
