"""`trunkline pki`: make a CA, issue relay and agent certificates, show what a file holds.

The command line over `actors.pki.certificates`; nothing here knows X.509 beyond printing it. Files
are never overwritten, keys are 0600. Exit status 1 when an operation was refused, 2 on wrong usage.
Source: protocol sheet orp 1.2 and 4.5 (dev-pki).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID, uuid4

import click
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID

from actors.files.ownership import check_directory
from actors.pki.certificates import (
    MAX_LEAF_LIFETIME,
    KeyPair,
    agent_identity,
    create_ca,
    create_leaf,
    identity_of,
    relay_identity,
)
from actors.pki.enrolment import (
    ANY_AGENT,
    EnrolmentRefused,
    create_request,
    read_request,
    renewal,
    sign_request,
)
from actors.pki.files import (
    MAX_PEM_BYTES,
    PRIVATE_FILE_MODE,
    PUBLIC_FILE_MODE,
    PairPaths,
    PkiError,
    make_private_directory,
    pair_paths,
    private_pem,
    read_certificate,
    read_pair,
    write_new,
    write_pair,
)
from actors.pki.revocation_list import REASONS, list_path
from actors.pki.revocation_list import revoke as add_revoked
from actors.pki.token_file import TokenFile
from tools.pki.lifetime import format_span, parse_lifetime

DEFAULT_DIRECTORY = Path(".trunkline") / "pki"


def _lifetime(_ctx: click.Context, _param: click.Parameter, value: str) -> timedelta:
    try:
        lifetime = parse_lifetime(value)
    except (ValueError, OverflowError) as error:
        raise click.BadParameter(str(error)) from error
    if lifetime > MAX_LEAF_LIFETIME:
        raise click.BadParameter(f"at most {MAX_LEAF_LIFETIME.days}d")
    return lifetime


def _serials(_ctx: click.Context, _param: click.Parameter, value: tuple[str, ...]) -> list[int]:
    try:
        return [int(text.replace(":", ""), 16) for text in value]
    except ValueError:
        raise click.BadParameter("expected hexadecimal digits") from None


_out = click.option(
    "--out",
    "directory",
    type=click.Path(file_okay=False, path_type=Path),
    default=DEFAULT_DIRECTORY,
    show_default=True,
    help="Directory of the CA and of everything issued.",
)
_ttl = click.option(
    "--ttl",
    callback=_lifetime,
    metavar="DURATION",
    default="30d",
    show_default=True,
    help="Lifetime: 30d, 12h, 1h30m.",
)
_name = click.option("--name", help="File name without .crt and .key.")


@click.group()
def cli() -> None:
    """Certificates of a relay network: one CA, a leaf per relay and per agent."""


@cli.command()
@_out
def init(directory: Path) -> None:
    """Create the CA: ca.crt and ca.key, valid ten years."""
    paths = pair_paths(directory, "ca")
    with _reported():
        make_private_directory(directory)
        write_pair(paths, create_ca(datetime.now(UTC)))
    _say_written(paths)


@cli.command("issue-relay")
@_out
@click.option("--relay-id", default="r1", show_default=True, help="Name of the relay.")
@click.option("--region", default="local", show_default=True, help="First part of its identity.")
@click.option("--dns", "names", multiple=True, metavar="NAME",
              help="DNS name or IP address of the relay, besides localhost, which agents look for "
              "unless they have --server-name; repeatable.")  # fmt: skip
@_ttl
@_name
def issue_relay(
    directory: Path,
    relay_id: str,
    region: str,
    names: tuple[str, ...],
    ttl: timedelta,
    name: str | None,
) -> None:
    """Issue a relay certificate: outrelay://REGION/relay/RELAY-ID."""
    with _reported():
        identity = relay_identity(region, relay_id)
        _issue(directory, name or f"relay-{relay_id}", identity, ttl, names=names)


@cli.command("issue-agent")
@_out
@click.option("--tenant", default="acme", show_default=True, help="Tenant of the agent.")
@click.option("--uuid", type=click.UUID, help="Its UUID; a random one when absent.")
@click.option("--client-only", is_flag=True,
              help="No TLS server's: nobody takes its holder for a relay, and it answers no "
              "direct path or forward tunnel. Enough for agents that only consume.")  # fmt: skip
@_ttl
@_name
def issue_agent(
    directory: Path,
    tenant: str,
    uuid: UUID | None,
    client_only: bool,
    ttl: timedelta,
    name: str | None,
) -> None:
    """Issue an agent certificate: outrelay://TENANT/agent/UUID."""
    uuid = uuid4() if uuid is None else uuid
    with _reported():
        identity = agent_identity(tenant, uuid)
        _issue(directory, name or f"agent-{uuid}", identity, ttl, server=not client_only)


@cli.command()
@_out
@click.option("--tenant", default="acme", show_default=True, help="Tenant of the agent.")
@click.option("--uuid", type=click.UUID, help="The only agent it is for.")
@click.option("--any-agent", is_flag=True,
              help="Instead: whoever has it may take any agent's identity, once.")  # fmt: skip
@click.option("--ttl", callback=_lifetime, metavar="DURATION", default="10m", show_default=True,
              help="How long it is good.")  # fmt: skip
def token(directory: Path, tenant: str, uuid: UUID | None, any_agent: bool, ttl: timedelta) -> None:
    """Print a token that lets one agent enrol. Beside the CA; secret until it is used."""
    if (uuid is None) != any_agent:
        raise click.UsageError("say which agent it is for: --uuid UUID, or else --any-agent")
    with _reported():
        _authority(directory)  # a token is redeemed beside the CA only: elsewhere it would be none
        with TokenFile(directory).locked() as issuer:
            agent = ANY_AGENT if uuid is None else str(uuid)
            issued = issuer.issue(tenant, datetime.now(UTC), agent=agent, lifetime=ttl)
    click.echo(issued)


@cli.command()
@_out
@click.option("--tenant", default="acme", show_default=True, help="Tenant of the agent.")
@click.option("--uuid", type=click.UUID, help="Its UUID; a random one when absent.")
@click.option("--name", default="agent", show_default=True, help="File name without ending.")
def request(directory: Path, tenant: str, uuid: UUID | None, name: str) -> None:
    """Make a key and a request for it, on the agent's own machine: NAME.key and NAME.csr."""
    with _reported():
        identity = agent_identity(tenant, uuid4() if uuid is None else uuid)
        make_private_directory(directory)
        pem, key = create_request(identity)
        paths = pair_paths(directory, _plain(name))
        wanted = paths.certificate.with_suffix(".csr")
        write_new(paths.key, private_pem(key), PRIVATE_FILE_MODE)
        write_new(wanted, pem, PUBLIC_FILE_MODE)
    click.echo(f"wrote     {wanted}")
    click.echo(f"wrote     {paths.key} (secret, 0600)")
    click.echo(f"identity  {identity}")


@cli.command()
@_out
@click.option("--csr", required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path),
              help="The agent's request.")  # fmt: skip
@click.option("--token", "text", required=True, envvar="TRUNKLINE_ENROLMENT_TOKEN",
              help="From `trunkline pki token`; good once.")  # fmt: skip
@_ttl
def enroll(directory: Path, csr: Path, text: str, ttl: timedelta) -> None:
    """Sign an agent's request against a token, beside the CA: writes the .crt beside the .csr."""
    with _reported():
        ca = _authority(directory)
        pem = csr.read_bytes()[:MAX_PEM_BYTES]
        path = csr.with_suffix(".crt")
        # Before the token is spent.
        read_request(pem)
        if os.path.lexists(path):
            raise PkiError(f"{path}: exists already; nothing was written")
        now = datetime.now(UTC)
        with TokenFile(directory).locked() as tokens:
            grant = tokens.redeem(text, now)
        certificate = sign_request(ca, pem, grant, lifetime=ttl, now=now)
        write_new(path, certificate.public_bytes(Encoding.PEM), PUBLIC_FILE_MODE)
    click.echo(f"wrote     {path}")
    click.echo(f"identity  {identity_of(certificate)}")
    click.echo(f"expires   {_moment(certificate.not_valid_after_utc)}")


@cli.command()
@_out
@click.argument("files", nargs=-1, metavar="[FILE]...",
                type=click.Path(exists=True, dir_okay=False, path_type=Path))  # fmt: skip
@click.option("--serial", "serials", multiple=True, callback=_serials, metavar="HEX",
              help="Serial number, as `pki show` prints it; repeatable.")  # fmt: skip
@click.option("--reason", type=click.Choice(list(REASONS)), default="unspecified",
              show_default=True, help="Written into the list.")  # fmt: skip
def revoke(directory: Path, files: tuple[Path, ...], serials: list[int], reason: str) -> None:
    """Take certificates back before their end: adds them to ca.crl, beside the CA.

    Relays with `node.tls.revocations` (and those of this directory) read it within seconds, refuse
    whoever is on it and end its connections.
    """
    if not files and not serials:
        raise click.UsageError("say whose: certificate files, or --serial")
    with _reported():
        ca = _authority(directory)
        wanted = list(serials)
        for file in files:
            certificate = read_certificate(file)
            try:
                certificate.verify_directly_issued_by(ca.certificate)
            except (ValueError, TypeError, InvalidSignature):
                raise PkiError(f"{file}: not issued by the CA in {directory}") from None
            wanted.append(certificate.serial_number)
        added = add_revoked(directory, ca, wanted, reason, datetime.now(UTC))
    click.echo(f"wrote     {list_path(directory)}")
    click.echo(f"revoked   {added}{' (the others were before)' if added < len(wanted) else ''}")


@cli.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def show(file: Path) -> None:
    """Print identity, validity and use of a certificate FILE; never a key."""
    with _reported():
        certificate = read_certificate(file)
    for line in _description(certificate, datetime.now(UTC)):
        click.echo(line)


def _issue(
    directory: Path,
    stem: str,
    identity: str,
    ttl: timedelta,
    *,
    server: bool = True,
    names: Sequence[str] = (),
) -> None:
    ca = _authority(directory)
    paths = pair_paths(directory, _plain(stem))
    now = datetime.now(UTC)
    leaf = create_leaf(ca, identity, lifetime=ttl, now=now, server=server, names=names)
    write_pair(paths, leaf)
    _say_written(paths)
    click.echo(f"identity  {identity}")
    click.echo(f"expires   {_moment(leaf.certificate.not_valid_after_utc)}")


def _plain(stem: str) -> str:
    if Path(stem).name != stem or stem.startswith("."):
        raise ValueError(f"--name {stem!r}: a plain file name, not a path")
    return stem


def _authority(directory: Path) -> KeyPair:
    paths = pair_paths(directory, "ca")
    if os.path.lexists(directory):
        check_directory(directory)
    ca = read_pair(paths)
    if ca is None:
        raise PkiError(f"{paths.certificate}: no CA there; run `trunkline pki init` first")
    return ca


def _say_written(paths: PairPaths) -> None:
    click.echo(f"wrote     {paths.certificate}")
    click.echo(f"wrote     {paths.key} (secret, 0600)")


def _description(certificate: x509.Certificate, now: datetime) -> list[str]:
    end = certificate.not_valid_after_utc
    if now < certificate.not_valid_before_utc:
        state = "not valid yet"
    elif now >= end:
        state = f"EXPIRED {format_span(now - end)} ago"
    else:
        state = f"valid for {format_span(end - now)}"
    return [
        f"identity  {identity_of(certificate) or '(none: no URI in the SAN)'}",
        f"subject   {certificate.subject.rfc4514_string()}",
        f"issuer    {certificate.issuer.rfc4514_string()}",
        f"serial    {certificate.serial_number:x}",
        f"from      {_moment(certificate.not_valid_before_utc)}",
        f"expires   {_moment(end)}  ({state})",
        f"renew     {_moment(renewal(certificate))}",
        f"use       {_use(certificate)}",
        f"names     {_names(certificate) or '(none)'}",
    ]


def _names(certificate: x509.Certificate) -> str:
    """What a server of it may be called."""
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ""
    addresses = map(str, found.get_values_for_type(x509.IPAddress))
    return ", ".join([*found.get_values_for_type(x509.DNSName), *addresses])


def _use(certificate: x509.Certificate) -> str:
    names = {ExtendedKeyUsageOID.SERVER_AUTH: "server", ExtendedKeyUsageOID.CLIENT_AUTH: "client"}
    extensions = {extension.oid: extension.value for extension in certificate.extensions}
    constraints = extensions.get(ExtensionOID.BASIC_CONSTRAINTS)
    if isinstance(constraints, x509.BasicConstraints) and constraints.ca:
        return "CA"
    usages = extensions.get(ExtensionOID.EXTENDED_KEY_USAGE)
    if not isinstance(usages, x509.ExtendedKeyUsage):
        return "not stated"
    return ", ".join(names.get(oid, oid.dotted_string) for oid in usages)


@contextmanager
def _reported() -> Iterator[None]:
    """Refusals become one line on stderr and exit status 1."""
    try:
        yield
    except (PkiError, EnrolmentRefused, ValueError, OSError) as error:
        raise click.ClickException(str(error)) from error


def _moment(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"
