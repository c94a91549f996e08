"""The TLS key log: only when asked for, complete, and for its owner's eyes."""

from __future__ import annotations

import re
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from actors.transport.key_log import KeyLog
from actors.transport.quic import QuicEndpoint, QuicSettings
from actors.transport.tcp import TcpEndpoint, TcpSettings
from tests.conftest import PkiFixture, run
from tests.transport.engines.rig import identity
from tests.transport.test_endpoint import echo, exchange

LINE = re.compile(r"([A-Z_0-9]+) ([0-9a-f]{64}) ([0-9a-f]{64,96})")
SECRETS = {
    "CLIENT_HANDSHAKE_TRAFFIC_SECRET",
    "SERVER_HANDSHAKE_TRAFFIC_SECRET",
    "CLIENT_TRAFFIC_SECRET_0",
    "SERVER_TRAFFIC_SECRET_0",
}


def read(path: Path) -> dict[str, set[tuple[str, str]]]:
    """Secrets by label."""
    found: dict[str, set[tuple[str, str]]] = {}
    for line in path.read_text().splitlines():
        if line and not line.startswith("#"):
            match = LINE.fullmatch(line)
            assert match is not None, line
            found.setdefault(match[1], set()).add((match[2], match[3]))
    return found


@pytest.mark.parametrize("engine", ["native", "aioquic"])
def test_both_sides_of_a_quic_connection_log_the_same_secrets(
    pki: PkiFixture, tmp_path: Path, engine: str
) -> None:
    async def main() -> None:
        logs = [KeyLog(tmp_path / name) for name in ("server", "client")]
        settings = QuicSettings(engine=engine)
        server = QuicEndpoint(
            alpn=("orp/1",),
            identity=identity(pki, pki.relay),
            settings=replace(settings, key_log=logs[0]),
            on_connection=echo,
        )
        client = QuicEndpoint(
            alpn=("orp/1",),
            identity=identity(pki, pki.provider),
            settings=replace(settings, key_log=logs[1]),
        )
        try:
            connection = await client.connect(server.attach(("127.0.0.1", 0)))
            connection.start()
            assert await exchange(connection, b"hello") == b"hello"
        finally:
            client.abort()
            server.abort()
            for log in logs:
                log.close()
        found = read(tmp_path / "server")
        assert found == read(tmp_path / "client")
        assert set(found) == SECRETS
        assert len({random for secrets in found.values() for random, _ in secrets}) == 1
        assert stat.S_IMODE((tmp_path / "server").stat().st_mode) == 0o600
        assert "key_log" not in repr(server.settings)

    run(main())


def test_tcp_logs_into_the_same_file(pki: PkiFixture, tmp_path: Path) -> None:
    async def main() -> None:
        log = KeyLog(tmp_path / "keys")
        server = TcpEndpoint(
            alpn=("orp/1",),
            identity=identity(pki, pki.relay),
            settings=TcpSettings(key_log=log),
            on_connection=echo,
        )
        client = TcpEndpoint(
            alpn=("orp/1",), identity=identity(pki, pki.provider), settings=TcpSettings()
        )
        try:
            connection = await client.connect(server.attach(("127.0.0.1", 0)))
            connection.start()
            assert await exchange(connection, b"hello") == b"hello"
        finally:
            client.abort()
            server.abort()
            log.close()
        assert set(read(tmp_path / "keys")) >= SECRETS

    run(main())


def test_a_file_that_others_may_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text("")
    path.chmod(0o644)
    with pytest.raises(PermissionError, match="chmod 600"):
        KeyLog(path)


def test_an_environment_variable_turns_nothing_on(
    pki: PkiFixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "keys"))

    async def main() -> None:
        for make in (QuicEndpoint, TcpEndpoint):
            server = make(alpn=("orp/1",), identity=identity(pki, pki.relay), on_connection=echo)
            client = make(alpn=("orp/1",), identity=identity(pki, pki.provider))
            try:
                connection = await client.connect(server.attach(("127.0.0.1", 0)))
                connection.start()
                assert await exchange(connection, b"hello") == b"hello"
            finally:
                client.abort()
                server.abort()

    run(main())
    assert not (tmp_path / "keys").exists()
