"""A reload takes everything that is good, or nothing: and says what was wrong and what stays."""

from __future__ import annotations

import asyncio
import shutil
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import pytest
from cryptography import x509

from actors.pki.certificates import (
    KeyPair,
    agent_identity,
    create_ca,
    create_leaf,
    relay_identity,
)
from actors.pki.files import pair_paths, read_pair
from tests.conftest import PkiFixture
from tests.system.daemon import ROOT, RunningDaemon, daemon
from tools.control_client import ControlClient, ControlError

DAY = timedelta(days=1)
RULE = '[[rule]]\nid = "{id}"\ntenant = "acme"\ncaller = "*"\ntarget = "*"\ndecision = "allow"\n'


def authority(pki: PkiFixture) -> KeyPair:
    pair = read_pair(pair_paths(pki.dev.directory, "ca"))
    assert pair is not None
    return pair


class Files:
    """What the daemon reads, to be made good and bad."""

    def __init__(self, directory: Path, pki: PkiFixture) -> None:
        self.pki = pki
        self.certificate = directory / "relay.crt"
        self.key = directory / "relay.key"
        self.ca = directory / "ca.crt"
        self.rules = directory / "rules.toml"
        self.settings = directory / "trunkline.toml"
        shutil.copy(pki.relay.certificate, self.certificate)
        shutil.copy(pki.relay.key, self.key)
        shutil.copy(pki.ca, self.ca)
        self.rules.write_text(RULE.format(id="one"))
        self.settings.write_text(
            "[edge]\nlisten = ['127.0.0.1:0']\nlisten_tcp = ['127.0.0.1:0']\n"
            f"[node.tls]\ncertificate = '{self.certificate}'\nkey = '{self.key}'\n"
            f"ca = '{self.ca}'\n[control.policy]\nfiles = ['{self.rules}']\n"
        )

    def put(self, leaf: KeyPair) -> None:
        self.certificate.write_bytes(leaf.certificate_pem())
        self.key.write_bytes(leaf.key_pem())

    def issue(
        self, identity: str, *, since: datetime | None = None, ca: KeyPair | None = None
    ) -> KeyPair:
        # Not when the module was loaded: the CA is made when the first test asks for it.
        since = since or datetime.now(UTC)
        return create_leaf(ca or authority(self.pki), identity, lifetime=DAY, now=since)


def shown(running: RunningDaemon, pki: PkiFixture) -> int:
    """The serial number of the certificate a new connection is shown."""
    match = running.wait_for(r"relay \S+ on 127\.0\.0\.1:(\d+) \(TCP\)")
    context = ssl.create_default_context(cafile=str(pki.ca))
    context.load_cert_chain(pki.consumer.certificate, pki.consumer.key)
    context.set_alpn_protocols(["orp/1"])
    with (
        socket.create_connection(("127.0.0.1", int(match[1])), timeout=10) as raw,
        context.wrap_socket(raw, server_hostname="localhost") as secure,
    ):
        der = secure.getpeercert(binary_form=True)
    assert der is not None
    return x509.load_der_x509_certificate(der).serial_number


def ask(running: RunningDaemon, what: str) -> str:
    """The ids of the rows of an answer, or why there is none."""

    async def main() -> str:
        client = await ControlClient.connect(running.socket)
        try:
            call = client.call(what)
            rows = [str(row["id"]) async for row in call.rows()]
            await call.result()
        except ControlError as error:
            return str(error)
        finally:
            await client.close()
        return " ".join(rows)

    return asyncio.run(main())


RELAY = relay_identity("acme", "r1")
AGENT = agent_identity("acme", UUID(int=1))


def _expired(files: Files) -> str:
    """It was valid in the first second of the CA, which is backdated."""
    ca = authority(files.pki)
    began = ca.certificate.not_valid_before_utc
    files.put(create_leaf(ca, RELAY, lifetime=timedelta(seconds=1), now=began))
    return f"{files.certificate}: expired at"


def _wrong_role(files: Files) -> str:
    files.put(files.issue(AGENT))
    return f"{files.certificate}: its identity is '{AGENT}', not that of a relay"


def _another_relay(files: Files) -> str:
    files.put(files.issue(relay_identity("acme", "r2")))
    return f"the certificate is of outrelay://acme/relay/r2, and this is {RELAY}"


def _foreign(files: Files) -> str:
    files.put(files.issue(RELAY, ca=create_ca(datetime.now(UTC))))
    return f"{files.certificate}: does not chain to {files.ca}"


def _not_a_pair(files: Files) -> str:
    files.certificate.write_bytes(files.issue(RELAY).certificate_pem())
    return f"{files.key} is not the key of {files.certificate}"


def _half_written(files: Files) -> str:
    files.put(files.issue(RELAY))
    files.certificate.write_bytes(files.certificate.read_bytes()[:200])
    return "not usable PEM"


def _open_key(files: Files) -> str:
    files.put(files.issue(RELAY))
    files.key.chmod(0o644)
    return f"chmod 600 {files.key}"


def _broken_rules(files: Files) -> str:
    files.put(files.issue(RELAY))
    files.rules.write_text(RULE.format(id="two") + "[[rule]]\nid = 'broken'\n")
    return f"rules: {files.rules}"


def _broken_settings(files: Files) -> str:
    files.put(files.issue(RELAY))
    files.rules.write_text(RULE.format(id="two"))
    files.settings.write_text(files.settings.read_text() + "[log]\nlevel = 'LOUD'\n")
    return "log.level"


BREAK: list[Callable[[Files], str]] = [
    _expired, _wrong_role, _another_relay, _foreign, _not_a_pair, _half_written, _open_key,
    _broken_rules, _broken_settings,
]  # fmt: skip


def test_a_reload_is_all_or_nothing(tmp_path: Path, pki: PkiFixture) -> None:
    files = Files(tmp_path, pki)
    good = {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    with daemon(tmp_path, "--config", str(files.settings)) as running:
        running.wait_for("control socket")
        first = shown(running, pki)
        for make in BREAK:
            said = make(files)
            refused = ask(running, "reload")
            assert said in refused, make
            assert "nothing was changed" in refused, make
            assert shown(running, pki) == first, make
            assert ask(running, "policy_list") == "one", make
            assert "reloaded" not in running.output, make
            for path, text in good.items():
                path.write_bytes(text)
                path.chmod(0o600)
        # By signal the log says the same, and the next one works however often it failed.
        _wrong_role(files)
        running.process.send_signal(signal.SIGHUP)
        running.wait_for(r"reload refused: .*not that of a relay; nothing was changed")
        renewed = files.issue(RELAY)
        files.put(renewed)
        files.rules.write_text(RULE.format(id="two"))
        running.process.send_signal(signal.SIGHUP)
        running.wait_for(rf"reloaded: certificate of {RELAY} until .* UTC; 1 rules of files")
        running.wait_for(r"WARNING +the certificate of this relay ends on ")
        assert shown(running, pki) == renewed.certificate.serial_number
        assert ask(running, "policy_list") == "two"
        assert "reloaded: certificate of" in running.ctl("reload").stdout
        _foreign(files)
        refused_by_ctl = running.ctl("reload", check=False)
        assert refused_by_ctl.returncode == 1
        assert "does not chain" in refused_by_ctl.stderr
        assert running.stop() == 0


@pytest.mark.parametrize("make", [_wrong_role, _foreign, _not_a_pair])
def test_a_daemon_does_not_start_with_what_peers_would_refuse(
    tmp_path: Path, pki: PkiFixture, make: Callable[[Files], str]
) -> None:
    files = Files(tmp_path, pki)
    said = make(files)
    command = [
        sys.executable, "supervisor.py", "--config", str(files.settings),
        "--state-directory", str(tmp_path / "s"),
    ]  # fmt: skip
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=50)
    assert ended.returncode == 71
    assert ended.stderr.splitlines() == [ended.stderr.strip()]
    assert said in ended.stderr
    assert not (tmp_path / "s" / "control.db-wal").exists()
    checked = subprocess.run([*command, "--check"], cwd=ROOT, capture_output=True, text=True)
    assert checked.returncode == 2
    assert said in checked.stderr
