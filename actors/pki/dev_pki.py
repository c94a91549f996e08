"""The development PKI: a CA, one relay leaf and the demo agents' leaves, made on first start.

`ensure_dev_pki` is idempotent. What exists and is valid is used as it is; a leaf that is expired,
about to expire or names another identity is certified again with the same key; anything damaged or
half-written is reported and left alone. The first start is atomic: everything is written into a
temporary directory that is renamed into place. File names as in the sheet: ca, relay-<id>,
agent-<name>, each .crt and .key.

Blocking (files, key generation): call it before the loop runs. Source: protocol sheet orp 1.2, 4.5.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import MappingProxyType
from uuid import UUID

from cryptography import x509
from cryptography.exceptions import InvalidSignature

from actors.files.atomic import abandoned, sync_directory
from actors.pki.certificates import (
    TOOL_LEAF_LIFETIME,
    KeyPair,
    agent_identity,
    create_ca,
    create_leaf,
    identity_of,
    relay_identity,
)
from actors.pki.files import (
    PkiError,
    make_private_directory,
    pair_paths,
    read_pair,
    replace_certificate,
    write_pair,
)

#: A leaf with less than this left is renewed at start.
RENEWAL_MARGIN = timedelta(days=3)

#: The agents of the sheet's development PKI and their fixed UUIDs.
DEV_AGENTS: Mapping[str, UUID] = MappingProxyType(
    {"provider": UUID(int=1), "consumer": UUID(int=2)}
)


@dataclass(frozen=True, slots=True)
class LeafFiles:
    """One identity and the files that prove it."""

    identity: str
    certificate: Path
    key: Path


@dataclass(frozen=True, slots=True)
class DevPki:
    """Where everything is."""

    directory: Path
    ca_certificate: Path
    ca_key: Path
    relay: LeafFiles
    #: By the names given to `ensure_dev_pki`.
    agents: Mapping[str, LeafFiles]


def ensure_dev_pki(
    directory: Path,
    tenant: str = "acme",
    relay_id: str = "r1",
    agents: Mapping[str, UUID] = DEV_AGENTS,
    *,
    region: str | None = None,
    now: datetime | None = None,
) -> DevPki:
    """Make sure the development PKI exists and is valid, and say where it is.

    Args:
        directory: created with mode 0700; must not be writable by others.
        region: first part of the relay's identity; None puts the tenant there, as the sheet does.
        now: timezone-aware; None means the current time.

    Raises:
        PkiError: something is damaged, half-written, expired (the CA), of another CA, or cannot be
            written. Nothing existing was changed.
        ValueError: tenant, region or relay id is not a legal name.
    """
    now = datetime.now(UTC) if now is None else now
    leaves = {f"agent-{name}": agent_identity(tenant, uuid) for name, uuid in agents.items()}
    relay = relay_identity(tenant if region is None else region, relay_id)
    leaves[f"relay-{relay_id}"] = relay
    directory = directory.absolute()
    if not directory.exists():
        _create_all(directory, leaves, now)
    make_private_directory(directory)
    ca = _read_ca(directory, now)
    for stem, identity in leaves.items():
        _ensure_leaf(directory, stem, identity, ca, now)
    ca_paths = pair_paths(directory, "ca")
    return DevPki(
        directory=directory,
        ca_certificate=ca_paths.certificate,
        ca_key=ca_paths.key,
        relay=_leaf_files(directory, f"relay-{relay_id}", relay),
        agents={
            name: _leaf_files(directory, f"agent-{name}", leaves[f"agent-{name}"])
            for name in agents
        },
    )


def _create_all(directory: Path, leaves: Mapping[str, str], now: datetime) -> None:
    try:
        make_private_directory(directory.parent)
        prefix = f".{directory.name}-"
        for left in abandoned(directory.parent, prefix):  # with keys, of a start that was killed
            shutil.rmtree(left, ignore_errors=True)
        temporary = Path(tempfile.mkdtemp(prefix=prefix, dir=directory.parent))
    except OSError as error:
        raise PkiError(f"{directory}: cannot create: {error.strerror}") from error
    try:
        ca = create_ca(now)
        write_pair(pair_paths(temporary, "ca"), ca)
        for stem, identity in leaves.items():
            leaf = create_leaf(ca, identity, lifetime=TOOL_LEAF_LIFETIME, now=now)
            write_pair(pair_paths(temporary, stem), leaf)
        os.rename(temporary, directory)
        sync_directory(directory.parent)
    except OSError as error:
        # Another process was first: its material is as good, and is checked like any other.
        if not directory.is_dir():
            raise PkiError(f"{directory}: cannot create: {error.strerror}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _read_ca(directory: Path, now: datetime) -> KeyPair:
    paths = pair_paths(directory, "ca")
    ca = read_pair(paths)
    if ca is None:
        if any(directory.iterdir()):
            raise PkiError(
                f"{paths.certificate}: missing, but {directory} is not empty; "
                "restore ca.crt and ca.key, or remove the directory to start afresh"
            )
        ca = create_ca(now)
        write_pair(paths, ca)
    if now >= ca.certificate.not_valid_after_utc:
        raise PkiError(
            f"{paths.certificate}: the CA expired {ca.certificate.not_valid_after_utc:%Y-%m-%d}; "
            f"remove {directory} to start afresh (agents need the new CA)"
        )
    return ca


def _ensure_leaf(directory: Path, stem: str, identity: str, ca: KeyPair, now: datetime) -> None:
    paths = pair_paths(directory, stem)
    pair = read_pair(paths)
    if pair is None:
        leaf = create_leaf(ca, identity, lifetime=TOOL_LEAF_LIFETIME, now=now)
        write_pair(paths, leaf)
        return
    if not _is_issued_by(pair.certificate, ca.certificate):
        raise PkiError(
            f"{paths.certificate}: not issued by the ca.crt beside it; "
            f"remove {paths.certificate.name} and {paths.key.name}"
        )
    is_due = now + RENEWAL_MARGIN >= pair.certificate.not_valid_after_utc
    if is_due or identity_of(pair.certificate) != identity:
        leaf = create_leaf(ca, identity, lifetime=TOOL_LEAF_LIFETIME, now=now, key=pair.key)
        replace_certificate(paths.certificate, leaf)


def _is_issued_by(leaf: x509.Certificate, ca: x509.Certificate) -> bool:
    try:
        leaf.verify_directly_issued_by(ca)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _leaf_files(directory: Path, stem: str, identity: str) -> LeafFiles:
    paths = pair_paths(directory, stem)
    return LeafFiles(identity, paths.certificate, paths.key)
