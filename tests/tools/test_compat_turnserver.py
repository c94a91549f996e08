"""coturn's options, as ours reads them; and its program, as its clients see ours."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from ipaddress import ip_network
from pathlib import Path

import pytest

from tests.system.daemon import ROOT
from tests.turn.rig import Client
from tools.compat.turnserver import (
    ConfigError,
    Options,
    networks,
    read_arguments,
    read_file,
    turn_settings,
)

FILE = """
# a comment
listening-ip=127.0.0.1
listening-port=3500
min-port=50000
max-port=50999
realm=example.org
lt-cred-mech
fingerprint
user=alice:wonder-land
user=bob:builder:with:colons
static-auth-secret=north
static-auth-secret=south
denied-peer-ip=10.0.0.0-10.255.255.255
denied-peer-ip=192.0.2.7
allowed-peer-ip=10.1.2.3
user-quota=12
total-quota=1200
external-ip=192.0.2.99/127.0.0.1
mobility
no-tcp
userdb=/var/lib/turn/turndb
redis-statsdb="ip=127.0.0.1"
"""


def test_a_file_of_an_operator() -> None:
    options = Options()
    read_file(FILE, "turnserver.conf", options)
    settings = turn_settings(options)
    assert settings.listen == (("127.0.0.1", 3500),)
    assert settings.listen_tcp == settings.listen_tls == ()
    assert (settings.first_port, settings.last_port) == (50_000, 50_999)
    assert settings.users == {"alice": "wonder-land", "bob": "builder:with:colons"}
    assert settings.secrets == (b"north", b"south")
    assert settings.denied == (ip_network("10.0.0.0/8"), ip_network("192.0.2.7"))
    assert settings.allowed == (ip_network("10.1.2.3"),)
    assert (settings.rules.max_per_user, settings.rules.max_allocations) == (12, 1200)
    assert settings.external == {"127.0.0.1": "192.0.2.99"}
    assert settings.rules.mobility
    assert options.ignored == ["turnserver.conf:22: userdb", "turnserver.conf:23: redis-statsdb"]


def test_the_command_line_wins() -> None:
    options = Options()
    line = [
        "-c",
        "x.conf",
        "-L",
        "::1",
        "-p",
        "3600",
        "--realm=other",
        "-f",
        "--no-udp",
        "-v",
        "--what",
    ]
    assert read_arguments(line, options) == Path("x.conf")
    settings = turn_settings(options)
    assert settings.listen == ()
    assert settings.listen_tcp == (("::1", 3600),)
    assert settings.realm == "other"
    assert options.ignored == ["command line: what"]
    with pytest.raises(ConfigError, match="needs a value"):
        read_arguments(["-L"], Options())


@pytest.mark.parametrize("text", ["x", "10.0.0.1-::1", "10.0.0.9-10.0.0.1", "10.0.0.1/99", ""])
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(ConfigError):
        networks(text)


@pytest.mark.parametrize(
    "name, value", [("user", "alice"), ("user", "a:0xdead"), ("min-port", "x")]
)
def test_what_cannot_be_meant(name: str, value: str) -> None:
    options = Options()
    options.add(name, value, "here")
    with pytest.raises(ConfigError):
        turn_settings(options)


def test_a_client_of_the_program(tmp_path: Path) -> None:
    path = tmp_path / "turnserver.conf"
    path.write_text(
        "listening-ip=127.0.0.1\nlistening-port=0\nrealm=example.org\nuser=alice:wonder-land\n"
        "no-tcp\nallow-loopback-peers\nuserdb=x\n"
    )
    command = [sys.executable, "-m", "tools.entry", "compat", "turnserver", "-c", str(path)]
    with subprocess.Popen(
        command, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    ) as program:
        try:
            assert program.stderr is not None
            assert program.stderr.readline() == f"ignored: {path}:7: userdb\n"
            while (
                match := re.search(r"TURN on ([\d.]+):(\d+)", program.stderr.readline())
            ) is None:
                assert program.poll() is None

            async def main(address: tuple[str, int]) -> None:
                client = Client(address)
                relayed = await client.allocate()
                assert await client.bind(0x4000, relayed) == 0
                client.channel(0x4000, b"x")
                client.close()

            asyncio.run(main((match[1], int(match[2]))))
        finally:
            program.kill()
