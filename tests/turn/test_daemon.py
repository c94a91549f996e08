"""The door in the daemon: what an operator sees and does."""

from __future__ import annotations

import asyncio
import json
import signal
import urllib.request
from pathlib import Path

import pytest

from tests.system.daemon import daemon
from tests.turn.rig import Client, Plug, code
from wire.stun import attribute as a
from wire.stun import message as stun

SERVE = ("--demo", "--listen", "127.0.0.1:0", "--set", "demo.consumer_listen=127.0.0.1:0",
         "--debug-listen", "127.0.0.1:0", "--listen-turn", "127.0.0.1:0",
         "--set", "turn.listen_tcp=127.0.0.1:0", "--set", "turn.listen_tls=127.0.0.1:0",
         "--set", "turn.realm=example.org", "--set", "turn.allowed_peers=127.0.0.1/32",
         "--set", 'turn.users={"alice":"wonder-land"}')  # fmt: skip


def _page(address: str) -> str:
    body: bytes = urllib.request.urlopen(f"{address}/metrics", timeout=10).read()
    return body.decode()


@pytest.mark.timeout(120)
def test_an_operator_sees_allocations_and_ends_them(tmp_path: Path) -> None:
    log = tmp_path / "access.jsonl"
    with daemon(tmp_path, *SERVE, "--access-log", str(log)) as running:
        port = int(running.wait_for(r"127\.0\.0\.1:(\d+) \(UDP, TURN\)").group(1))
        running.wait_for(r"\(TCP, TURN\)")
        running.wait_for(r"\(TLS, TURN\)")

        async def use() -> None:
            client, peer = Client(("127.0.0.1", port)), Plug()
            relayed = await client.allocate()
            assert await client.bind(0x4001, peer.address) == 0
            client.channel(0x4001, b"hello")
            assert await peer.receive() == (b"hello", relayed)
            (row,) = json.loads(running.ctl("turn", "list", "alice", "--json").stdout)
            assert (row["user"], row["channels"], row["bytes_from_client"]) == ("alice", 1, 5)
            assert row["relayed"] == [f"{relayed[0]} {relayed[1]}"]
            assert "wonder-land" not in running.ctl("turn", "show", "1").stdout
            metrics = running.wait_for(r"metrics on (http://\S+)/metrics").group(1)
            page = _page(metrics)
            assert "turn_allocations 1.0" in page
            assert "turn_bytes_from_clients_total 5.0" in page
            assert "alice" not in page
            running.ctl("kill", "/turn/allocations/1")
            peer.send(b"still here", relayed)
            assert await client.receive() == b"\x40\x01\x00\x0astill here"
            (user,) = json.loads(running.ctl("turn", "users", "--json").stdout)
            assert user == {"user": "alice", "allocations": 1, "bytes": 15}
            assert running.ctl("turn", "close", "1").stdout == "closed: 1\n"
            assert running.ctl("turn", "close", "1", check=False).returncode == 1
            assert code(await client.ask(stun.REFRESH, a.lifetime(600))) == 437
            client.close()
            peer.close()

        asyncio.run(use())
        assert "wonder-land" not in running.output
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(20) == 0
    records = [json.loads(line) for line in log.read_text().splitlines()]
    (record,) = (one for one in records if one["method"] == "allocate")
    assert (record["consumer"], record["bytes_up"], record["bytes_down"]) == ("alice", 5, 10)
    assert record["detail"] == "closed by an operator"
