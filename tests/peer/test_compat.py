"""The programs of others, as their operators start them."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.peer.rig import REQUEST, masked, token
from tools.compat.main import cli
from wire.peer.messages import Auth, encode_auth, peer_id


@pytest.mark.parametrize("program, prefix", [("netbird-relay", "NB"), ("openzro-relay", "OZ")])
def test_a_relay_is_started_by_its_environment(program: str, prefix: str, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret\n")
    env = os.environ | {
        f"{prefix}_LISTEN_ADDRESS": "127.0.0.1:0",
        f"{prefix}_EXPOSED_ADDRESS": "rel://relay.example:80",
        f"{prefix}_AUTH_SECRET_FILE": str(secret),
        f"{prefix}_METRICS_PORT": "0",
        "NB_HEALTH_LISTEN_ADDRESS": "127.0.0.1:0",
    }
    arguments = [sys.executable, "-m", "tools.entry", "compat", program]
    with subprocess.Popen(arguments, env=env, stderr=subprocess.PIPE, text=True) as running:
        assert running.stderr is not None
        port = 0
        for line in running.stderr:
            found = re.search(r"listening on 127\.0\.0\.1:(\d+) \(ws, peer\)", line)
            if found:
                port = int(found[1])
                break
        with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
            client.sendall(REQUEST + masked(encode_auth(Auth(peer_id("alice"), token()))))
            got = b""
            while b"rel://relay.example:80" not in got:
                more = client.recv(4096)
                assert more, got
                got += more
        running.send_signal(signal.SIGTERM)
        running.stderr.read()
        assert running.wait(20) == 0


@pytest.mark.parametrize(
    "arguments, said",
    [
        ((), "exposed address is required"),
        (("-e", "x:1"), "--auth-secret"),
        (("-e", "http://x", "-s", "s"), "neither rel nor rels"),
        (("-e", "x", "-s", "s", "-a", "example.com"), "--letsencrypt-domains is not supported"),
    ],
)
def test_what_cannot_be_is_said_in_one_sentence(arguments: tuple[str, ...], said: str) -> None:
    for program in ("netbird-relay", "openzro-relay"):
        result = CliRunner().invoke(cli, [program, *arguments])
        assert result.exit_code == 2
        assert said in result.output.replace("\n", " ")
