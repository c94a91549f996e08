"""Identity URIs of agents and relays (sheet 1.1).

::

    outrelay://<tenant>/agent/<uuid>                tenant, region, relay-id:
    outrelay://<region-or-tenant>/relay/<relay-id>      [a-z0-9][a-z0-9-]{0,62}

The uuid may be written hyphenated, as 32 hex digits, with ``urn:uuid:`` in front or in braces, in
any case. Query and fragment are ignored. Rules are checked in the order scheme, tenant, path,
uuid, relay-id; the first broken one decides the error. Nothing is percent-decoded.

An identity **is** its exact text: two spellings of one uuid are two identities, because HELLO is
compared with the certificate byte for byte. `canonical` is for building URIs, not for comparing.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Final, NewType

from wire.orp.errors import OrpError

SCHEME: Final = "outrelay"

Tenant = NewType("Tenant", str)
"""First part of an agent's identity; everything an agent may see or reach has the same one."""

_LABEL: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_UUID: Final = re.compile(
    r"(?:urn:uuid:)?([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})"
    r"|\{([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})\}"
    r"|([0-9a-f]{32})",
    re.ASCII | re.IGNORECASE,
)


class IdentityError(OrpError):
    """Not an identity URI; the subclass names the broken rule. A silent close (sheet 1.4)."""

    LABEL = "bad_identity"


class BadScheme(IdentityError):
    """The scheme is not exactly ``outrelay``."""

    LABEL = "bad_identity_scheme"


class BadTenant(IdentityError):
    """The authority (with any port or userinfo) is not a tenant or region label."""

    LABEL = "bad_identity_tenant"


class BadPath(IdentityError):
    """The path is not ``/agent/<something>`` or ``/relay/<something>``."""

    LABEL = "bad_identity_path"


class BadUuid(IdentityError):
    """The second path segment of an agent is not a UUID."""

    LABEL = "bad_identity_uuid"


class BadRelayId(IdentityError):
    """The second path segment of a relay is not a relay-id label."""

    LABEL = "bad_identity_relay_id"


@dataclass(frozen=True, slots=True)
class AgentUri:
    """An agent's identity. Equal when the text is equal; `str()` gives the text.

    `uuid` is lower-case and hyphenated whatever the text's spelling.
    """

    text: str
    tenant: Tenant = field(compare=False)
    uuid: str = field(compare=False)

    @property
    def canonical(self) -> str:
        """The one spelling to use when a URI is made, not received."""
        return f"{SCHEME}://{self.tenant}/agent/{self.uuid}"

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class RelayUri:
    """A relay's identity. Equal when the text is equal; `str()` gives the text.

    `region` is the first slot, which development certificates fill with a tenant.
    """

    text: str
    region: str = field(compare=False)
    relay_id: str = field(compare=False)

    @property
    def canonical(self) -> str:
        """The one spelling to use when a URI is made, not received."""
        return f"{SCHEME}://{self.region}/relay/{self.relay_id}"

    def __str__(self) -> str:
        return self.text


def parse_identity(text: str) -> AgentUri | RelayUri:
    """Parse the URI SAN of a certificate or a configured identity.

    Raises:
        IdentityError: the leaf for the first broken rule (`BadScheme`, `BadTenant`, `BadPath`,
            `BadUuid`, `BadRelayId`).
    """
    scheme, _, rest = text.partition(":")
    if scheme != SCHEME:
        raise BadScheme(f"scheme is not {SCHEME!r} in {_shown(text)}")
    hierarchy = re.split(r"[?#]", rest, maxsplit=1)[0]
    authority, slash, path = hierarchy.removeprefix("//").partition("/")
    if not hierarchy.startswith("//") or _LABEL.fullmatch(authority) is None:
        raise BadTenant(f"no tenant of the form {_LABEL.pattern} in {_shown(text)}")
    role, _, name = path.partition("/")
    if not slash or role not in ("agent", "relay") or not name or "/" in name:
        raise BadPath(f"path is not /agent/<uuid> or /relay/<relay-id> in {_shown(text)}")
    if role == "relay":
        if _LABEL.fullmatch(name) is None:
            raise BadRelayId(f"relay id is not of the form {_LABEL.pattern} in {_shown(text)}")
        return RelayUri(text, authority, name)
    match = _UUID.fullmatch(name)
    if match is None:
        raise BadUuid(f"agent id is not a UUID in {_shown(text)}")
    digits = match[match.lastindex or 0].replace("-", "").lower()
    uuid = "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))
    return AgentUri(text, Tenant(authority), uuid)


def relay_problem(text: str, ids: Collection[str] = ()) -> str:
    """Why the holder of this identity is not the relay that was dialled; empty when it is.

    Args:
        text: the URI SAN of its certificate; empty when it has none.
        ids: of the relays that may answer; empty: any relay.
    """
    try:
        identity = parse_identity(text)
    except IdentityError as error:
        return str(error)
    if not isinstance(identity, RelayUri):
        return f"{identity} is not a relay"
    if ids and identity.relay_id not in ids:
        return f"{identity} is not {' or '.join(sorted(ids))}"
    return ""


# The peer chose the text: escaped, and short enough for a log line.
def _shown(text: str) -> str:
    return ascii(text if len(text) <= 200 else f"{text[:200]}...")
