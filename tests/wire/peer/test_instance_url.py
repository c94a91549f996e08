from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.wire.peer.vectors import cases
from wire.peer.instance_url import instance_url


@pytest.mark.parametrize(
    "case", [pytest.param(c, id=f"{c['name']} {c['original'][:2]}") for c in cases("instance_url")]
)
def test_both_originals_make_this_url(case: dict[str, Any]) -> None:
    exposed, tls = case["inputs"]["exposed_address"], case["inputs"]["tls"]
    strict = case["original"].startswith("netbird")
    if case["accepted"]:
        assert instance_url(exposed, tls=tls, strict=strict) == case["url"]
    else:
        with pytest.raises(ValueError):  # noqa: PT011  # its text is for people
            instance_url(exposed, tls=tls, strict=strict)


@given(st.text(max_size=60), st.booleans(), st.booleans())
def test_anything_is_a_url_or_refused(exposed: str, tls: bool, strict: bool) -> None:
    try:
        url = instance_url(exposed, tls=tls, strict=strict)
    except ValueError:
        return
    assert url.startswith(("rel://", "rels://"))
    assert instance_url(url, tls=False) == url
