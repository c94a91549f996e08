"""A certificate that a door shows instead of the node's: judged before it is used."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from actors.pki.certificates import create_ca, create_leaf, relay_identity
from actors.transport.tls import TlsMaterialError
from actors.wiring.certificates import door_identities
from config.schema import Settings

NOW = datetime.now(UTC)
DAY = timedelta(days=1)


def _settings(directory: Path, made_at: datetime, *, key_of_another: bool = False) -> Settings:
    ca = create_ca(made_at)
    who = relay_identity("eu", "door")
    leaf, other = (create_leaf(ca, who, lifetime=DAY, now=made_at) for _ in range(2))
    chain, key = directory / "door.crt", directory / "door.key"
    chain.write_bytes(leaf.certificate_pem())
    key.touch(mode=0o600)
    key.write_bytes((other if key_of_another else leaf).key_pem())
    return Settings.model_validate({"turn": {"tls_certificate": chain, "tls_key": key}})


def test_a_certificate_of_any_ca_is_good(tmp_path: Path) -> None:
    shown = door_identities(_settings(tmp_path, NOW))
    assert list(shown) == ["turn"]
    assert shown["turn"].uri == relay_identity("eu", "door")
    assert door_identities(Settings()) == {}


@pytest.mark.parametrize(
    "made_at, said",
    [(NOW - 3 * DAY, "door.crt: expired at"), (NOW + DAY, "door.crt: is not valid before")],
)
def test_one_that_is_out_of_date_is_not(tmp_path: Path, made_at: datetime, said: str) -> None:
    with pytest.raises(TlsMaterialError, match=said):
        door_identities(_settings(tmp_path, made_at))


def test_nor_one_with_the_key_of_another(tmp_path: Path) -> None:
    with pytest.raises(TlsMaterialError, match=r"door.key is not the key of \S+door.crt"):
        door_identities(_settings(tmp_path, NOW, key_of_another=True))


def test_nor_one_whose_key_others_can_read(tmp_path: Path) -> None:
    settings = _settings(tmp_path, NOW)
    (tmp_path / "door.key").chmod(0o644)
    with pytest.raises(OSError, match=r"door\.key"):
        door_identities(settings)
