"""Settings that were called otherwise before: the old keys are still understood."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

#: Old key -> key.
RENAMED: Final = {
    "edge.relay_id": "node.id",
    "edge.region": "node.region",
    "edge.tls.certificate": "node.tls.certificate",
    "edge.tls.key": "node.tls.key",
    "edge.tls.ca": "node.tls.ca",
    "edge.tls.key_log": "node.tls.key_log",
}
#: Groups all of whose keys were renamed.
RENAMED_GROUPS: Final = frozenset({"edge.tls"})


def advice(old: Iterable[str]) -> str:
    """What to write instead of these old keys, in one sentence."""
    pairs = ", ".join(f"{key} is {RENAMED[key]}" for key in sorted(set(old)))
    return f"settings have new names, and the old ones will not be understood for ever: {pairs}"
