"""Certificates and keys as PEM files: written once with tight permissions, read with clear errors.

A pair is `<stem>.crt` (0644) and `<stem>.key` (0600). Nothing is ever overwritten by accident, and
a file is there whole or not at all (`actors.files`). Error texts name files and remedies, never
contents.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

from actors.files.atomic import create_file, replace_file
from actors.files.ownership import SECRET_MODE, FileRefused, check_secret, private_directory
from actors.pki.certificates import KeyPair

PRIVATE_FILE_MODE = SECRET_MODE
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
    """Create it with mode 0700; accept an existing one that is ours alone.

    Raises:
        PkiError: it cannot be made, or see `actors.files.ownership.check_directory`.
    """
    try:
        private_directory(directory)
    except FileRefused as error:
        raise PkiError(str(error)) from error
    except OSError as error:
        raise PkiError(f"{directory}: cannot create: {error.strerror}") from error


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
    """Create a file that must not exist yet, with exactly this mode, and sync it.

    Raises:
        PkiError: it exists, or cannot be written.
    """
    try:
        create_file(path, data, mode)
    except FileExistsError:
        raise PkiError(f"{path}: exists already; nothing was written") from None
    except OSError as error:
        raise PkiError(f"{path}: cannot create: {error.strerror}") from error


def replace_certificate(path: Path, pair: KeyPair) -> None:
    """Put a new certificate for the same key in place of an old one, atomically."""
    try:
        replace_file(path, pair.certificate_pem(), PUBLIC_FILE_MODE)
    except OSError as error:
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
    """An unencrypted PEM private key on P-256 that is ours alone.

    Raises:
        PkiError: it cannot be read, is none, or belongs or is open to others.
    """
    try:
        check_secret(path)
    except FileRefused as error:
        raise PkiError(f"private key {error}") from None
    except OSError as error:
        raise PkiError(f"{path}: cannot read: {error.strerror}") from error
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
