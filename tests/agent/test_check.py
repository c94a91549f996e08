"""`trunkline agent ... --check`: what would keep an agent from its work, where and why."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from click.testing import CliRunner

from actors.pki.certificates import create_leaf
from actors.pki.files import pair_paths, read_pair, write_pair
from tests.conftest import PkiFixture
from tests.transport.test_tcp import odd_leaf
from tools.agent.main import cli


def _check(
    *more: str, pki: PkiFixture, certificate: Path | None = None, key: Path | None = None,
    ca: Path | None = None,
) -> tuple[int, list[str], str]:  # fmt: skip
    """Exit code, lines of stderr, stdout."""
    result = CliRunner().invoke(
        cli,
        [
            *(more or ("provide", "--service", "web", "--target", "127.0.0.1:80")),
            *("--cert", str(certificate or pki.provider.certificate)),
            *("--key", str(key or pki.provider.key), "--ca", str(ca or pki.ca), "--check"),
        ],
    )
    assert result.exception is None or isinstance(result.exception, SystemExit), result.output
    return result.exit_code, result.stderr.splitlines(), result.stdout


def test_a_good_one_says_who_it_is(pki: PkiFixture) -> None:
    assert _check(pki=pki) == (0, [], f"settings are valid: {pki.provider.identity}\n")


def test_a_pair_that_is_none_is_named(pki: PkiFixture) -> None:
    code, said, _ = _check(pki=pki, key=pki.consumer.key)
    assert code == 2
    assert said == [f"{pki.consumer.key} is not the key of {pki.provider.certificate}"]


def test_dates_are_judged_and_those_that_end_soon_named(pki: PkiFixture, tmp_path: Path) -> None:
    paths = pair_paths(tmp_path, "soon")
    signer, now = read_pair(pair_paths(pki.ca.parent, "ca")), datetime.now(UTC)
    assert signer is not None
    lifetime = timedelta(days=3)
    write_pair(paths, create_leaf(signer, pki.provider.identity, lifetime=lifetime, now=now))
    code, said, _ = _check(pki=pki, certificate=paths.certificate, key=paths.key)
    assert code == 0
    (line,) = said
    assert line.startswith(f"the certificate {paths.certificate} ends on ")
    certificate, key = odd_leaf(pki, tmp_path, "expired")
    key.chmod(0o600)
    code, (line,), _ = _check(pki=pki, certificate=certificate, key=key)
    assert code == 2
    assert line.startswith(f"{certificate}: expired at ")


def test_role_and_chain_are_judged(pki: PkiFixture, tmp_path: Path) -> None:
    code, said, _ = _check(pki=pki, certificate=pki.relay.certificate, key=pki.relay.key)
    assert code == 2
    assert said == [
        f"{pki.relay.certificate}: its identity is '{pki.relay.identity}', not that of an agent"
    ]
    other = pki.foreign_agent
    code, said, _ = _check(pki=pki, certificate=other.certificate, key=other.key)
    assert code == 2
    assert said == [f"{other.certificate}: does not chain to {pki.ca}"]


def test_every_address_is_looked_at(pki: PkiFixture) -> None:
    code, said, _ = _check(
        *("run", "--provide", "web=nobody.invalid:80", "--consume", "db=192.0.2.1:5432"),
        *("--relay", "relay.invalid:7443"),
        pki=pki,
    )
    assert code == 2
    assert [line.split(":")[0] for line in said] == [
        "--relay relay.invalid",
        "target of web nobody.invalid",
        "--listen of db 192.0.2.1",
    ]
    assert all("check the name, and this host's DNS" in line for line in said[:2])
    assert "no interface of this host has that address" in said[2]
