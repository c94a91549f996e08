"""`trunkline ctl policy` and `trunkline ctl audit`: the commands of the reference's CLI.

Without `--controller` they speak to a daemon's control socket; with it, to a controller over gRPC.
Output and flags are those of the sheet, with three differences: a decision must be `allow` or
`deny` (there, everything but `deny` allows), rules of files are listed too and end in
`source=file`, and `policy reload` reads the files again.

Source: protocol sheet ORP 4.5.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
import orjson

from tools.control_client import ControlClient
from tools.control_text import text, whole
from tools.ctl_running import EXIT_REFUSED, Command, dump, dump_line, fail, options, run
from tools.go_duration import parse_duration_ms
from wire.admin.messages import Row

if TYPE_CHECKING:
    from tools.controller_client import ControllerClient

#: Seconds a change of the rules, and a query, may take.
POLICY_SECONDS: Final = 10.0
AUDIT_SECONDS: Final = 15.0

DECISION_WORDS: Final = {"allow": ("allow",), "deny": ("deny",)}
P2P_WORDS: Final = {
    "allowed": ("allowed", "allow", "p2p_allowed"),
    "forbidden": ("forbidden", "forbid", "deny", "p2p_forbidden"),
    "required": ("required", "require", "p2p_required"),
}
RELAY_WORDS: Final = {
    "splice": ("splice", "relay_mode_splice"),
    "forward": ("forward", "relay_mode_forward"),
}


def _word(words: Mapping[str, tuple[str, ...]]) -> Callable[..., str]:
    """One of several words, each with other spellings, in any case."""

    def meant(_context: click.Context, _option: click.Parameter, value: str) -> str:
        for word, spellings in words.items():
            if value.lower() in spellings:
                return word
        raise click.BadParameter(f"{value!r} is none of {', '.join(words)}")

    return meant


def _duration(_context: click.Context, _option: click.Parameter, value: str) -> int:
    """A duration such as 90s, 1h30m or 0, in milliseconds."""
    try:
        return parse_duration_ms(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def _controller_options(command: Command) -> Command:
    """Where to send it: a daemon's socket, or a controller."""
    for option in (
        click.option("--server-name", default="localhost", help="DNS name of its certificate."),
        click.option("--ca", type=click.Path(path_type=Path), help="CA of the controller."),
        click.option("--key", type=click.Path(path_type=Path), help="Own private key."),
        click.option("--cert", type=click.Path(path_type=Path), help="Own certificate: use TLS."),
        click.option("--controller", metavar="HOST:PORT", help="A controller, over gRPC."),
    ):
        command = option(command)
    return options(command)


def _controlled(name: str, given: dict[str, Any]) -> ControllerClient | None:
    """Take the options of `_controller_options` out of `given`; the client they ask for."""
    address = given.pop("controller")
    cert, key, ca = given.pop("cert"), given.pop("key"), given.pop("ca")
    server_name = given.pop("server_name")
    if address is None:
        if cert or key or ca:
            raise click.UsageError("--cert, --key and --ca need --controller")
        return None
    host, colon, port = address.rpartition(":")
    if not (host and colon and port.isdecimal() and int(port) < 65_536):
        raise click.UsageError(f"{name}: --controller must be HOST:PORT, not {address!r}")
    from tools.controller_client import ClientFiles, ControllerClient, ControllerError

    files = None
    if cert or key or ca:
        if not (cert and key and ca):
            raise click.UsageError("TLS needs all of --cert, --key and --ca")
        files = ClientFiles(cert, key, ca, server_name)
    try:
        return ControllerClient(address, files)
    except ControllerError as error:
        fail(EXIT_REFUSED, text(error))


def _send(
    name: str,
    given: dict[str, Any],
    remote: Callable[[ControllerClient], None],
    local: Callable[[ControlClient], Any],
) -> None:
    """Do `remote` with a controller or `local` with a daemon, whichever was asked for."""
    socket = given.pop("socket")
    client = _controlled(name, given)
    if client is None:
        run(socket, local)
        return
    from tools.controller_client import ControllerError

    try:
        with client:
            remote(client)
    except ControllerError as error:
        fail(EXIT_REFUSED, text(error))


@click.group()
def policy() -> None:
    """Rules: who may reach what."""


@policy.command("add")
@click.option("--tenant", required=True, help="Whose callers it is for.")
@click.option("--caller", required=True, help="Pattern of the caller's URI; * matches anything.")
@click.option("--target", required=True, help="Pattern of the service, or of the other agent.")
@click.option(
    "--decision",
    required=True,
    callback=_word(DECISION_WORDS),
    help="allow or deny.",
)
@click.option("--method", default="", help="Pattern of the method; empty matches every one.")
@click.option("--expires", callback=_duration, default="0", help="From now, such as 24h; 0 never.")
@click.option("--p2p-mode", callback=_word(P2P_WORDS), default="allowed", help="allowed, ...")
@click.option(
    "--relay-mode", callback=_word(RELAY_WORDS), default="splice", help="splice or forward."
)
@click.option("--id", "id", default="", help="Its id; a new one when not given.")
@_controller_options
def policy_add(as_json: bool, expires: int, **given: Any) -> None:
    """Add a rule and print its id."""
    where = {name: given.pop(name) for name in _WHERE}
    rule = given | {"expires_ms": int(time.time() * 1000) + expires if expires else 0}

    def show(rule_id: object) -> None:
        dump({"id": rule_id}) if as_json else click.echo(text(rule_id))

    async def local(client: ControlClient) -> None:
        show((await client.request("policy_add", timeout=POLICY_SECONDS, **rule)).get("id"))

    _send("policy add", where, lambda client: show(client.add(rule)), local)


@policy.command("list")
@click.option("--tenant", default="", help="Only this one's; needed with --controller.")
@_controller_options
def policy_list(as_json: bool, tenant: str, **where: Any) -> None:
    """List the rules, in the order they are tried."""
    if where["controller"] is not None and not tenant:
        raise click.UsageError("--controller needs --tenant")

    def show(rows: list[Row]) -> None:
        for row in rows:
            dump_line(row) if as_json else click.echo(rule_line(row))

    async def local(client: ControlClient) -> None:
        show(await client.rows("policy_list", timeout=POLICY_SECONDS, tenant=tenant))

    _send("policy list", where, lambda client: show(client.list(tenant)), local)


@policy.command("remove")
@click.option("--tenant", required=True, help="Whose rule it is.")
@click.option("--id", "rule_id", required=True, help="Which one.")
@_controller_options
def policy_remove(as_json: bool, tenant: str, rule_id: str, **where: Any) -> None:
    """Remove a rule of the store."""

    def show(removed: object) -> None:
        if not removed:
            fail(EXIT_REFUSED, f"{tenant} has no rule {rule_id}")
        dump({"removed": True}) if as_json else click.echo("removed")

    async def local(client: ControlClient) -> None:
        answer = await client.request(
            "policy_remove", timeout=POLICY_SECONDS, tenant=tenant, id=rule_id
        )
        show(answer.get("removed"))

    _send("policy remove", where, lambda client: show(client.remove(tenant, rule_id)), local)


@policy.command("reload")
@options
def policy_reload(socket: Path | None, as_json: bool) -> None:
    """Read the rule files of the daemon again."""

    async def work(client: ControlClient) -> None:
        answer = await client.request("policy_reload", timeout=POLICY_SECONDS)
        if as_json:
            dump(answer)
        else:
            files, stored = whole(answer, "file_rules"), whole(answer, "store_rules")
            click.echo(f"{files} rules from files, {stored} from the store")

    run(socket, work)


@click.group()
def audit() -> None:
    """Decisions: who asked for what, and what was answered."""


@audit.command("query")
@click.option("--tenant", required=True, help="Of the caller.")
@click.option("--caller", default="", help="Exactly this caller.")
@click.option("--target", default="", help="Exactly this target.")
@click.option("--since", callback=_duration, default="0", help="Not older than this; 0: all.")
@click.option("--limit", type=click.IntRange(0, 10_000), default=100, help="At most so many.")
@_controller_options
def audit_query(as_json: bool, since: int, **given: Any) -> None:
    """Show decisions, newest first."""
    where = {name: given.pop(name) for name in _WHERE}
    wanted = given | {"since_ms": max(0, int(time.time() * 1000) - since) if since else 0}

    def show(row: Row) -> None:
        dump_line(row) if as_json else click.echo(audit_line(row))

    def remote(client: ControllerClient) -> None:
        for row in client.audit(wanted):
            show(row)

    async def local(client: ControlClient) -> None:
        for row in await client.rows("audit_query", timeout=AUDIT_SECONDS, **wanted):
            show(row)

    _send("audit query", where, remote, local)


_WHERE: Final = ("socket", "controller", "cert", "key", "ca", "server_name")


def rule_line(row: Row) -> str:
    """One rule as the sheet prints it."""
    expires = whole(row, "expires_ms")
    fields = [
        text(row.get("id")),
        f"{text(row.get('caller'))} -> {text(row.get('target'))} ({text(row.get('decision'))})",
        f"method={_quoted(row.get('method'))}",
        f"p2p={text(row.get('p2p_mode'))}",
        f"relay={text(row.get('relay_mode'))}",
        f"expires={_time(expires) if expires else '-'}",
    ]
    if row.get("source") == "file":
        fields.append("source=file")
    return "\t".join(fields)


def audit_line(row: Row) -> str:
    """One decision as the sheet prints it."""
    return "\t".join(
        (
            _time(whole(row, "at_ms")),
            text(row.get("decision")),
            f"{text(row.get('caller'))} -> {text(row.get('target'))} {_quoted(row.get('method'))}",
            text(row.get("reason")),
        )
    )


def _quoted(value: object) -> str:
    return text(orjson.dumps(value if isinstance(value, str) else "").decode())


def _time(milliseconds: int) -> str:
    """RFC 3339 in UTC, to the second."""
    try:
        at = datetime.fromtimestamp(milliseconds / 1000, UTC)
    except (OverflowError, ValueError, OSError):
        return f"{milliseconds}ms"  # beyond what a calendar holds
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")
