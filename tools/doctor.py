"""`trunkline doctor`: what of this host and these settings would keep a relay from its work.

Looks, and changes nothing: ports are bound and let go, relays and controllers are dialled and left.
Exit status: 0 nothing to mend (notes may remain), 1 something to mend, 2 usage.
"""

from __future__ import annotations

import asyncio
import ctypes
import errno
import resource
import socket
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import click
import orjson

from actors.control.policy.rules_toml import RulesError, load_rules
from actors.files.ownership import check_secret
from actors.observe.expiry import SOON
from actors.transport.connection import Connection, DialFailed
from actors.transport.own_certificate import judge_own
from actors.transport.quic import QuicEndpoint
from actors.transport.tcp import TcpEndpoint
from actors.transport.tcp.tls_transport import GOODBYE_SECONDS
from actors.transport.tls import CLIENT, TlsIdentity, TlsMaterialError
from actors.transport.udp.bind import BUFFER_BYTES, bind_udp
from actors.transport.udp.segmentation import SOL_UDP, UDP_SEGMENT, enable_coalescing
from actors.wiring.certificates import configured_identity
from actors.wiring.check import bind_once, listens
from config.endpoint import Endpoint, parse_endpoint
from config.errors import ConfigError
from config.load import load
from config.paths import state_paths
from config.schema import Settings
from tools.agent.complaints import explain, reason
from tools.agent.config_file import is_agents, read
from tools.control_client import CannotConnect, ControlClient, ControlError, Disconnected
from wire.orp.messages import ALPN

#: Descriptors below which a relay of some size runs out: one for each TCP agent, and its own.
WANTED_FILES: Final = 4096
DIAL_SECONDS: Final = 5.0
#: adjtimex(2): the clock is not synchronised.
_TIME_ERROR: Final = 5


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        about: what.
        level: ok, note (works, and could be better) or mend.
        says: what was found.
        remedy: what to do; empty when it is ok.
    """

    about: str
    level: str
    says: str
    remedy: str = ""


@click.command("doctor", context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--config", type=click.Path(path_type=Path),
              help="TOML settings file of a relay, or of an agent.")  # fmt: skip
@click.option("--relay", multiple=True, metavar="HOST:PORT", help="Dial this relay by QUIC.")
@click.option("--relay-tcp", multiple=True, metavar="HOST:PORT", help="Dial this relay by TCP.")
@click.option("--server-name", default="localhost", help="Name in the relay's certificate.")
@click.option("--cert", type=click.Path(path_type=Path), help="What we show a relay we dial.")
@click.option("--key", type=click.Path(path_type=Path), help="Its key.")
@click.option("--ca", type=click.Path(path_type=Path), help="CA of the relay we dial.")
@click.option("--json", "as_json", is_flag=True, help="JSON for programs.")
def cli(config: Path | None, as_json: bool, **dial: object) -> None:
    """Look for what would keep a relay, or an agent of it, from its work, and say what helps.

    Exit status: 0 nothing to mend, 1 something to mend, 2 usage.
    """
    found = list(asyncio.run(_look(config, dial)))
    if as_json:
        click.echo(orjson.dumps([asdict(one) for one in found], option=orjson.OPT_INDENT_2))
    else:
        for one in found:
            click.echo(f"{one.level:<5} {one.about:<14} {one.says}")
            if one.remedy:
                click.echo(f"{'':<21}{one.remedy}")
    sys.exit(1 if any(one.level == "mend" for one in found) else 0)


async def _look(config: Path | None, dial: dict[str, object]) -> list[Finding]:
    found: list[Finding] = []
    if config is not None and is_agents(table := read(config)):
        dial |= _of_agent(config, table)
    elif config is not None or not (dial["relay"] or dial["relay_tcp"]):
        found = await _look_at_relay(config)
    found += [_clock(), _files(), *_sockets()]
    return found + await _relays(dial)


def _of_agent(config: Path, table: Mapping[str, object]) -> dict[str, object]:
    """What is dialled, and what is shown, of an agent's file."""

    def texts(key: str) -> tuple[str, ...]:
        value = table.get(key)
        return tuple(map(str, value)) if isinstance(value, list) else (str(value),) * bool(value)

    files = {key: config.parent / str(table[key]) for key in ("cert", "key", "ca") if key in table}
    name = {"server_name": str(table["server_name"])} if "server_name" in table else {}
    return {"relay": texts("relay"), "relay_tcp": texts("relay_tcp"), **files, **name}


async def _look_at_relay(config: Path | None) -> list[Finding]:
    found: list[Finding] = []
    try:
        settings = load(config, warn=lambda text: found.append(Finding("settings", "note", text)))
    except ConfigError as error:
        remedy = "docs/configuration.md has every key; mend the file and start again"
        found.append(Finding("settings", "mend", str(error), remedy))
    else:
        found.append(Finding("settings", "ok", str(config or "defaults and environment")))
        found += _rules(settings)
        found += _certificates(settings)
        found += _ports(settings, await _ours(settings))
        if settings.control.backend == "grpc":
            found.append(await _controller(settings.control.address))
    return found


def _rules(settings: Settings) -> Iterator[Finding]:
    try:
        rules = load_rules(settings.control.policy.files, int(time.time() * 1000))
    except RulesError as error:
        yield Finding("rules", "mend", str(error), "mend the rule file; docs/policy.md")
    else:
        yield Finding("rules", "ok", f"{len(rules)} in {len(settings.control.policy.files)} files")


def _certificates(settings: Settings) -> Iterator[Finding]:
    """Pair, dates, chain and role: by the judgement of the start."""
    try:
        identity = configured_identity(settings)
    except (TlsMaterialError, OSError) as error:
        remedy = "issue one with `trunkline pki issue-relay`; compare node.tls and the clock"
        yield Finding("certificate", "mend", str(error), remedy)
        return
    if identity is None:
        says = "none is set: the daemon starts with development certificates only"
        yield Finding("certificate", "note", says, "set node.tls.certificate, key and ca")
        return
    yield _certificate(identity)


def _certificate(identity: TlsIdentity) -> Finding:
    ends = identity.chain[0].not_valid_after_utc
    says = f"{identity.uri}, until {ends:%Y-%m-%d %H:%M} UTC"
    if ends - datetime.now(UTC) < SOON:
        return Finding("certificate", "note", says, "renew it, then `trunkline ctl reload`")
    return Finding("certificate", "ok", says)


async def _ours(settings: Settings) -> set[tuple[str, int]] | None:
    """What the running daemon has bound; None: none runs."""
    try:
        client = await ControlClient.connect(state_paths(settings).control_socket)
    except CannotConnect:
        return None
    try:
        rows = await client.rows("doors", timeout=DIAL_SECONDS)
    except (ControlError, Disconnected, TimeoutError):
        return set()
    finally:
        await client.close()
    bound: set[tuple[str, int]] = set()
    for row in rows:
        places = row.get("listening")
        for place in places if isinstance(places, list) else []:
            if place["address"]:
                bound.add((str(place["address"][0]), int(place["address"][1])))
    return bound


def _ports(settings: Settings, ours: set[tuple[str, int]] | None) -> Iterator[Finding]:
    for setting, udp, where in listens(settings):
        says = f"{setting} {where} ({'UDP' if udp else 'TCP'})"
        if ours and tuple(where) in ours:
            yield Finding("port", "ok", f"{says}: the running daemon has it")
            continue
        try:
            bind_once(where, udp=udp)
        except OSError as error:
            if error.errno == errno.EADDRINUSE and ours is not None and not udp:
                yield Finding("port", "note", f"{says} is in use; a daemon runs, it may be its own")
                continue
            shown = f"ss -ln{'u' if udp else 't'}p 'sport = :{where.port}'"
            remedy = {
                errno.EADDRINUSE: f"`{shown}` names who has it; stop it or set {setting}",
                errno.EACCES: f"ports below 1024 need CAP_NET_BIND_SERVICE; or set {setting}",
                errno.EADDRNOTAVAIL: f"no interface has this address; set {setting}",
            }.get(error.errno or 0, f"set {setting}")
            why = error.strerror or str(error)
            yield Finding("port", "mend", f"{says} cannot be bound: {why}", remedy)
        else:
            yield Finding("port", "ok", f"{says} can be bound")


def _clock() -> Finding:
    now = f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC"
    try:
        # struct timex, larger than on any Linux; modes 0 reads only.
        state = ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(512))
    except AttributeError:
        return Finding("clock", "note", f"{now}; whether it is synchronised is not known here")
    if state in (-1, _TIME_ERROR):
        remedy = "certificates are judged by it: run chrony or systemd-timesyncd on the host"
        return Finding("clock", "note", f"{now}, not known to be synchronised", remedy)
    return Finding("clock", "ok", f"{now}, synchronised")


def _files() -> Finding:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    many = soft == resource.RLIM_INFINITY or soft >= WANTED_FILES
    says = f"nofile {soft} (hard {hard})"
    if many:
        return Finding("limits", "ok", says)
    remedy = f"LimitNOFILE={WANTED_FILES} in the unit, or `ulimit -n {WANTED_FILES}`"
    return Finding("limits", "note", says, remedy)


def _sockets() -> Iterator[Finding]:
    """What a UDP socket gets here: buffers, and the kernel's help with runs of datagrams."""
    try:
        sock = bind_udp("127.0.0.1", 0)
    except OSError as error:
        yield Finding("sockets", "mend", f"no UDP socket: {error}", "allow UDP in this container")
        return
    with sock:
        # The kernel doubles what it was asked for (socket(7)).
        room = min(
            sock.getsockopt(socket.SOL_SOCKET, option) // 2
            for option in (socket.SO_RCVBUF, socket.SO_SNDBUF)
        )
        remedy = f"sysctl -w net.core.rmem_max={BUFFER_BYTES} net.core.wmem_max={BUFFER_BYTES}"
        fits = room >= BUFFER_BYTES
        yield Finding(
            "buffers", "ok" if fits else "note", f"UDP {room} bytes", "" if fits else remedy
        )
        try:
            sock.getsockopt(SOL_UDP, UDP_SEGMENT)
            send = True
        except OSError:
            send = False
        for name, there in (("GSO", send), ("GRO", enable_coalescing(sock))):
            yield Finding(
                "kernel",
                "ok" if there else "note",
                f"UDP {name} {'works' if there else 'is not there'}",
                "" if there else "Linux 5.0 or newer has it; without, each byte costs more CPU",
            )


async def _controller(where: Endpoint) -> Finding:
    says = f"{where} (TCP)"
    try:
        async with asyncio.timeout(DIAL_SECONDS):
            _, writer = await asyncio.open_connection(*where)
    except (OSError, TimeoutError) as error:
        why = "no answer" if isinstance(error, TimeoutError) else explain(error, "TCP")
        remedy = "is control.address right, does the controller run, does a firewall drop it?"
        return Finding("controller", "mend", f"{says}: {why}", remedy)
    writer.close()
    return Finding("controller", "ok", f"{says} answers")


async def _relays(dial: dict[str, object]) -> list[Finding]:
    by_quic, by_tcp = dial["relay"], dial["relay_tcp"]
    assert isinstance(by_quic, tuple)
    assert isinstance(by_tcp, tuple)
    if not by_quic and not by_tcp:
        return []
    certificate, key, ca = dial["cert"], dial["key"], dial["ca"]
    if not (isinstance(certificate, Path) and isinstance(key, Path) and isinstance(ca, Path)):
        raise click.UsageError("to dial a relay: --cert, --key and --ca")
    try:
        check_secret(key)
        identity = TlsIdentity.load(certificate, key, ca)
        judge_own(identity, certificate, ca, CLIENT)
    except (TlsMaterialError, OSError) as error:
        remedy = "name a certificate that is in date, its own key, and the CA that signed it"
        return [Finding("certificate", "mend", str(error), remedy)]
    quic = QuicEndpoint(alpn=ALPN, identity=identity)
    tcp = TcpEndpoint(alpn=ALPN, identity=identity)
    name = str(dial["server_name"])

    def by(endpoint: QuicEndpoint | TcpEndpoint) -> Callable[[Endpoint], Awaitable[Connection]]:
        return lambda where: endpoint.connect(where, server_name=name, timeout=DIAL_SECONDS)

    try:
        shown = _certificate(identity)
        over_udp = [await _relay(text, "QUIC", by(quic)) for text in by_quic]
        over_tcp = [await _relay(text, "TCP", by(tcp)) for text in by_tcp]
        if any(one.level == "ok" for one in over_tcp):
            over_udp = [_without_udp(one) for one in over_udp]
        return [shown, *over_udp, *over_tcp]
    finally:
        quic.abort()
        tcp.abort()
        if by_tcp:  # their last words have so long, and nobody tells when they were said
            await asyncio.sleep(GOODBYE_SECONDS)


def _without_udp(one: Finding) -> Finding:
    """What is said of a relay that does not answer by QUIC, when one answers by TCP."""
    if one.level != "mend" or not one.says.endswith(": no answer"):
        return one
    remedy = "UDP does not get through, TCP does: agents get along with --relay-tcp"
    return replace(one, remedy=remedy)


async def _relay(
    text: str, transport: str, connect: Callable[[Endpoint], Awaitable[Connection]]
) -> Finding:
    try:
        where = parse_endpoint(text)
    except ValueError as error:
        raise click.UsageError(f"{text}: {error}") from None
    try:
        connection = await connect(where)
    except (DialFailed, OSError) as error:
        said, remedy = reason(error, transport)
        help_ = remedy or "is the address right, is it up, does a firewall drop it?"
        return Finding("relay", "mend", f"{where} by {transport}: {said}", help_)
    # Closed with its endpoint.
    return Finding("relay", "ok", f"{where} by {transport}: {connection.peer.uri} answers")
