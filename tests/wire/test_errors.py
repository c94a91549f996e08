from __future__ import annotations

import pytest

from wire.errors import LocalError, PeerError, ProtocolError


def test_an_error_without_a_culprit_cannot_be_raised() -> None:
    with pytest.raises(TypeError, match="somebody is at fault"):
        ProtocolError("something")


def test_a_peer_error_carries_what_to_answer() -> None:
    error = PeerError("17 bytes, limit 16", code=400, reason="too long", label="too_long")
    assert isinstance(error, ProtocolError)
    assert (str(error), error.code, error.reason, error.label) == (
        "17 bytes, limit 16",
        400,
        "too long",
        "too_long",
    )


def test_a_local_error_is_not_the_peers_fault() -> None:
    assert not isinstance(LocalError("wrong call"), PeerError)
