"""`trunkline agent provide|consume|run`: the sidecar of a service or of its user."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from actors.node.logging import LEVELS
from config.endpoint import parse_endpoint
from tools.agent.dns_answers import dns_name_fault
from tools.agent.settings import AgentSettings, Mapping
from wire.orp.service_name import service_name_fault

_PREFIX = "TRUNKLINE_AGENT"


def _own_socket() -> str:
    # systemd gives StateDirectory= as a colon-separated list; the first entry is ours.
    directory = os.environ.get("STATE_DIRECTORY", "").split(":")[0]
    return f"{directory}/control.sock" if directory else ""


def _options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Options every form of the command has."""
    options = [
        click.option("--relay", "relays", multiple=True, metavar="HOST:PORT",
                     default=("127.0.0.1:7443",), show_default=True,
                     envvar=f"{_PREFIX}_RELAY", help="Relay to connect to; repeatable."),
        click.option("--relay-tcp", "relays_tcp", multiple=True, metavar="HOST:PORT",
                     envvar=f"{_PREFIX}_RELAY_TCP",
                     help="The relay's TCP address, for when UDP is blocked; repeatable."),
        click.option("--relay-id", "relay_ids", multiple=True, metavar="ID",
                     envvar=f"{_PREFIX}_RELAY_ID",
                     help="Id of a relay that may answer; repeatable. Default: any relay."),
        click.option("--p2p-listen", metavar="IP:PORT", envvar=f"{_PREFIX}_P2P_LISTEN",
                     help="UDP address for other agents; streams then leave the relay."),
        click.option("--p2p-advertise", metavar="IP:PORT", envvar=f"{_PREFIX}_P2P_ADVERTISE",
                     help="The same as seen from outside."),
        click.option("--cert", required=True, type=click.Path(exists=True, dir_okay=False),
                     envvar=f"{_PREFIX}_CERT", help="Certificate chain of this agent (PEM)."),
        click.option("--key", required=True, type=click.Path(exists=True, dir_okay=False),
                     envvar=f"{_PREFIX}_KEY", help="Its private key (PEM)."),
        click.option("--ca", required=True, type=click.Path(exists=True, dir_okay=False),
                     envvar=f"{_PREFIX}_CA", help="CA that relays must chain to (PEM)."),
        click.option("--uri", default="", envvar=f"{_PREFIX}_URI",
                     help="Own identity; default: the certificate's."),
        click.option("--server-name", default="localhost", show_default=True,
                     envvar=f"{_PREFIX}_SERVER_NAME", help="DNS name in the relay's certificate."),
        click.option("--drain-seconds", type=click.FloatRange(min=0), default=10.0,
                     show_default=True, envvar=f"{_PREFIX}_DRAIN_SECONDS",
                     help="How long SIGTERM lets open streams finish."),
        click.option("--log-level", default="INFO", envvar=f"{_PREFIX}_LOG_LEVEL",
                     type=click.Choice(LEVELS, case_sensitive=False), help="Least of the log."),
        click.option("--log-format", default="human", type=click.Choice(["human", "json"]),
                     envvar=f"{_PREFIX}_LOG_FORMAT"),
        click.option("--control-socket", type=click.Path(dir_okay=False),
                     default=_own_socket, envvar=f"{_PREFIX}_CONTROL_SOCKET",
                     help="Unix socket for `trunkline ctl` and `inspect`; under systemd the one "
                     "in $STATE_DIRECTORY."),
        click.option("--metrics-listen", metavar="HOST:PORT", envvar=f"{_PREFIX}_METRICS_LISTEN",
                     help="HTTP address for metrics, health and readiness."),
        click.option("--check", is_flag=True,
                     help="Check certificates, addresses and files, and end."),
    ]  # fmt: skip
    for option in reversed(options):
        function = option(function)
    return function


def _interception(function: Callable[..., Any]) -> Callable[..., Any]:
    """Options of services with virtual addresses."""
    options = [
        click.option("--tproxy-listen", default="127.0.0.1:15001", show_default=True,
                     metavar="IP:PORT", help="Where redirected connections arrive."),
        click.option("--dns-listen", default="127.0.0.1:5353", show_default=True,
                     metavar="IP:PORT", help="Where the virtual addresses are asked for."),
        click.option("--dns-suffix", default="outrelay", show_default=True,
                     help="Services are SERVICE.SUFFIX; empty: no DNS server."),
    ]  # fmt: skip
    for option in reversed(options):
        function = option(function)
    return function


@click.group(invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--config", type=click.Path(path_type=Path, dir_okay=False), metavar="TOML",
              help="Everything in a file: `trunkline agent --config agent.toml`.")  # fmt: skip
@click.option("--check", is_flag=True, help="With --config: check it, and end.")
@click.pass_context
def cli(context: click.Context, config: Path | None, check: bool) -> None:
    """Provide local services to others, or consume theirs."""
    if context.invoked_subcommand is not None:
        if config is not None or check:
            raise click.UsageError("--config is for everything, without a subcommand")
        return
    if config is None:
        if check:
            raise click.UsageError("--check is for --config FILE, or follows a subcommand")
        click.echo(context.get_help(), err=True)
        context.exit(2)
    from tools.agent.config_file import arguments

    try:
        with run.make_context("run", arguments(config, run), parent=context) as inner:
            inner.params["check"] = check
            run.invoke(inner)
    except click.UsageError as error:
        text = error.format_message()
        raise click.UsageError(text if str(config) in text else f"{config}: {text}") from None


@cli.command()
@click.option("--service", "services", multiple=True, required=True, help="Name to offer.")
@click.option("--target", "targets", multiple=True, required=True, metavar="HOST:PORT",
              help="Where it runs; one for each --service, in the same order.")  # fmt: skip
@_options
def provide(services: tuple[str, ...], targets: tuple[str, ...], **options: Any) -> None:
    """Offer local services under names."""
    _run(provide=_pairs(services, targets, "--target"), consume=(), options=options)


@cli.command()
@click.option("--service", "services", multiple=True, required=True, help="Name to reach.")
@click.option("--listen", "listens", multiple=True, metavar="HOST:PORT",
              help="Local address for it; one for each --service, in the same order.")  # fmt: skip
@click.option("--intercept", type=click.Choice(["explicit", "tproxy"]), default="explicit",
              show_default=True, help="tproxy: services have virtual addresses instead, "
              "below 100.64.0.0/10 (Linux).")  # fmt: skip
@_interception
@_options
def consume(
    services: tuple[str, ...],
    listens: tuple[str, ...],
    intercept: str,
    tproxy_listen: str,
    dns_listen: str,
    dns_suffix: str,
    **options: Any,
) -> None:
    """Listen locally for services of others."""
    if intercept == "explicit":
        _run(provide=(), consume=_pairs(services, listens, "--listen"), options=options)
        return
    if listens:
        raise click.UsageError("--listen is for --intercept explicit")
    options |= _intercepted(services, tproxy_listen, dns_listen, dns_suffix)
    _run(provide=(), consume=(), options=options)


def _intercepted(
    services: tuple[str, ...], tproxy_listen: str, dns_listen: str, dns_suffix: str
) -> dict[str, Any]:
    """The settings of an agent that gives these services virtual addresses."""
    seen: set[str] = set()
    for service in services:
        _check_name(service)
        fault = dns_name_fault(service, dns_suffix) if dns_suffix else ""
        if fault:
            raise click.UsageError(f"service {service!r} has no name in the DNS: {fault}")
        if service.lower() in seen:
            raise click.UsageError(f"service {service!r}: names differ in more than case here")
        seen.add(service.lower())
    return {
        "intercept": services,
        "transparent_listen": _literal(tproxy_listen),
        "dns_listen": _literal(dns_listen),
        "dns_suffix": dns_suffix,
    }


@cli.command()
@click.option("--provide", "provides", multiple=True, metavar="NAME=HOST:PORT")
@click.option("--consume", "consumes", multiple=True, metavar="NAME=HOST:PORT")
@click.option("--intercept", "intercepts", multiple=True, metavar="NAME",
              help="Service with a virtual address, below 100.64.0.0/10 (Linux).")  # fmt: skip
@_interception
@_options
def run(
    provides: tuple[str, ...],
    consumes: tuple[str, ...],
    intercepts: tuple[str, ...],
    tproxy_listen: str,
    dns_listen: str,
    dns_suffix: str,
    **options: Any,
) -> None:
    """Do both in one process."""
    if not provides and not consumes and not intercepts:
        raise click.UsageError("nothing to do: give --provide, --consume or --intercept")
    if intercepts:
        options |= _intercepted(intercepts, tproxy_listen, dns_listen, dns_suffix)
    _run(
        provide=tuple(_assignment(text) for text in provides),
        consume=tuple(_assignment(text) for text in consumes),
        options=options,
    )


def _pairs(names: tuple[str, ...], addresses: tuple[str, ...], option: str) -> tuple[Mapping, ...]:
    if len(names) != len(addresses):
        raise click.UsageError(
            f"{len(names)} --service but {len(addresses)} {option}: they go in pairs"
        )
    return tuple(_mapping(n, a) for n, a in zip(names, addresses, strict=True))


def _assignment(text: str) -> Mapping:
    name, equals, address = text.rpartition("=")
    if not equals:
        raise click.UsageError(f"expected NAME=HOST:PORT, not {text!r}")
    return _mapping(name, address)


def _check_name(service: str) -> None:
    fault = service_name_fault(service)
    if fault:
        raise click.UsageError(f"service {service[:80]!r}: {fault}")


def _mapping(service: str, address: str) -> Mapping:
    _check_name(service)
    try:
        endpoint = parse_endpoint(address)
    except ValueError as error:
        raise click.UsageError(f"{address!r}: {error}") from None
    return Mapping(service, endpoint.host, endpoint.port)


def _addresses(texts: tuple[str, ...]) -> tuple[tuple[str, int], ...]:
    mappings = (_mapping("relay", text) for text in texts)
    return tuple((one.host, one.port) for one in mappings)


def _literal(text: str | None) -> tuple[str, int] | None:
    if not text:
        return None
    address = _mapping("p2p", text)
    try:
        ipaddress.ip_address(address.host)
    except ValueError:
        raise click.UsageError(f"{text!r}: an IP address, not a name") from None
    return address.host, address.port


def _run(
    *, provide: tuple[Mapping, ...], consume: tuple[Mapping, ...], options: dict[str, Any]
) -> None:
    settings = AgentSettings(
        certificate=options["cert"],
        key=options["key"],
        ca=options["ca"],
        relays=_addresses(options["relays"]),
        relays_tcp=_addresses(options["relays_tcp"]),
        relay_ids=tuple(options["relay_ids"]),
        p2p_listen=_literal(options["p2p_listen"]),
        p2p_advertise=_literal(options["p2p_advertise"]),
        intercept=options.get("intercept", ()),
        transparent_listen=options.get("transparent_listen"),
        dns_listen=options.get("dns_listen"),
        dns_suffix=options.get("dns_suffix", ""),
        provide=provide,
        consume=consume,
        control_socket=options["control_socket"],
        metrics_listen=_addresses((options["metrics_listen"],))[0]
        if options["metrics_listen"]
        else None,
        uri=options["uri"],
        server_name=options["server_name"],
    )
    if options["check"]:
        sys.exit(check(settings, as_json=options["log_format"] == "json"))
    level, seconds = options["log_level"].upper(), options["drain_seconds"]
    sys.exit(serve(settings, level, options["log_format"], seconds))


def check(settings: AgentSettings, *, as_json: bool = False) -> int:
    """Say what would keep an agent from its work. Returns the exit code."""
    from actors.node.early_words import say
    from tools.agent.check import look

    found = asyncio.run(look(settings))
    for warning in found.warnings:
        say(warning, as_json=as_json, level="WARNING")
    for problem in found.problems:
        say(problem, as_json=as_json)
    if found.problems:
        return 2
    if as_json:
        say(f"settings are valid: {found.uri}", as_json=True, level="INFO")
    else:
        click.echo(f"settings are valid: {found.uri}")
    return 0


def serve(settings: AgentSettings, log_level: str, log_format: str, drain_seconds: float) -> int:
    """Run an agent until a signal. Returns the exit code."""
    from actors.node.early_words import log_the_uncaught, say
    from actors.node.logging import install
    from actors.transport.tls import TlsMaterialError
    from tools.agent.certificates import load_agent_identity
    from tools.agent.life import run_agent

    install(log_level, log_format)
    log_the_uncaught()
    try:
        load_agent_identity(settings)
    except (TlsMaterialError, OSError) as error:
        say(str(error), as_json=log_format == "json")
        return 2
    return asyncio.run(run_agent(settings, drain_seconds))
