"""`trunkline compat turnserver -c turnserver.conf`: coturn's configuration file, served by ours.

Reads the options that people use, on the command line or in the file, and says of every other line
that it is ignored.

Source: protocol sheet TURN 3, and coturn's documentation of its options.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    summarize_address_range,
)
from pathlib import Path
from typing import Final

import click

from actors.turn.settings import TurnSettings
from wire.stun.address import family_of
from wire.turn import limits

#: Short forms, as coturn has them.
SHORT: Final[Mapping[str, str]] = {
    "L": "listening-ip", "p": "listening-port", "E": "relay-ip", "X": "external-ip",
    "r": "realm", "u": "user", "a": "lt-cred-mech", "f": "fingerprint", "q": "user-quota",
    "Q": "total-quota", "n": "no-config", "v": "verbose", "V": "Verbose", "z": "no-auth",
}  # fmt: skip
#: Options that change nothing here, because we always or never do that.
SILENT: Final = frozenset({
    "fingerprint", "lt-cred-mech", "use-auth-secret", "verbose", "Verbose", "no-cli", "simple-log",
    "log-file", "syslog", "no-stdout-log", "pidfile", "no-config", "stale-nonce",
    "no-multicast-peers",
    "no-tlsv1", "no-tlsv1_1", "no-dtls", "cli-password", "no-rfc5780", "no-software-attribute",
    "proc-user", "proc-group", "no-loopback-peers",
})  # fmt: skip
#: Values in the file are of no more use than this.
MAX_FILE: Final = 1 << 20


class ConfigError(ValueError):
    """A line that cannot be meant."""


@dataclass
class Options:
    """What was read.

    Attributes:
        values: by option, in order.
        ignored: what had no effect, with where it stood.
    """

    values: dict[str, list[str]] = field(default_factory=dict)
    ignored: list[str] = field(default_factory=list)

    def add(self, name: str, value: str, where: str) -> None:
        """One option."""
        if name in KNOWN:
            self.values.setdefault(name, []).append(value)
        elif name not in SILENT:
            self.ignored.append(f"{where}: {name}")

    def last(self, name: str, default: str = "") -> str:
        """The value that counts of an option that has one."""
        return self.values[name][-1] if name in self.values else default

    def number(self, name: str, default: int) -> int:
        """The same as a number.

        Raises:
            ConfigError: it is none.
        """
        text = self.last(name, str(default))
        if not text.isascii() or not text.isdigit():
            raise ConfigError(f"{name}: {text!r} is no number")
        return int(text)

    def on(self, name: str) -> bool:
        """A switch."""
        return name in self.values and self.last(name) not in ("0", "false", "no", "off")


KNOWN: Final = frozenset({
    "listening-ip", "listening-port", "tls-listening-port", "relay-ip", "external-ip", "min-port",
    "max-port", "realm", "user", "static-auth-secret", "allowed-peer-ip", "denied-peer-ip",
    "user-quota", "total-quota", "max-allocate-lifetime", "cert", "pkey", "no-udp", "no-tcp",
    "no-tls", "mobility", "allow-loopback-peers", "alternate-server", "rfc5766-channel-numbers",
})  # fmt: skip
#: Options of the command line that take no value.
SWITCHES: Final = frozenset({
    "no-udp", "no-tcp", "no-tls", "mobility", "allow-loopback-peers", "rfc5766-channel-numbers",
    *SILENT,
}) - {"log-file", "pidfile", "cli-password", "stale-nonce", "proc-user", "proc-group"}  # fmt: skip


def read_file(text: str, name: str, options: Options) -> None:
    """Lines of `option` and `option=value`; what follows a # is a comment."""
    for number, line in enumerate(text.splitlines(), 1):
        line = line.strip()  # the same line
        if not line or line.startswith("#"):
            continue
        option, _, value = line.partition("=")
        option, value = option.strip().lstrip("-"), value.split(" #")[0].strip()
        options.add(option, value, f"{name}:{number}")


def read_arguments(arguments: Iterable[str], options: Options) -> Path | None:
    """The command line as coturn reads it; the file it names.

    Raises:
        ConfigError: an option lacks its value.
    """
    words, file = list(arguments), None
    while words:
        word = words.pop(0)
        name, equals, value = word.lstrip("-").partition("=")
        if not word.startswith("-"):
            options.ignored.append(f"command line: {word}")
            continue
        if not word.startswith("--"):
            name, value, equals = word[1:2], word[2:], word[2:]
            name = "c" if name == "c" else SHORT.get(name, name)
        takes = name in ("c", *KNOWN - SWITCHES) or name in SILENT - SWITCHES
        if takes and not equals:
            if not words:
                raise ConfigError(f"{word} needs a value")
            value = words.pop(0)
        if name == "c":
            file = Path(value)
        else:
            options.add(name, value, "command line")
    return file


def networks(text: str) -> list[IPv4Network | IPv6Network]:
    """`a.b.c.d`, `first-last`, or with a prefix length.

    Raises:
        ConfigError: none of them.
    """
    try:
        first, dash, last = text.partition("-")
        if dash:
            one, two = ip_address(first.strip()), ip_address(last.strip())
            if isinstance(one, IPv4Address) and isinstance(two, IPv4Address):
                return list(summarize_address_range(one, two))
            if isinstance(one, IPv6Address) and isinstance(two, IPv6Address):
                return list(summarize_address_range(one, two))
            raise ValueError
        return [IPv6Network(text) if ":" in text else IPv4Network(text)]
    except (ValueError, TypeError):
        raise ConfigError(f"{text!r} is no address and no range of addresses") from None


def turn_settings(options: Options) -> TurnSettings:
    """What our door is told.

    Raises:
        ConfigError: an option cannot be meant.
    """
    hosts = options.values.get("listening-ip") or ["0.0.0.0"]
    port = options.number("listening-port", 3478)
    tls_port = options.number("tls-listening-port", 5349)
    secure = options.last("cert") and options.last("pkey") and not options.on("no-tls")
    relays = options.values.get("relay-ip") or [h for h in hosts if h not in ("0.0.0.0", "::")]
    by_family = {family_of(host): host for host in reversed(relays)}
    external: dict[str, str] = {}
    for text in options.values.get("external-ip", ()):
        shown, _, private = text.partition("/")
        bound = private or by_family.get(family_of(shown), "")
        if bound:
            external[bound] = shown
    users: dict[str, str] = {}
    for text in options.values.get("user", ()):
        name, colon, password = text.partition(":")
        if not colon or password.startswith("0x"):
            raise ConfigError("user: must be name:password; keys (0x...) cannot be used")
        users[name] = password
    alternates = []
    for text in options.values.get("alternate-server", ()):
        host, _, number = text.rpartition(":")
        if not number.isdigit():
            raise ConfigError(f"alternate-server: {text!r} is not host:port")
        alternates.append((host.strip("[]"), int(number)))
    allowed = [n for text in options.values.get("allowed-peer-ip", ()) for n in networks(text)]
    if options.on("allow-loopback-peers"):
        allowed += [*networks("127.0.0.0/8"), *networks("::1")]
    defaults = TurnSettings()
    last = limits.LAST_OLD_CHANNEL if options.on("rfc5766-channel-numbers") else limits.LAST_CHANNEL
    return replace(
        defaults,
        realm=options.last("realm", "trunkline"),
        listen=() if options.on("no-udp") else tuple((host, port) for host in hosts),
        listen_tcp=() if options.on("no-tcp") else tuple((host, port) for host in hosts),
        listen_tls=tuple((host, tls_port) for host in hosts) if secure else (),
        relay_hosts=tuple(by_family[family] for family in sorted(by_family)),
        external=external,
        first_port=options.number("min-port", 49152),
        last_port=options.number("max-port", 65535),
        users=users,
        secrets=tuple(text.encode() for text in options.values.get("static-auth-secret", ())),
        allowed=tuple(allowed),
        denied=tuple(
            n for text in options.values.get("denied-peer-ip", ()) for n in networks(text)
        ),
        rules=replace(
            defaults.rules,
            max_per_user=options.number("user-quota", 0) or defaults.rules.max_per_user,
            max_allocations=options.number("total-quota", 0) or defaults.rules.max_allocations,
            max_lifetime=float(options.number("max-allocate-lifetime", 3600)),
            mobility=options.on("mobility"),
            alternates=tuple(alternates),
            last_channel=last,
        ),
    )


@click.command(
    "turnserver",
    context_settings={"ignore_unknown_options": True, "help_option_names": ["--help"]},
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def cli(arguments: tuple[str, ...]) -> None:
    """coturn's turnserver: -c FILE, and its options.

    Private peers are denied unless --allowed-peer-ip lists them, unlike there.
    """
    options = Options()
    try:
        file = read_arguments(arguments, options)
        if file is not None:
            text = file.read_bytes()[:MAX_FILE].decode("utf-8", "replace")
            of_line, options.values = options.values, {}
            read_file(text, str(file), options)
            options.values.update(of_line)
        settings = turn_settings(options)
    except (ConfigError, OSError) as error:
        raise click.UsageError(str(error)) from None
    for one in options.ignored:
        click.echo(f"ignored: {one}", err=True)
    sys.exit(asyncio.run(_serve(settings, options.last("cert"), options.last("pkey"))))


async def _serve(settings: TurnSettings, certificate: str, key: str) -> int:
    """The TURN door and nothing else, until a signal."""
    from actors.node.daemon import Daemon, Hooks
    from actors.node.logging import install
    from actors.runtime import ActorSystem, Supervisor
    from actors.transport.tls import TlsIdentity, TlsMaterialError
    from actors.turn.addresses import outgoing_hosts
    from actors.turn.tree import Turn

    install("INFO", "human")
    doors: list[Turn] = []
    identity = None
    if settings.listen_tls:
        try:
            identity = TlsIdentity.load(Path(certificate), Path(key))
        except TlsMaterialError as error:
            raise click.UsageError(str(error)) from None
    if not settings.relay_hosts:
        hosts = outgoing_hosts(settings.listen + settings.listen_tcp + settings.listen_tls)
        settings = replace(settings, relay_hosts=hosts)

    def root(system: ActorSystem) -> Supervisor:
        doors.append(Turn(system, settings, identity=identity))
        return Supervisor([doors[0].spec()])

    async def drain(_: ActorSystem) -> None:
        await doors[0].drain()

    try:
        hooks = Hooks(drain=drain)
        return int(await Daemon("turn", root, drain_seconds=lambda: 30.0, hooks=hooks).run())
    finally:
        for door in doors:
            door.abort()
