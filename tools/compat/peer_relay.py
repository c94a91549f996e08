"""What the relays of NetBird and openZro share: their flags, and the peer door behind them.

Every flag may stand in the environment, upper-case, with the prefix of the program; the command
line wins. What we do not do is refused at the start instead of being ignored.

Source: protocol sheet peer 8.1, appendix B.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Mapping
from ipaddress import ip_network
from pathlib import Path
from typing import Any, Final

import click

from wire.peer.instance_url import instance_url

#: Flags of features that are not here; set, they end the start.
_REFUSED: Final = (
    "letsencrypt-data-dir",
    "letsencrypt-domains",
    "letsencrypt-email",
    "letsencrypt-aws-route53",
    "enable-stun",
    "stun-ports",
    "cluster-headless",
)
_OFF: Final = frozenset({"", "0", "false"})
#: Short forms, as both programs have them.
_SHORT: Final[Mapping[str, str]] = {
    "listen-address": "-l", "exposed-address": "-e", "letsencrypt-data-dir": "-d",
    "letsencrypt-domains": "-a", "tls-cert-file": "-c", "tls-key-file": "-k", "auth-secret": "-s",
    "health-listen-address": "-H",
}  # fmt: skip


def command(program: str, prefix: str, defaults: Mapping[str, str], strict: bool) -> click.Command:
    """The command of one of the programs.

    Args:
        prefix: of its environment.
        defaults: by flag.
        strict: with TLS the exposed address must not say rel.
    """
    options: list[click.Parameter] = [
        click.Option(
            [f"--{name}", *([_SHORT[name]] if name in _SHORT else []), name.replace("-", "_")],
            default=default,
            envvar=f"{prefix}_{name.replace('-', '_').upper()}",
            show_default=bool(default),
        )
        for name, default in defaults.items()
    ]

    def run(**given: str) -> None:
        values = {name.replace("_", "-"): value or "" for name, value in given.items()}
        sys.exit(_start(program, prefix, values, strict))

    return click.Command(
        program,
        params=options,
        callback=run,
        context_settings={"help_option_names": ["-h", "--help"]},
        help=f"The relay of {program.partition('-')[0]}: its flags, and {prefix}_* for each.",
    )


def _address(flag: str, text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise click.UsageError(f"--{flag} is HOST:PORT or :PORT, not {text!r}")
    return host.strip("[]") or "0.0.0.0", int(port)


def _secrets(prefix: str, values: Mapping[str, str]) -> list[str]:
    """The secret of the flag, and those of the files in `<prefix>_AUTH_SECRET_FILE`."""
    from actors.peer.secrets import read_secrets

    files = [Path(p) for p in os.environ.get(f"{prefix}_AUTH_SECRET_FILE", "").split(",") if p]
    secrets = [values["auth-secret"]] if values["auth-secret"] else []
    return secrets + read_secrets(files)


def _start(program: str, prefix: str, values: Mapping[str, str], strict: bool) -> int:
    for name in _REFUSED:
        off = _OFF | ({"3478"} if name == "stun-ports" else set())
        if values.get(name, "").lower() not in off:
            raise click.UsageError(f"--{name} is not supported here; leave it out")
    if values["log-file"] not in ("", "console"):
        raise click.UsageError("--log-file is not supported here; the log goes to stderr")
    cert, key = values["tls-cert-file"], values["tls-key-file"]
    tls = bool(cert and key)
    try:
        url = instance_url(values["exposed-address"], tls=tls, strict=strict)
    except ValueError as error:
        raise click.UsageError(f"--exposed-address: {error}") from None
    try:
        secrets = _secrets(prefix, values)
    except OSError as error:
        raise click.UsageError(str(error)) from None
    if not secrets:
        raise click.UsageError(f"--auth-secret, or {prefix}_AUTH_SECRET_FILE, is required")
    return asyncio.run(_serve(program, prefix, values, url, secrets))


async def _serve(
    program: str, prefix: str, values: Mapping[str, str], url: str, secrets: list[str]
) -> int:
    """The peer door and its metrics, until a signal."""
    from actors.node.daemon import Daemon, Hooks, ReloadOutcome
    from actors.node.logging import install
    from actors.observe.meters import Meters
    from actors.observe.web import MetricsServer
    from actors.peer.peer_tls import PeerTls
    from actors.peer.settings import PeerSettings
    from actors.peer.tree import PeerDoor
    from actors.runtime import ActorSystem, ChildSpec, Supervisor
    from actors.transport.tls import TlsIdentity, TlsMaterialError

    level = values["log-level"].upper()
    names = {"WARN": "WARNING", "FATAL": "CRITICAL", "PANIC": "CRITICAL"}
    try:
        install(names.get(level, level), "human")
    except ValueError as error:
        raise click.UsageError(f"--log-level: {error}") from None
    files = values["tls-cert-file"], values["tls-key-file"]
    try:
        networks = tuple(
            ip_network(text.strip(), strict=False)
            for text in values.get("trusted-proxies", "").split(",")
            if text.strip()
        )
    except ValueError as error:
        raise click.UsageError(f"--trusted-proxies: {error}") from None
    attempts = os.environ.get(f"{prefix}_RELAY_HC_ATTEMPT_THRESHOLD", "1")
    try:
        settings = PeerSettings(trusted_proxies=networks, health_attempts=max(1, int(attempts)))
    except ValueError:
        settings = PeerSettings(trusted_proxies=networks)  # as the originals
    meters, doors = Meters(), list[PeerDoor]()

    def identity() -> TlsIdentity:
        return TlsIdentity.load(Path(files[0]), Path(files[1]))

    try:
        tls = PeerTls(identity()) if all(files) else None
    except TlsMaterialError as error:
        raise click.UsageError(str(error)) from None

    async def readiness() -> dict[str, str]:
        return {"/peer": "draining"} if doors and doors[0].draining else {}

    def root(system: ActorSystem) -> Supervisor:
        doors.append(
            PeerDoor(
                system,
                listen=[_address("listen-address", values["listen-address"])],
                url=url,
                secrets=secrets,
                read_secrets=lambda: _secrets(prefix, values),
                settings=settings,
                tls=tls,
                meters=meters,
                relay=program,
            )
        )
        pages: dict[str, tuple[str, int]] = {}
        if values["metrics-port"] not in _OFF:
            pages["metrics"] = _address("metrics-port", f":{values['metrics-port']}")
        if values.get("health-listen-address"):
            pages["health"] = _address("health-listen-address", values["health-listen-address"])
        specs = [doors[0].spec()]
        for name, address in pages.items():
            bound: list[int] = []
            specs.append(
                ChildSpec(
                    name,
                    lambda address=address, bound=bound: MetricsServer(  # type: ignore[misc]
                        meters, readiness, address, bound
                    ),
                )
            )
        return Supervisor(specs)

    async def drain(_: ActorSystem) -> None:
        await doors[0].drain()

    async def reload(_: ActorSystem) -> ReloadOutcome:
        if tls is None:
            doors[0].reload(TlsIdentity.anonymous())
            return ReloadOutcome(True, "secrets read again")
        try:
            doors[0].reload(identity())
        except TlsMaterialError as error:
            return ReloadOutcome(False, str(error))
        return ReloadOutcome(True, "certificate and secrets read again")

    try:
        hooks: Any = Hooks(drain=drain, reload=reload)
        return int(await Daemon(program, root, drain_seconds=lambda: 30.0, hooks=hooks).run())
    finally:
        for door in doors:
            door.abort()
