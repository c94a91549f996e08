"""The recorded cases of the peer protocol; `vectors/README.md` explains their format."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from wire.peer.messages import peer_id

_FOLDER = Path(__file__).parent / "vectors"


@cache
def cases(topic: str) -> list[dict[str, Any]]:
    """All cases of a topic."""
    loaded: list[dict[str, Any]] = json.loads((_FOLDER / f"{topic}.json").read_text())["cases"]
    assert loaded
    return loaded


def payload_of(inputs: dict[str, Any]) -> bytes:
    """A payload that is given as text, or by its length and pattern."""
    if "payload_text" in inputs:
        return str(inputs["payload_text"]).encode()
    return bytes(i % 256 for i in range(inputs["payload"]["len"]))


def peers_of(spec: list[str] | str) -> list[bytes]:
    """IDs of a list of names, or of `n0 .. nK`."""
    if isinstance(spec, str):
        names = [f"n{i}" for i in range(int(spec.rpartition("n")[2]) + 1)]
    else:
        names = spec
    return [peer_id(name) for name in names]
