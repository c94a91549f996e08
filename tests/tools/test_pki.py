"""`trunkline pki` as a user runs it."""

from __future__ import annotations

import stat
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from actors.pki.certificates import identity_of
from actors.pki.files import read_certificate
from actors.transport.certificate_path import IdentityRejected
from actors.transport.revocation import marks_of
from actors.transport.revocation_file import read_revocations
from actors.transport.tls import CLIENT, SERVER, TlsMaterialError, verify_peer
from tools.pki.lifetime import format_span, parse_lifetime
from tools.pki.main import cli


def _pki(*arguments: str) -> Result:
    return CliRunner().invoke(cli, list(arguments))


@pytest.fixture
def out(tmp_path: Path) -> Path:
    directory = tmp_path / "pki"
    assert _pki("init", "--out", str(directory)).exit_code == 0
    return directory


def test_init_makes_a_private_ca(out: Path) -> None:
    assert stat.S_IMODE(out.stat().st_mode) == 0o700
    assert stat.S_IMODE((out / "ca.key").stat().st_mode) == 0o600
    assert stat.S_IMODE((out / "ca.crt").stat().st_mode) == 0o644


def test_nothing_is_overwritten(out: Path) -> None:
    before = (out / "ca.key").read_bytes()
    again = _pki("init", "--out", str(out))
    assert again.exit_code == 1
    assert "ca.key: exists already; nothing was written" in again.stderr
    assert (out / "ca.key").read_bytes() == before
    assert _pki("issue-relay", "--out", str(out)).exit_code == 0
    twice = _pki("issue-relay", "--out", str(out))
    assert twice.exit_code == 1
    assert "relay-r1.key: exists already" in twice.stderr


def test_a_certificate_left_behind_blocks_the_key_too(out: Path) -> None:
    (out / "relay-r1.crt").touch()
    assert _pki("issue-relay", "--out", str(out)).exit_code == 1
    assert not (out / "relay-r1.key").exists()


def test_issue_relay(out: Path) -> None:
    result = _pki("issue-relay", "--out", str(out), "--relay-id", "r7", "--region", "eu")
    assert result.exit_code == 0, result.output
    assert "identity  outrelay://eu/relay/r7" in result.stdout
    certificate = read_certificate(out / "relay-r7.crt")
    assert identity_of(certificate) == "outrelay://eu/relay/r7"
    certificate.verify_directly_issued_by(read_certificate(out / "ca.crt"))
    assert "PRIVATE KEY" not in result.output


def test_issue_agent_with_and_without_uuid(out: Path) -> None:
    given_uuid = "00000000-0000-0000-0000-00000000000a"
    result = _pki(
        "issue-agent", "--out", str(out), "--tenant", "beta", "--uuid", given_uuid, "--name", "cam"
    )
    assert result.exit_code == 0, result.output
    assert identity_of(read_certificate(out / "cam.crt")) == f"outrelay://beta/agent/{given_uuid}"
    for _ in range(2):
        assert _pki("issue-agent", "--out", str(out)).exit_code == 0
    uuids = {UUID(p.stem.removeprefix("agent-")) for p in out.glob("agent-*.crt")}
    assert len(uuids) == 2
    assert all(uuid.version == 4 for uuid in uuids)


@pytest.mark.parametrize("client_only", [False, True])
def test_a_client_only_certificate_is_no_servers(out: Path, client_only: bool) -> None:
    options = ("--client-only",) if client_only else ()
    result = _pki("issue-agent", "--out", str(out), "--name", "cam", *options)
    assert result.exit_code == 0, result.output
    chain = [read_certificate(out / "cam.crt")]
    authorities = [read_certificate(out / "ca.crt")]
    verify_peer(chain, authorities, purpose=CLIENT)
    if client_only:
        with pytest.raises(IdentityRejected):
            verify_peer(chain, authorities, purpose=SERVER, server_name="localhost")
        with pytest.raises(IdentityRejected):
            verify_peer(chain, authorities, purpose=SERVER)
    else:
        verify_peer(chain, authorities, purpose=SERVER, server_name="localhost")


def test_ttl(out: Path) -> None:
    assert _pki("issue-relay", "--out", str(out), "--ttl", "1h30m").exit_code == 0
    certificate = read_certificate(out / "relay-r1.crt")
    lifetime = certificate.not_valid_after_utc - certificate.not_valid_before_utc
    assert lifetime == timedelta(hours=1, minutes=31)


@pytest.mark.parametrize(
    "arguments, status, said",
    [
        (("issue-relay", "--ttl", "soon"), 2, "expected a duration such as 30d"),
        (("issue-relay", "--ttl", "9999d"), 2, "at most 3650d"),
        (("issue-relay", "--ttl", "999999999d999999999d"), 2, "Invalid value"),
        (("issue-relay", "--relay-id", "R1"), 1, "relay id 'R1': use 1 to 63 of a-z"),
        (("issue-agent", "--tenant", "a/b"), 1, "tenant 'a/b': use 1 to 63"),
        (("issue-agent", "--uuid", "7"), 2, "not a valid UUID"),
        (("issue-agent", "--name", "../x"), 1, "a plain file name, not a path"),
    ],
)
def test_wrong_input_is_refused(
    out: Path, arguments: tuple[str, ...], status: int, said: str
) -> None:
    before = sorted(out.iterdir())
    result = _pki(*arguments, "--out", str(out))
    assert result.exit_code == status
    assert said in result.stderr
    assert sorted(out.iterdir()) == before


def test_issuing_needs_a_ca(tmp_path: Path) -> None:
    result = _pki("issue-agent", "--out", str(tmp_path))
    assert result.exit_code == 1
    assert "no CA there; run `trunkline pki init` first" in result.stderr


def test_show(out: Path) -> None:
    _pki("issue-relay", "--out", str(out), "--ttl", "2h")
    shown = _pki("show", str(out / "relay-r1.crt")).stdout
    assert "identity  outrelay://local/relay/r1" in shown
    assert "(valid for 1h 59m)" in shown
    assert "use       server, client" in shown
    assert "use       CA" in _pki("show", str(out / "ca.crt")).stdout


def test_show_never_prints_a_key(out: Path) -> None:
    result = _pki("show", str(out / "ca.key"))
    assert result.exit_code == 1
    assert "not a PEM certificate" in result.stderr
    secret = (out / "ca.key").read_text().splitlines()[1]
    assert secret not in result.output


@pytest.mark.parametrize(
    "text, seconds", [("30d", 2_592_000), ("1h30m", 5400), ("90s", 90), ("1d1s", 86_401)]
)
def test_lifetimes(text: str, seconds: int) -> None:
    assert parse_lifetime(text) == timedelta(seconds=seconds)


@given(st.text(alphabet="0123456789dhms .-x", max_size=12))
def test_other_lifetimes_are_refused(text: str) -> None:
    try:
        lifetime = parse_lifetime(text)
    except ValueError:
        return
    assert lifetime > timedelta(0)
    assert set(text) <= set("0123456789dhms")


@pytest.mark.parametrize(
    "seconds, text",
    [(0, "0s"), (59, "59s"), (61, "1m 1s"), (86_400, "1d 0h"), (-7200, "2h 0m")],
)
def test_spans_read_well(seconds: int, text: str) -> None:
    assert format_span(timedelta(seconds=seconds)) == text


def test_an_agent_enrols_with_a_token_that_is_good_once(tmp_path: Path) -> None:
    authority, machine = str(tmp_path / "ca"), tmp_path / "machine"
    uuid = "00000000-0000-0000-0000-000000000007"
    runner = CliRunner()

    def pki(*arguments: str) -> Result:
        return runner.invoke(cli, list(arguments))

    nowhere = pki("token", "--out", authority, "--uuid", uuid)
    assert nowhere.exit_code == 1
    assert "no CA there" in nowhere.output
    assert not (tmp_path / "ca").exists()
    assert pki("init", "--out", authority).exit_code == 0
    token = pki("token", "--out", authority, "--uuid", uuid).output.strip()
    made = pki("request", "--out", str(machine), "--uuid", uuid, "--name", "web")
    assert made.exit_code == 0, made.output
    assert stat.S_IMODE((machine / "web.key").stat().st_mode) == 0o600
    csr = str(machine / "web.csr")
    enrolled = pki("enroll", "--out", authority, "--csr", csr, "--token", token)
    assert enrolled.exit_code == 0, enrolled.output
    assert f"outrelay://acme/agent/{uuid}" in enrolled.output
    assert "renew" in pki("show", str(machine / "web.crt")).output
    for path in ("enrolment.key", "enrolment.used"):
        assert stat.S_IMODE((tmp_path / "ca" / path).stat().st_mode) == 0o600
    unspent = pki("enroll", "--out", authority, "--csr", csr, "--token", "whatever")
    assert "web.crt: exists already" in unspent.output
    (machine / "web.crt").unlink()
    again = pki("enroll", "--out", authority, "--csr", csr, "--token", token)
    assert again.exit_code == 1
    assert "used before" in again.output
    nobody = pki("token", "--out", authority, "--tenant", "other")
    assert nobody.exit_code == 2
    assert "--any-agent" in nobody.output
    other = pki("token", "--out", authority, "--tenant", "other", "--any-agent").output.strip()
    refused = pki("enroll", "--out", authority, "--csr", csr, "--token", other)
    assert refused.exit_code == 1
    assert not (machine / "web.crt").exists()


def test_a_directory_others_can_write_issues_nothing(tmp_path: Path) -> None:
    directory = tmp_path / "ca"
    assert CliRunner().invoke(cli, ["init", "--out", str(directory)]).exit_code == 0
    directory.chmod(0o777)
    for command in (["issue-agent"], ["issue-relay"], ["token", "--any-agent"], ["request"]):
        refused = CliRunner().invoke(cli, [*command, "--out", str(directory)])
        assert refused.exit_code == 1, command
        assert f"chmod go-w {directory}" in refused.output, command
    assert sorted(one.name for one in directory.iterdir()) == ["ca.crt", "ca.key"]


def test_a_relay_has_the_names_it_is_dialled_by(out: Path) -> None:
    names = ("relay.example.org", "192.0.2.7", "2001:db8::7")
    options = [part for name in names for part in ("--dns", name)]
    assert _pki("issue-relay", "--out", str(out), *options).exit_code == 0
    leaf, ca = (read_certificate(out / f"{stem}.crt") for stem in ("relay-r1", "ca"))
    for name in ("localhost", *names):
        verify_peer([leaf], [ca], purpose=SERVER, server_name=name)
    with pytest.raises(IdentityRejected, match="wrong_name"):
        verify_peer([leaf], [ca], purpose=SERVER, server_name="other.example.org")
    shown = _pki("show", str(out / "relay-r1.crt")).stdout
    assert "names     localhost, relay.example.org, 192.0.2.7, 2001:db8::7" in shown
    for wrong in ("a b", "", "-x.org", "x..org", "x" * 64):
        refused = _pki("issue-relay", "--out", str(out), "--dns", wrong, "--name", "other")
        assert refused.exit_code == 1
        assert "neither a DNS name nor an IP address" in refused.stderr


def test_revoked_certificates_are_in_the_list_beside_the_ca(out: Path) -> None:
    for name in ("one", "two", "three"):
        assert _pki("issue-agent", "--out", str(out), "--name", name).exit_code == 0
    one, two, three = (read_certificate(out / f"{name}.crt") for name in ("one", "two", "three"))
    first = _pki("revoke", "--out", str(out), str(out / "one.crt"), "--reason", "key-compromise")
    assert first.exit_code == 0, first.output
    assert "revoked   1\n" in first.stdout
    again = _pki(
        "revoke", "--out", str(out), str(out / "one.crt"), "--serial", hex(two.serial_number)
    )
    assert "revoked   1 (the others were before)" in again.stdout
    listed = read_revocations(out / "ca.crl", [read_certificate(out / "ca.crt")])
    assert listed.marks == set(marks_of([one, two]))
    assert not listed.marks.intersection(marks_of([three]))


def test_what_cannot_be_revoked_changes_nothing(out: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    assert _pki("init", "--out", str(other)).exit_code == 0
    assert _pki("issue-agent", "--out", str(other), "--name", "theirs").exit_code == 0
    foreign = _pki("revoke", "--out", str(out), str(other / "theirs.crt"))
    assert foreign.exit_code == 1
    assert "not issued by the CA" in foreign.stderr
    assert not (out / "ca.crl").exists()
    assert _pki("revoke", "--out", str(out)).exit_code == 2
    (out / "ca.crl").write_text("damaged")
    damaged = _pki("revoke", "--out", str(out), "--serial", "ab")
    assert damaged.exit_code == 1
    assert "ca.crl: not a revocation list, or damaged" in damaged.stderr
    assert (out / "ca.crl").read_text() == "damaged"


def test_a_list_that_cannot_be_used_says_why(out: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    assert _pki("init", "--out", str(other)).exit_code == 0
    assert _pki("revoke", "--out", str(other), "--serial", "1").exit_code == 0
    trusted = [read_certificate(out / "ca.crt")]
    with pytest.raises(TlsMaterialError, match="is no CA that is trusted here"):
        read_revocations(other / "ca.crl", trusted)  # the same name, another key
    with pytest.raises(TlsMaterialError, match="cannot read the revocation list: No such file"):
        read_revocations(tmp_path / "none", trusted)
    for text in ("", "x", "-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n"):
        (tmp_path / "bad").write_text(text)
        with pytest.raises(TlsMaterialError, match="not a revocation list"):
            read_revocations(tmp_path / "bad", trusted)
