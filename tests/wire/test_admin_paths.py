"""A path in a mounted tree has one name inside and one outside."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wire.admin.paths import below, inward, outward, row_outward

SEGMENT = st.text("abc:@.~", min_size=1, max_size=5)
PATH = st.lists(SEGMENT, max_size=4).map(lambda parts: "/" + "/".join(parts))
MOUNT = PATH.filter(lambda path: path != "/")


@given(MOUNT, PATH)
def test_outward_and_inward_are_inverse(mount: str, inner: str) -> None:
    outer = outward(mount, inner)
    assert below(outer, mount)
    assert inward(mount, outer) == inner


@given(MOUNT, PATH)
def test_inward_refuses_other_places(mount: str, path: str) -> None:
    if not below(path, mount):
        with pytest.raises(ValueError, match="not below"):
            inward(mount, path)


def test_a_sibling_with_the_same_beginning_is_not_below() -> None:
    assert not below("/node/echo2", "/node/echo")
    assert below("/node/echo/x", "/node/echo")
    assert below("/anything", "/")


def test_every_path_of_a_row_is_renamed() -> None:
    row = row_outward(
        "/node/echo",
        {
            "path": "/",
            "monitors": ["/a"],
            "links": [],
            "sender": "",
            "fields": {"supervisor": "/", "reason": "/etc is not a path of ours"},
            "id": "/",
        },
    )
    assert row == {
        "path": "/node/echo",
        "monitors": ["/node/echo/a"],
        "links": [],
        "sender": "",
        "fields": {"supervisor": "/node/echo", "reason": "/etc is not a path of ours"},
        "id": "/",
    }
