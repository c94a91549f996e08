"""What a relay calls itself. Clients compare it byte for byte to learn whether two relays are one.

Source: protocol sheet peer 1.4.
"""

from __future__ import annotations

import re
from typing import Final

_SCHEME: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)\Z", re.DOTALL)
_ESCAPE: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")
_PORT: Final = re.compile(r"(?:[^:\[\]]*|\[[0-9A-Fa-f:.%]+\])(?::[0-9]*)?\Z")
_SPACE: Final = re.compile(r"[\x00-\x20\x7f]")


def instance_url(exposed: str, *, tls: bool, strict: bool = False) -> str:
    """The URL of the relay at an exposed address.

    Args:
        exposed: host, host:port or a URL with scheme rel or rels.
        tls: we speak TLS.
        strict: with TLS the scheme must be rels, as NetBird has it.

    Raises:
        ValueError: one sentence.
    """
    if not exposed:
        raise ValueError("the exposed address is required, such as relay.example.com:443")
    text = exposed if "://" in exposed else ("rels://" if tls else "rel://") + exposed
    match = _SCHEME.match(text)
    if match is None:
        raise ValueError(f"{exposed!r} has no scheme")
    scheme, rest = match[1].lower(), match[2]
    if scheme not in ("rel", "rels"):
        raise ValueError(f"scheme {scheme!r} is neither rel nor rels")
    if "://" in rest:
        raise ValueError(f"{exposed!r} has two schemes")
    host = re.split("[/?#]", rest, maxsplit=1)[0].rpartition("@")[2]
    if not host or _SPACE.search(rest) or _ESCAPE.search(rest) or not _PORT.match(host):
        raise ValueError(f"{exposed!r} is no address: host, host:port or rels://host:port")
    if strict and tls and scheme == "rel":
        raise ValueError("scheme rel is without TLS, but this relay speaks TLS; write rels")
    return f"{scheme}://{rest}"
