"""`trunkline doctor` with real sockets, certificates and relays: findings, remedies, status."""

from __future__ import annotations

import asyncio
import json
import resource
import socket
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from tests.conftest import PkiFixture, run
from tests.edge.rig import relay
from tools.doctor import cli


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No daemon and no settings of whoever runs the tests are found."""
    monkeypatch.setenv("TRUNKLINE_NODE__STATE_DIRECTORY", str(tmp_path))


def _doctor(*arguments: object) -> tuple[int, list[dict[str, Any]]]:
    result = CliRunner().invoke(cli, [*map(str, arguments), "--json"])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.output
    found: list[dict[str, Any]] = json.loads(result.stdout)
    assert all(one["remedy"] for one in found if one["level"] == "mend")
    return result.exit_code, found


def _mend(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [one for one in found if one["level"] == "mend"]


def _config(tmp_path: Path, pki: PkiFixture, port: int, *, key: Path | None = None) -> Path:
    config = tmp_path / "trunkline.toml"
    config.write_text(
        f'[edge]\nlisten = ["127.0.0.1:{port}"]\nlisten_tcp = ["127.0.0.1:0"]\n[node.tls]\n'
        f'certificate = "{pki.relay.certificate}"\nkey = "{key or pki.relay.key}"\n'
        f'ca = "{pki.ca}"\n'
    )
    return config


def test_a_sound_host_has_nothing_to_mend(tmp_path: Path, pki: PkiFixture) -> None:
    code, found = _doctor("--config", _config(tmp_path, pki, 0))
    assert (code, _mend(found)) == (0, [])
    by = {one["about"]: one for one in found}
    assert by["certificate"]["says"].startswith(pki.relay.identity)
    assert {"settings", "rules", "port", "clock", "limits", "buffers", "kernel"} <= set(by)


def test_a_port_that_somebody_has_is_named(tmp_path: Path, pki: PkiFixture) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        code, found = _doctor("--config", _config(tmp_path, pki, port))
    (one,) = _mend(found)
    assert (code, one["about"]) == (1, "port")
    assert f"edge.listen 127.0.0.1:{port} (UDP) cannot be bound" in one["says"]
    assert f"ss -lnup 'sport = :{port}'" in one["remedy"]


def test_what_does_not_belong_together_is_named(tmp_path: Path, pki: PkiFixture) -> None:
    code, found = _doctor("--config", _config(tmp_path, pki, 0, key=pki.provider.key))
    (one,) = _mend(found)
    assert (code, one["about"]) == (1, "certificate")
    assert str(pki.provider.key) in one["says"]
    broken = tmp_path / "broken.toml"
    broken.write_text("[edge]\nlisen = []\n")
    code, found = _doctor("--config", broken)
    assert code == 1
    assert "edge.lisen" in _mend(found)[0]["says"]
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    far = _config(tmp_path, pki, 0)
    text = far.read_text() + f'[control]\nbackend = "grpc"\naddress = "127.0.0.1:{port}"\n'
    far.write_text(text)
    code, found = _doctor("--config", far)
    (one,) = _mend(found)
    assert (one["about"], code) == ("controller", 1)
    assert "nobody listens there" in one["says"]


def test_few_descriptors_are_a_note(tmp_path: Path, pki: PkiFixture) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1000, hard))
    try:
        code, found = _doctor("--config", _config(tmp_path, pki, 0))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    (one,) = [one for one in found if one["about"] == "limits"]
    assert (code, one["level"]) == (0, "note")
    assert "LimitNOFILE" in one["remedy"]


def test_relays_are_dialled_by_quic_and_tcp(tmp_path: Path, pki: PkiFixture) -> None:
    config = _config(tmp_path, pki, 0)

    async def main() -> None:
        async with relay(pki, tmp_path, tcp=True) as here:
            quic = f"127.0.0.1:{here.address[1]}"
            tcp = f"127.0.0.1:{here.edge.tcp_addresses[0][1]}"
            agent = pki.consumer
            both = ("--config", config, "--relay", quic, "--relay-tcp", tcp)
            shown = (*both, "--cert", agent.certificate, "--key", agent.key)
            code, found = await asyncio.to_thread(_doctor, *shown, "--ca", pki.ca)
            assert (code, _mend(found)) == (0, [])
            answers = [one["says"] for one in found if one["about"] == "relay"]
            assert answers == [
                f"{quic} by QUIC: {pki.relay.identity} answers",
                f"{tcp} by TCP: {pki.relay.identity} answers",
            ]
            other = ("--ca", pki.foreign_ca_certificate)
            code, found = await asyncio.to_thread(_doctor, *shown, *other)
            (one,) = _mend(found)
            assert f"does not chain to {pki.foreign_ca_certificate}" in one["says"]
            stranger = pki.foreign_agent
            theirs = ("--cert", stranger.certificate, "--key", stranger.key, *other)
            code, found = await asyncio.to_thread(_doctor, *both, *theirs)
            assert (code, len(_mend(found))) == (1, 2)
            for one in _mend(found):
                assert "its certificate is of another CA" in one["says"]
                assert "compare --ca" in one["remedy"]

    run(main())


def test_an_agents_host_needs_no_settings_of_a_relay(tmp_path: Path, pki: PkiFixture) -> None:
    """By flags or by the agent's own file: what is wrong on the way to the relay is all."""
    agent = pki.consumer
    shown = ("--cert", agent.certificate, "--key", agent.key, "--ca", pki.ca)
    file = tmp_path / "agent.toml"

    async def main() -> None:
        async with relay(pki, tmp_path, tcp=True) as here:
            quic = f"127.0.0.1:{here.address[1]}"
            tcp = f"127.0.0.1:{here.edge.tcp_addresses[0][1]}"
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
                silent.bind(("127.0.0.1", 0))
                blocked = f"127.0.0.1:{silent.getsockname()[1]}"
                file.write_text(
                    f'relay = ["{blocked}"]\nrelay_tcp = ["{tcp}"]\ncert = "{agent.certificate}"\n'
                    f'key = "{agent.key}"\nca = "{pki.ca}"\n'
                )
                code, found = await asyncio.to_thread(_doctor, "--config", file)
            (one,) = _mend(found)
            assert (code, one["says"]) == (1, f"{blocked} by QUIC: no answer")
            assert one["remedy"].startswith("UDP does not get through, TCP does")
            code, found = await asyncio.to_thread(_doctor, "--relay", quic, *shown)
            assert (code, _mend(found)) == (0, [])
            assert not {"settings", "port", "rules"} & {one["about"] for one in found}
            (own,) = [one for one in found if one["about"] == "certificate"]
            assert own["says"].startswith(agent.identity)
            code, found = await asyncio.to_thread(_doctor, "--relay", "a.invalid:7443", *shown)
            (one,) = _mend(found)
            assert one["says"].startswith("a.invalid:7443 by QUIC: a.invalid: ")
            assert one["remedy"] == "check the name, and this host's DNS"

    run(main())
