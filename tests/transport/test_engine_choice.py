"""Which engine is used, and what is said about it."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from actors.transport.quic import engines
from actors.transport.quic.engines import EngineUnavailable, select
from actors.transport.quic.self_test import SelfTestFailed, self_test


@pytest.fixture(autouse=True)
def fresh_choice() -> Iterator[None]:
    """The choice is made once per process: let each test make it anew."""
    select.cache_clear()
    yield
    select.cache_clear()


def test_native_is_the_default_here() -> None:
    choice = select()
    assert choice.name == "native"
    assert "qh3 2.1" in choice.reason


def test_aioquic_by_configuration() -> None:
    assert select("aioquic").name == "aioquic"


def test_another_version_falls_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(engines.NATIVE_REQUIRES, "qh3", "9.9.")
    choice = select("auto")
    assert choice.name == "aioquic"
    assert "is not 9.9.x" in choice.reason
    with pytest.raises(EngineUnavailable, match=r"is not 9\.9\.x"):
        select("native")


def test_a_package_that_is_not_installed_falls_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(engines.NATIVE_REQUIRES, "no-such-distribution", "1.")
    assert "not installed" in select("auto").reason


def test_a_package_that_does_not_import_falls_back(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [n for n in sys.modules if n.startswith("actors.transport.quic.native_")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "qh3._hazmat", None)
    choice = select("auto")
    assert choice.name == "aioquic"
    assert "import failed" in choice.reason


def test_a_failed_self_test_falls_back(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(make: object) -> None:
        raise SelfTestFailed("no handshake")

    monkeypatch.setattr("actors.transport.quic.self_test.self_test", broken)
    choice = select("auto")
    assert choice.name == "aioquic"
    assert choice.reason == "native is not usable: self-test failed: no handshake"


@pytest.mark.parametrize("name", ["native", "aioquic"])
def test_the_self_test_passes_for_both(name: str) -> None:
    self_test(select(name).make)


def test_no_such_engine() -> None:
    with pytest.raises(ValueError, match="no QUIC engine"):
        select("msquic")
