from __future__ import annotations

from wire.errors import PeerError
from wire.orp import errors, identity
from wire.orp.close_codes import CloseCode
from wire.orp.errors import OrpError

# Sheet 1.4: these end in a close with code 0 and an empty reason.
SILENT = {
    errors.HelloNotFirst,
    errors.HelloMalformed,
    errors.IdentityMismatch,
    identity.IdentityError,
    identity.BadScheme,
    identity.BadTenant,
    identity.BadPath,
    identity.BadUuid,
    identity.BadRelayId,
}


def leaves() -> set[type[OrpError]]:
    found: set[type[OrpError]] = set()
    todo: list[type[OrpError]] = [OrpError]
    while todo:
        subclasses = todo.pop().__subclasses__()
        found.update(subclasses)
        todo.extend(subclasses)
    return found


def test_every_peer_error_answers_silently_or_with_a_code_and_a_reason() -> None:
    for leaf in leaves():
        if leaf in SILENT:
            assert (leaf.CODE, leaf.REASON) == (CloseCode.SILENT, ""), leaf
        else:
            assert leaf.CODE != 0, leaf
            assert leaf.REASON, leaf


def test_every_peer_error_is_counted_under_its_own_label() -> None:
    labels = [leaf.LABEL for leaf in leaves()]
    assert len(labels) == len(set(labels))


def test_the_answer_travels_on_the_instance() -> None:
    error: PeerError = errors.FrameTooLarge(70_000, 65_536)
    assert error.code == CloseCode.FRAME_TOO_LARGE
    assert error.reason == "frame too large"
    assert error.label == "frame_too_large"
    assert "70000" in str(error)
    assert "65536" in str(error)
