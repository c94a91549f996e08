"""What this relay would say to an agent's certificate, for whoever asks before dialling."""

from __future__ import annotations

from typing import Final

from cryptography import x509

from actors.transport.certificate_path import IdentityRejected
from actors.transport.peer_policy import PeerPolicy
from actors.transport.tls import TlsIdentity, first_uri
from wire.admin.errors import BadArguments
from wire.admin.messages import Row
from wire.orp.identity import AgentUri, IdentityError, parse_identity

#: Characters of PEM looked at.
MAX_SHOWN: Final = 32_768


def judge_client(pem: str, identity: TlsIdentity) -> Row:
    """What a handshake with this chain would come to.

    Result: agent (its URI, whatever the judgement), not_before, not_after, issuer, and problem: a
    word of the verifier, empty when it would be accepted.

    Raises:
        BadArguments: it is no PEM certificate.
    """
    try:
        chain = x509.load_pem_x509_certificates(pem.encode())
        leaf = chain[0]
        problem = ""
        try:
            PeerPolicy.MUTUAL.check(chain, identity, client=True)
            if not isinstance(parse_identity(first_uri(leaf) or ""), AgentUri):
                problem = "not_an_agent"
        except (IdentityRejected, IdentityError) as error:
            problem = error.slug if isinstance(error, IdentityRejected) else error.LABEL
        return {
            "agent": first_uri(leaf) or "",
            "not_before": leaf.not_valid_before_utc.isoformat(),
            "not_after": leaf.not_valid_after_utc.isoformat(),
            "issuer": leaf.issuer.rfc4514_string()[:200],
            "problem": problem,
        }
    except (ValueError, IndexError):
        raise BadArguments("chain is not a certificate in PEM") from None
