"""Certificates for the two agents of a chaos run.

They must not be those of other agents: a second connection with the same identity supersedes the
first. So a run issues its own short-lived leaves with the CA of the given directory, into a
directory of its own; without the CA's key it takes `agent-chaos-provider` and
`agent-chaos-consumer` from the given directory.

Source: protocol sheet ORP 1.1, 1.2.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

from actors.pki.certificates import KeyPair, agent_identity, create_leaf, identity_of
from actors.pki.files import PkiError, pair_paths, read_certificate, read_pair, write_pair
from wire.orp.identity import IdentityError, parse_identity

ROLES = ("chaos-provider", "chaos-consumer")
LIFETIME = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class AgentFiles:
    """What one agent proves itself with: PEM paths."""

    certificate: Path
    key: Path
    ca: Path


def chaos_credentials(pki: Path, scratch: Path, tenant: str = "") -> tuple[AgentFiles, AgentFiles]:
    """Provider and consumer.

    Args:
        pki: directory with `ca.crt`, and `ca.key` or the leaves named in the module docstring.
        scratch: a private directory; new leaves go there.
        tenant: empty: that of any agent certificate in `pki`.

    Raises:
        PkiError: `pki` has neither, or is damaged.
    """
    paths = pair_paths(pki, "ca")
    if not paths.certificate.exists():
        raise PkiError(f"{paths.certificate}: missing")
    if not paths.key.exists():
        return _existing(pki, paths.certificate)
    ca = read_pair(paths)
    if ca is None:
        raise PkiError(f"{paths.certificate}: missing")
    tenant = tenant or _tenant_of(pki)
    provider, consumer = (_issue(ca, scratch, role, tenant, paths.certificate) for role in ROLES)
    return provider, consumer


def _issue(ca: KeyPair, scratch: Path, role: str, tenant: str, authority: Path) -> AgentFiles:
    leaf = create_leaf(
        ca, agent_identity(tenant, uuid4()), lifetime=LIFETIME, now=datetime.now(UTC)
    )
    files = pair_paths(scratch, f"agent-{role}")
    write_pair(files, leaf)
    return AgentFiles(files.certificate, files.key, authority)


def _existing(pki: Path, authority: Path) -> tuple[AgentFiles, AgentFiles]:
    found = []
    for role in ROLES:
        files = pair_paths(pki, f"agent-{role}")
        if not (files.certificate.exists() and files.key.exists()):
            raise PkiError(
                f"{pki}: has no ca.key to issue certificates with, and no {files.certificate.name}"
            )
        found.append(AgentFiles(files.certificate, files.key, authority))
    return found[0], found[1]


def _tenant_of(pki: Path) -> str:
    for path in sorted(pki.glob("agent-*.crt")):
        identity = identity_of(read_certificate(path))
        if identity is None:
            continue
        try:
            return parse_identity(identity).text.split("/")[2]
        except IdentityError:
            continue
    raise PkiError(f"{pki}: no agent certificate tells the tenant; give --tenant")
