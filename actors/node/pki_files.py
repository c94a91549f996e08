"""Certificates and keys as PEM files: written once with tight permissions, read with clear errors.

A pair is `<stem>.crt` (0644) and `<stem>.key` (0600). Files are created with O_EXCL, so nothing is
ever overwritten by accident; replacing a certificate goes through a rename and is atomic. Error
texts name files and remedies, never contents.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

from actors.node.certificates import KeyPair

PRIVATE_DIRECTORY_MODE = 0o700
PRIVATE_FILE_MODE = 0o600
PUBLIC_FILE_MODE = 0o644
#: A PEM file larger than this is not one of ours.
MAX_PEM_BYTES = 256 * 1024


class PkiError(Exception):
    """Key material cannot be read, used or written; the text says which file and what to do."""


@dataclass(frozen=True, slots=True)
class PairPaths:
    """Where one certificate and its key are."""

    certificate: Path
    key: Path


def pair_paths(directory: Path, stem: str) -> PairPaths:
    return PairPaths(directory / f"{stem}.crt", directory / f"{stem}.key")


def make_private_directory(directory: Path) -> None:
    """Create it with mode 0700; accept an existing one unless others may write into it."""
    try:
        directory.mkdir(mode=PRIVATE_DIRECTORY_MODE, parents=True)
    except FileExistsError:
        pass
    except OSError as error:
        raise PkiError(f"{directory}: cannot create: {error.strerror}") from error
    else:
        directory.chmod(PRIVATE_DIRECTORY_MODE)  # whatever the umask was
    if not directory.is_dir():
        raise PkiError(f"{directory}: exists and is not a directory")
    if directory.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise PkiError(f"{directory}: others may write into it; chmod go-w it or choose another")


def write_pair(paths: PairPaths, pair: KeyPair) -> None:
    """Create both files; on failure neither is left behind.

    Raises:
        PkiError: one of the files exists already, or cannot be written.
    """
    for path in (paths.key, paths.certificate):
        if path.is_symlink() or path.exists():
            raise PkiError(f"{path}: exists already; nothing was written")
    write_new(paths.key, pair.key_pem(), PRIVATE_FILE_MODE)
    try:
        write_new(paths.certificate, pair.certificate_pem(), PUBLIC_FILE_MODE)
    except PkiError:
        paths.key.unlink(missing_ok=True)
        raise


def private_pem(key: PrivateKeyTypes) -> bytes:
    """PKCS#8, unencrypted. Secret: write it with mode 0600 and nowhere else."""
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def write_new(path: Path, data: bytes, mode: int) -> None:
    """Create a file that must not exist yet, with exactly this mode, and sync it."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags, mode)
    except FileExistsError:
        raise PkiError(f"{path}: exists already; nothing was written") from None
    except OSError as error:
        raise PkiError(f"{path}: cannot create: {error.strerror}") from error
    try:
        with open(descriptor, "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        path.unlink(missing_ok=True)
        raise PkiError(f"{path}: cannot write: {error.strerror}") from error


def replace_certificate(path: Path, pair: KeyPair) -> None:
    """Put a new certificate for the same key in place of an old one, atomically."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    write_new(temporary, pair.certificate_pem(), PUBLIC_FILE_MODE)
    try:
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise PkiError(f"{path}: cannot replace: {error.strerror}") from error


def read_pair(paths: PairPaths) -> KeyPair | None:
    """Read both files; None when neither exists.

    Raises:
        PkiError: only one exists, one cannot be parsed, the key is readable by others, or the two
            do not belong together.
    """
    present = [p for p in (paths.certificate, paths.key) if p.exists()]
    if not present:
        return None
    if len(present) == 1:
        missing = paths.key if present[0] == paths.certificate else paths.certificate
        raise PkiError(
            f"{present[0]}: half-written, {missing.name} is missing beside it; "
            f"restore {missing.name} or remove {present[0].name}"
        )
    certificate = read_certificate(paths.certificate)
    key = read_key(paths.key)
    if certificate.public_key() != key.public_key():
        raise PkiError(f"{paths.key}: is not the key of {paths.certificate.name}; remove both")
    return KeyPair(certificate, key)


def read_certificate(path: Path) -> x509.Certificate:
    """The first certificate of a PEM file."""
    try:
        return x509.load_pem_x509_certificate(_read(path))
    except ValueError:
        raise PkiError(f"{path}: not a PEM certificate, or damaged") from None


def read_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """An unencrypted PEM private key on P-256 that only its owner can read."""
    if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise PkiError(f"{path}: private key is open to other users; chmod 600 it")
    try:
        key = serialization.load_pem_private_key(_read(path), password=None)
    except (ValueError, TypeError):  # TypeError: the key is encrypted
        raise PkiError(f"{path}: not an unencrypted PEM private key, or damaged") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise PkiError(f"{path}: not an elliptic-curve key")
    return key


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_PEM_BYTES + 1)
    except OSError as error:
        raise PkiError(f"{path}: cannot read: {error.strerror}") from error
    if len(data) > MAX_PEM_BYTES:
        raise PkiError(f"{path}: larger than {MAX_PEM_BYTES} bytes, not a PEM file of ours")
    return data
