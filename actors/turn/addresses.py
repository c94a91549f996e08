"""Which of our addresses peers shall send to, where nobody says it."""

from __future__ import annotations

import socket
from collections.abc import Iterable

from wire.stun.address import family_of


def outgoing_hosts(listen: Iterable[tuple[str, int]]) -> tuple[str, ...]:
    """One address per family of those we listen at; for a wildcard, where the default route leaves.

    Raises:
        OSError: there is none.
    """
    found: dict[int, str] = {}
    for host, _ in listen:
        if host not in ("0.0.0.0", "::", "", "*"):
            found.setdefault(family_of(host), host)
            continue
        for family in (1, 2) if host == "::" else (1,):
            ours = _outgoing(family)
            if ours:
                found.setdefault(family, ours)
    if not found:
        raise OSError(
            "turn.relay_addresses: this host has no address towards the Internet; set the ones "
            "that peers shall send to"
        )
    return tuple(found[family] for family in sorted(found))


def _outgoing(family: int) -> str:
    """Asks the kernel; sends nothing."""
    kind = socket.AF_INET if family == 1 else socket.AF_INET6
    somewhere = ("198.51.100.1", 9) if family == 1 else ("2001:db8::1", 9)
    try:
        with socket.socket(kind, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as probe:
            probe.connect(somewhere)
            return str(probe.getsockname()[0])
    except OSError:
        return ""
