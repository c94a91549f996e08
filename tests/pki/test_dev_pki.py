"""The development PKI: made once, reused, renewed, and never half-trusted."""

from __future__ import annotations

import os
import pickle
import stat
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import pytest

from actors.pki.certificates import CA_LIFETIME, TOOL_LEAF_LIFETIME, create_ca, identity_of
from actors.pki.dev_pki import DevPki, ensure_dev_pki
from actors.pki.files import (
    PkiError,
    make_private_directory,
    pair_paths,
    read_certificate,
    read_key,
    write_new,
)

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "state" / "pki"


def _contents(pki: DevPki) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(pki.directory.iterdir())}


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_the_first_start_makes_everything(directory: Path) -> None:
    pki = ensure_dev_pki(directory, now=NOW)
    assert sorted(_contents(pki)) == [
        "agent-consumer.crt",
        "agent-consumer.key",
        "agent-provider.crt",
        "agent-provider.key",
        "ca.crt",
        "ca.key",
        "relay-r1.crt",
        "relay-r1.key",
    ]
    assert pki.relay.identity == "outrelay://acme/relay/r1"
    provider = pki.agents["provider"]
    assert provider.identity == "outrelay://acme/agent/00000000-0000-0000-0000-000000000001"
    certificate = read_certificate(provider.certificate)
    assert identity_of(certificate) == provider.identity
    assert certificate.not_valid_after_utc == NOW + TOOL_LEAF_LIFETIME
    certificate.verify_directly_issued_by(read_certificate(pki.ca_certificate))
    assert os.listdir(directory.parent) == ["pki"]


@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_permissions_do_not_depend_on_the_umask(directory: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        pki = ensure_dev_pki(directory, now=NOW)
    finally:
        os.umask(before)
    assert _mode(directory) == 0o700
    for path in directory.iterdir():
        assert _mode(path) == (0o600 if path.suffix == ".key" else 0o644)
    assert pki.relay.key.stat().st_uid == os.getuid()


def test_the_second_start_changes_nothing(directory: Path) -> None:
    first = ensure_dev_pki(directory, now=NOW)
    before = _contents(first)
    assert ensure_dev_pki(directory, now=NOW + timedelta(days=1)) == first
    assert _contents(first) == before


def test_the_value_can_be_handed_to_another_process(directory: Path) -> None:
    pki = ensure_dev_pki(directory, now=NOW)
    assert pickle.loads(pickle.dumps(pki)) == pki


@pytest.mark.parametrize("age", [timedelta(days=28), timedelta(days=400)])
def test_an_old_leaf_is_certified_again_with_its_key(directory: Path, age: timedelta) -> None:
    pki = ensure_dev_pki(directory, now=NOW)
    before = _contents(pki)
    ensure_dev_pki(directory, now=NOW + age)
    after = _contents(pki)
    assert after["relay-r1.crt"] != before["relay-r1.crt"]
    assert after["relay-r1.key"] == before["relay-r1.key"]
    assert after["ca.crt"] == before["ca.crt"]
    renewed = read_certificate(pki.relay.certificate)
    assert renewed.not_valid_after_utc == NOW + age + TOOL_LEAF_LIFETIME
    assert renewed.public_key() == read_key(pki.relay.key).public_key()
    assert set(after) == set(before)


def test_another_tenant_gets_new_certificates(directory: Path) -> None:
    ensure_dev_pki(directory, now=NOW)
    pki = ensure_dev_pki(directory, tenant="beta", now=NOW)
    assert pki.relay.identity == "outrelay://beta/relay/r1"
    assert identity_of(read_certificate(pki.relay.certificate)) == pki.relay.identity


def test_a_further_agent_and_a_region_are_added(directory: Path) -> None:
    ensure_dev_pki(directory, now=NOW)
    pki = ensure_dev_pki(
        directory, relay_id="r2", agents={"third": UUID(int=3)}, region="eu", now=NOW
    )
    assert pki.relay.identity == "outrelay://eu/relay/r2"
    assert pki.agents["third"].key.is_file()
    assert (directory / "relay-r1.key").is_file()


@pytest.mark.parametrize(
    "missing, said",
    [
        ("relay-r1.key", "relay-r1.crt: half-written, relay-r1.key is missing"),
        ("relay-r1.crt", "relay-r1.key: half-written, relay-r1.crt is missing"),
        ("ca.key", "ca.crt: half-written, ca.key is missing"),
    ],
)
def test_half_a_pair_is_reported_and_left_alone(directory: Path, missing: str, said: str) -> None:
    pki = ensure_dev_pki(directory, now=NOW)
    (directory / missing).unlink()
    before = _contents(pki)
    with pytest.raises(PkiError, match=said):
        ensure_dev_pki(directory, now=NOW)
    assert _contents(pki) == before


def test_a_lost_ca_is_not_replaced_under_its_leaves(directory: Path) -> None:
    ensure_dev_pki(directory, now=NOW)
    (directory / "ca.crt").unlink()
    (directory / "ca.key").unlink()
    with pytest.raises(PkiError, match=r"ca\.crt: missing, but .* is not empty"):
        ensure_dev_pki(directory, now=NOW)


def test_an_empty_directory_is_as_good_as_none(directory: Path) -> None:
    directory.mkdir(parents=True, mode=0o700)
    assert ensure_dev_pki(directory, now=NOW).ca_key.is_file()


@pytest.mark.parametrize("name", ["relay-r1.crt", "relay-r1.key", "ca.crt", "ca.key"])
@pytest.mark.parametrize(
    "content", [b"", b"-----BEGIN CERTIFICATE-----\nAAAA\n", b"\x00" * 300_000]
)
def test_damage_names_the_file_and_never_its_content(
    directory: Path, name: str, content: bytes
) -> None:
    ensure_dev_pki(directory, now=NOW)
    (directory / name).write_bytes(content)
    with pytest.raises(PkiError, match=name) as caught:
        ensure_dev_pki(directory, now=NOW)
    assert "AAAA" not in str(caught.value)


def test_a_key_of_another_certificate_is_refused(directory: Path) -> None:
    pki = ensure_dev_pki(directory, now=NOW)
    pki.relay.key.write_bytes(pki.agents["provider"].key.read_bytes())
    with pytest.raises(PkiError, match=r"is not the key of relay-r1\.crt"):
        ensure_dev_pki(directory, now=NOW)


def test_a_leaf_of_another_ca_is_refused(directory: Path) -> None:
    pki = ensure_dev_pki(directory, now=NOW)
    stranger = create_ca(NOW)
    pki.ca_certificate.write_bytes(stranger.certificate_pem())
    pki.ca_key.write_bytes(stranger.key_pem())
    with pytest.raises(PkiError, match=r"not issued by the ca\.crt beside it"):
        ensure_dev_pki(directory, now=NOW)


def test_an_expired_ca_says_what_to_do(directory: Path) -> None:
    ensure_dev_pki(directory, now=NOW)
    with pytest.raises(PkiError, match="the CA expired 2036-04-28; remove"):
        ensure_dev_pki(directory, now=NOW + CA_LIFETIME)


def test_a_key_others_can_read_is_refused(directory: Path) -> None:
    pki = ensure_dev_pki(directory, now=NOW)
    pki.relay.key.chmod(0o640)
    with pytest.raises(PkiError, match=r"open to other users.*chmod 600"):
        ensure_dev_pki(directory, now=NOW)


def test_a_directory_others_can_write_to_is_refused(directory: Path) -> None:
    ensure_dev_pki(directory, now=NOW)
    directory.chmod(0o770)
    with pytest.raises(PkiError, match="others may write into it"):
        ensure_dev_pki(directory, now=NOW)


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(PkiError, match="not a directory"):
        ensure_dev_pki(tmp_path / "file" / "pki", now=NOW)
    with pytest.raises(PkiError, match="is not a directory"):
        make_private_directory(tmp_path / "file")


def test_illegal_names_are_refused_before_anything_is_written(directory: Path) -> None:
    with pytest.raises(ValueError, match="tenant"):
        ensure_dev_pki(directory, tenant="../up", now=NOW)
    assert not directory.exists()


def test_two_first_starts_at_once_agree(directory: Path) -> None:
    barrier = threading.Barrier(4)
    results: list[DevPki] = []

    def start() -> None:
        barrier.wait(timeout=10)
        results.append(ensure_dev_pki(directory, now=NOW))

    threads = [threading.Thread(target=start) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert len(results) == 4
    assert ensure_dev_pki(directory, now=NOW) == results[0]
    assert os.listdir(directory.parent) == ["pki"]


def test_a_link_is_not_followed_when_writing(tmp_path: Path) -> None:
    target = tmp_path / "target"
    (tmp_path / "x.key").symlink_to(target)
    with pytest.raises(PkiError, match="exists already"):
        write_new(pair_paths(tmp_path, "x").key, b"secret", 0o600)
    assert not target.exists()
