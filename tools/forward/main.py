"""`trunkline forward`: local servers at ports of a rendezvous relay."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import click
from loguru import logger

from actors.node.logging import LEVELS
from tools.forward.settings import (
    ForwardedService,
    ForwardSettings,
    SettingsRefused,
    load,
    service_of,
)

_PREFIX = "TRUNKLINE_FORWARD"


@click.command("forward", context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--to", multiple=True, metavar="HOST:PORT", envvar=f"{_PREFIX}_TO",
              help="Relay; repeatable, the next one is tried when one is lost.")  # fmt: skip
@click.option("--local", multiple=True, metavar="HOST:PORT",
              help="Local server; repeatable, users are spread over them.")  # fmt: skip
@click.option("--protocol", type=click.Choice(["multiplex", "pool", "event"]),
              default="multiplex", show_default=True, help="How users come here.")  # fmt: skip
@click.option("--name", default="", help="Of the service; with a token its port is kept for it.")
@click.option("--token-file", default="", envvar=f"{_PREFIX}_TOKEN_FILE", metavar="FILE",
              help="Its first line proves who asks.")  # fmt: skip
@click.option("--port", type=click.IntRange(1, 65535), help="The port it wants.")
@click.option("--proxy-protocol", type=click.Choice(["v1", "v2"]), default=None,
              help="Tell the local server who its user is.")  # fmt: skip
@click.option("--visitors", multiple=True, metavar="NETWORK",
              help="Network users may come from; repeatable.")  # fmt: skip
@click.option("--tls-ca", default="", metavar="PEM",
              help="Speak TLS; whom the relay's certificate must chain to.")  # fmt: skip
@click.option("--tls-server-name", default="", metavar="NAME",
              help="Name in the relay's certificate; default: its host.")  # fmt: skip
@click.option("--tls-cert", default="", metavar="PEM", help="Own certificate, where one is asked.")
@click.option("--tls-key", default="", metavar="PEM", help="Its private key.")
@click.option("--idle", type=click.IntRange(1, 1024), default=4, show_default=True,
              help="Connections a pool keeps for users.")  # fmt: skip
@click.option("--check-seconds", type=click.FloatRange(min=0), default=0.0, show_default=True,
              help="Between two looks at the local server; while it is down no users come. "
              "0: never look.")  # fmt: skip
@click.option("--config", type=click.Path(path_type=Path, dir_okay=False), metavar="TOML",
              help="Several services; SIGHUP reads it again.")  # fmt: skip
@click.option("--drain-seconds", type=click.FloatRange(min=0), default=10.0, show_default=True,
              help="How long SIGTERM lets users finish.")  # fmt: skip
@click.option("--log-level", default="INFO", show_default=True, envvar=f"{_PREFIX}_LOG_LEVEL",
              type=click.Choice(LEVELS, case_sensitive=False))  # fmt: skip
@click.option("--log-format", type=click.Choice(["human", "json"]), default="human")
def cli(config: Path | None, **options: Any) -> None:
    """Make local servers reachable at ports of a rendezvous relay.

    Prints HOST:PORT when a service can be reached, a line each time. Options that a relay of other
    make does not know: --name, --token-file, --port, --proxy-protocol, --visitors.
    """
    try:
        settings = _of_file(config, options) if config is not None else _of_flags(options)
    except SettingsRefused as refused:
        raise click.UsageError(str(refused)) from None
    one = len(settings.services) == 1

    def announce(service: ForwardedService, address: str) -> None:
        if options["log_format"] == "json":
            logger.bind(address=address).info("{} is at {}", service.title, address)
        else:
            click.echo(address if one else f"{service.title} {address}")

    sys.exit(serve(settings, announce, options))


def _of_file(config: Path, options: dict[str, Any]) -> ForwardSettings:
    if options["local"]:
        raise SettingsRefused("--config and --local: one or the other")
    return load(config)


def _of_flags(options: dict[str, Any]) -> ForwardSettings:
    service = service_of(
        to=options["to"],
        local=options["local"],
        protocol=options["protocol"],
        name=options["name"],
        token_file=options["token_file"],
        port=options["port"] or 0,
        proxy_protocol=options["proxy_protocol"] or "",
        visitors=options["visitors"],
        idle=options["idle"],
        check_seconds=options["check_seconds"],
        tls_ca=options["tls_ca"],
        tls_server_name=options["tls_server_name"],
        tls_cert=options["tls_cert"],
        tls_key=options["tls_key"],
    )
    return ForwardSettings({service.title: service})


def serve(settings: ForwardSettings, announce: Any, options: dict[str, Any]) -> int:
    """Run a forwarder until a signal. Returns the exit code.

    Args:
        announce: called with a service and the address its users come to.
    """
    from actors.node.early_words import log_the_uncaught
    from actors.node.logging import install
    from tools.forward.tree import Forwarder

    install(options["log_level"].upper(), options["log_format"])
    log_the_uncaught()
    return int(asyncio.run(Forwarder(settings, announce).run(options["drain_seconds"])))
