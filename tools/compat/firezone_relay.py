"""`trunkline compat firezone-relay`: Firezone's relay, with its flags and environment.

Two things are different on purpose: peers must be permitted, as RFC 8656 has it, and peers that are
not public are denied unless --allow-peer lists them.

Source: protocol sheet TURN 1.3 to 1.8.
"""

from __future__ import annotations

import asyncio
import secrets
import sys
from ipaddress import IPv4Address, IPv6Address, ip_network
from pathlib import Path

import click


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65535:
        raise click.BadParameter(f"{text!r} is not address:port")
    return host.strip("[]"), int(port)


def _token(text: str) -> str:
    """The token itself, or the file it is in."""
    path = Path(text)
    if "/" in text and path.is_file():
        return path.read_text()[:4096].strip()
    return text


@click.command("firezone-relay", context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--public-ip4-addr", envvar="PUBLIC_IP4_ADDR", default="", help="As clients see us.")
@click.option("--public-ip6-addr", envvar="PUBLIC_IP6_ADDR", default="", help="As clients see us.")
@click.option("--bind-ip4-addr", envvar="BIND_IP4_ADDR", default="0.0.0.0", help="Bound.")
@click.option("--bind-ip6-addr", envvar="BIND_IP6_ADDR", default="::", help="Bound.")
@click.option("--listen-port", envvar="LISTEN_PORT", default=3478, type=click.IntRange(0, 65535))
@click.option("--lowest-port", envvar="LOWEST_PORT", default=49152, type=click.IntRange(1, 65535))
@click.option("--highest-port", envvar="HIGHEST_PORT", default=65535, type=click.IntRange(1, 65535))
@click.option("--health-check-addr", "health_check", envvar="HEALTH_CHECK_ADDR",
              default="0.0.0.0:8080")  # fmt: skip
@click.option("--log-format", envvar="LOG_FORMAT", default="human",
              type=click.Choice(["human", "json"]))  # fmt: skip
@click.option("--allow-peer", multiple=True, metavar="NETWORK", help="Peers that may be reached.")
@click.argument("api_url", envvar="FIREZONE_API_URL")
@click.argument("token", envvar="FIREZONE_TOKEN")
@click.argument("name", envvar="FIREZONE_NAME", default="")
def cli(
    *,
    public_ip4_addr: str, public_ip6_addr: str, bind_ip4_addr: str, bind_ip6_addr: str,
    listen_port: int, lowest_port: int, highest_port: int, health_check: str, log_format: str,
    allow_peer: tuple[str, ...], api_url: str, token: str, name: str,
) -> None:  # fmt: skip
    """Firezone's relay: API_URL, TOKEN and NAME, or the environment as it is."""
    from actors.turn.portal import PortalState
    from actors.turn.settings import TurnSettings
    from wire.phoenix.endpoint import websocket_url
    from wire.turn.settings import TurnRules

    if not (public_ip4_addr or public_ip6_addr):
        raise click.UsageError("PUBLIC_IP4_ADDR or PUBLIC_IP6_ADDR is needed")
    if lowest_port > highest_port:
        raise click.UsageError("LOWEST_PORT is above HIGHEST_PORT")
    try:
        if public_ip4_addr:
            IPv4Address(public_ip4_addr)
        if public_ip6_addr:
            IPv6Address(public_ip6_addr)
        allowed = tuple(map(ip_network, allow_peer))
        url = websocket_url(
            api_url, name=name, ipv4=public_ip4_addr, ipv6=public_ip6_addr, port=listen_port
        )
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    pairs = [(public_ip4_addr, bind_ip4_addr), (public_ip6_addr, bind_ip6_addr)]
    bound = {host: shown for shown, host in pairs if shown}
    state = PortalState(secrets.token_hex(32))
    settings = TurnSettings(
        realm="firezone",
        listen=tuple((host, listen_port) for host in bound),
        relay_hosts=tuple(bound),
        external=bound,
        first_port=lowest_port,
        last_port=highest_port,
        stamp_secret=state.stamp_secret,
        allowed=allowed,
        rules=TurnRules(one_per_user=True, mobility=False),
    )
    sys.exit(asyncio.run(_serve(settings, state, url, _token(token), _address(health_check),
                                log_format)))  # fmt: skip


async def _serve(
    settings: object, state: object, url: str, token: str, health: tuple[str, int], log: str
) -> int:
    """The TURN door, its portal and its health page, until a signal or a fatal answer."""
    from actors.node.daemon import Daemon, Hooks
    from actors.node.logging import install
    from actors.runtime import ActorSystem, ChildSpec, Restart, Supervisor
    from actors.turn.health import HealthServer
    from actors.turn.portal import PortalLink, PortalState
    from actors.turn.settings import TurnSettings
    from actors.turn.tree import Turn

    assert isinstance(settings, TurnSettings)
    assert isinstance(state, PortalState)
    install("INFO", "json" if log == "json" else "human")
    doors: list[Turn] = []
    port: list[int] = []

    def root(system: ActorSystem) -> Supervisor:
        doors.append(Turn(system, settings))
        return Supervisor(
            [
                doors[0].spec(),
                ChildSpec("health", lambda: HealthServer(health, lambda: state.joined, port)),
                ChildSpec(
                    "portal",
                    lambda: PortalLink(url, token, state),
                    restart=Restart.TRANSIENT,
                    significant=True,
                ),
            ],
            auto_shutdown=True,
        )

    async def drain(_: ActorSystem) -> None:
        """Clients are told by the portal that we are gone; the process ends at once."""

    try:
        hooks = Hooks(drain=drain)
        code = int(await Daemon("relay", root, drain_seconds=lambda: 1.0, hooks=hooks).run())
    finally:
        for door in doors:
            door.abort()
    return 1 if state.fatal else code
