"""The agent's own certificate, judged before it is used.

Source: protocol sheet ORP 1.1 to 1.4.
"""

from __future__ import annotations

from pathlib import Path

from cryptography import x509

from actors.files.ownership import check_secret
from actors.observe.expiry import Dated
from actors.transport.own_certificate import judge_own
from actors.transport.tls import CLIENT, TlsIdentity, TlsMaterialError
from tools.agent.settings import AgentSettings
from wire.orp.identity import AgentUri, IdentityError, parse_identity


def load_agent_identity(settings: AgentSettings, uri: str = "") -> TlsIdentity:
    """Read the three files of the settings.

    Args:
        uri: whose certificate it must be: who this agent has been so far. Empty: who it says it is
            (`AgentSettings.uri`), or anybody.

    Raises:
        TlsMaterialError: they cannot be read or do not belong together, or a relay would refuse
            the certificate: out of date, another CA, not for clients, not of this agent.
        OSError: the key is not ours alone.
    """
    certificate, key, ca = (Path(p) for p in (settings.certificate, settings.key, settings.ca))
    check_secret(key)
    identity = TlsIdentity.load(certificate, key, ca)
    judge_own(identity, certificate, ca, CLIENT)
    try:
        is_agent = isinstance(parse_identity(identity.uri), AgentUri)
    except IdentityError:
        is_agent = False
    if not is_agent:
        raise TlsMaterialError(
            f"{certificate}: its identity is {identity.uri or 'missing'!r}, not that of an agent"
        )
    own = uri or settings.uri
    if own and identity.uri != own:
        raise TlsMaterialError(f"{certificate}: it is of {identity.uri}, and this is {own}")
    return identity


def dates(settings: AgentSettings) -> list[Dated]:
    """The ends of the agent's certificate and of the CA that judges relays, as the files are.

    Nothing of a file that cannot be read: the next dial says it.
    """
    found: list[Dated] = []
    for what, path in (("the certificate", settings.certificate), ("the CA", settings.ca)):
        try:
            certificates = x509.load_pem_x509_certificates(Path(path).read_bytes())
        except (OSError, ValueError):
            continue
        own = certificates[:1] if path == settings.certificate else certificates
        found += [Dated(f"{what} {path}", one.not_valid_after_utc) for one in own]
    return found
