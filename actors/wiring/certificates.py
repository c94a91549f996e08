"""Our own certificates, judged before they are used: as strictly as a peer will judge them.

A certificate that peers refuse is no certificate: it is refused here, at the start and at every
reload, with the file and the reason, by the verifier that judges peers.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from cryptography import x509

from actors.files.ownership import check_secret
from actors.transport.own_certificate import judge_own, judge_shown
from actors.transport.revocation import Revocations
from actors.transport.revocation_file import read_revocations
from actors.transport.tls import CLIENT, SERVER, TlsIdentity, TlsMaterialError
from config.schema import Settings
from config.setting_types import TlsDoorRoom
from wire.orp.identity import AgentUri, IdentityError, RelayUri, parse_identity


def configured_identity(settings: Settings) -> TlsIdentity | None:
    """The certificate of this relay as settings name it; None: they name none.

    The certificates towards a controller, of the served one, and those that doors show instead, are
    judged on the way.

    Raises:
        TlsMaterialError, OSError: see `load_relay_identity`; or the revocation list cannot be used.
    """
    control, tls = settings.control, settings.node.tls
    caller = control.tls
    if caller.certificate is not None and caller.key is not None and caller.ca is not None:
        check_secret(caller.key)
        shown = TlsIdentity.load(caller.certificate, caller.key, caller.ca)
        judge_shown(shown, caller.certificate, CLIENT)
    served = control.serve.tls
    if served.certificate is not None and served.key is not None and served.ca is not None:
        check_served(served.certificate, served.key, served.ca)
    door_identities(settings)
    if tls.certificate is None or tls.key is None or tls.ca is None:
        return None
    dials = bool(settings.edge.relays.accept)
    return load_relay_identity(
        tls.certificate, tls.key, tls.ca, dials=dials, revocations=tls.revocations
    )


def door_identities(
    settings: Settings,
    authorities: tuple[x509.Certificate, ...] = (),
    revocations: Revocations | None = None,
) -> dict[str, TlsIdentity]:
    """What doors show that have a certificate of their own, by the name of the door.

    Args:
        authorities: of the relay network: whom these doors trust.
        revocations: what those took back.

    Raises:
        TlsMaterialError, OSError: see `load_relay_identity`; any CA may have made it.
    """
    result: dict[str, TlsIdentity] = {}
    for name, room in settings:
        if not isinstance(room, TlsDoorRoom) or room.tls_certificate is None:
            continue
        if room.tls_key is not None:  # as settings demand
            check_secret(room.tls_key)
            identity = TlsIdentity.load(room.tls_certificate, room.tls_key)
            judge_shown(identity, room.tls_certificate)
            result[name] = replace(
                identity, authorities=authorities, revocations=revocations or Revocations()
            )
    return result


def controller_certificates(settings: Settings) -> list[tuple[str, x509.Certificate]]:
    """Those shown to a controller and by the served one, and the CAs that judge them, by setting.

    Raises:
        TlsMaterialError: a file cannot be read.
    """
    found: list[tuple[str, x509.Certificate]] = []
    control = settings.control
    for setting, tls in (("control.tls", control.tls), ("control.serve.tls", control.serve.tls)):
        if tls.certificate is not None and tls.key is not None and tls.ca is not None:
            one = TlsIdentity.load(tls.certificate, tls.key, tls.ca)
            found.append((f"{setting}.certificate {tls.certificate}", one.chain[0]))
            found += [(f"{setting}.ca {tls.ca}", each) for each in one.authorities]
    return found


def load_relay_identity(
    certificate: Path,
    key: Path,
    ca: Path,
    *,
    dials: bool = False,
    revocations: Path | None = None,
) -> TlsIdentity:
    """The certificate of this relay.

    Args:
        dials: it is also shown to other relays, as a client.
        revocations: what the CA took back.

    Raises:
        TlsMaterialError: the files cannot be read or do not belong together, or a peer would
            refuse it: out of date, another CA, another purpose, or not of a relay.
        OSError: the key is not ours alone, or TLS cannot use it.
    """
    check_secret(key)
    identity = TlsIdentity.load(certificate, key, ca)
    judge_own(identity, certificate, ca, *((SERVER, CLIENT) if dials else (SERVER,)))
    try:
        is_relay = isinstance(parse_identity(identity.uri), RelayUri)
    except IdentityError:
        is_relay = False
    if not is_relay:
        raise TlsMaterialError(
            f"{certificate}: its identity is {identity.uri or 'missing'!r}, not that of a relay"
        )
    if revocations is not None:
        identity.revocations.use(read_revocations(revocations, identity.authorities))
    return identity


def check_served(certificate: Path, key: Path, ca: Path) -> None:
    """The certificate of the served controller: whoever its name says, as a TLS server.

    But no agent: relays refuse those. (Callers of `control.tls.require_relay = false` take others.)

    Raises:
        TlsMaterialError, OSError: see `load_relay_identity`.
    """
    check_secret(key)
    identity = TlsIdentity.load(certificate, key, ca)
    judge_own(identity, certificate, ca, SERVER)
    try:
        agent = isinstance(parse_identity(identity.uri), AgentUri)
    except IdentityError:
        return
    if agent:
        raise TlsMaterialError(
            f"{certificate}: its identity is {identity.uri!r}, an agent; relays refuse that"
        )
