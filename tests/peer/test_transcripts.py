"""Sessions of the originals, said again to our door: it answers as they did.

`DIFFERENT` has where the sheet wants ours to be better. What is between two steps of a recording
does not count, but for the order of what one connection hears.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.conftest import run
from tests.peer.rig import Client, Relay, masked, relay
from tests.wire.peer.vectors import cases

#: By name and original: why it is not replayed.
DIFFERENT = {
    ("http_origin_other", "netbird"): "origins: replayed as of openZro",
    ("http_origin_null", "netbird"): "origins: replayed as of openZro",
    ("http_real_ip_bad_port", "openzro"): "headers of strangers are not believed (W23)",
    ("http_real_ip_hostname", "openzro"): "nobody resolves names for strangers (W23)",
    ("hello_after_auth", "netbird"): "as openZro: ignored",
    ("silent_before_auth", "openzro"): "there is a deadline (W3)",
    ("silent_before_auth", "netbird"): "there is a deadline; see test_limits",
    ("ws_fragmented_transport", "openzro"): "no truncated message is delivered (W20)",
    ("ws_oversize_8821", "openzro"): "no truncated message is delivered (W20)",
    ("ws_oversize_20000", "openzro"): "no truncated message is delivered (W20)",
}
TOPICS = ("transcript_session", "transcript_auth", "transcript_bad_input", "transcript_peer_state",
          "transcript_http")  # fmt: skip


def replayed() -> list[Any]:
    params = []
    for topic in TOPICS:
        for case in cases(topic):
            known = (case["name"], case["original"].partition(" ")[0])
            if case["transport"] == "ws" and known not in DIFFERENT:
                params.append(pytest.param(case, id="-".join(known)))
    return params


class Replay:
    """One recording."""

    def __init__(self, running: Relay) -> None:
        self.relay = running
        self.clients: dict[str, Client] = {}

    async def client(self, label: str) -> Client:
        if label not in self.clients:
            self.clients[label] = await self.relay.connect()
        return self.clients[label]

    async def play(self, event: dict[str, Any]) -> None:
        client = await self.client(event["conn"])
        kind, data = event["kind"], bytes.fromhex(event.get("hex", ""))
        if event["dir"] == "c2s":
            if kind in ("http", "raw"):
                client.write(data)
            elif kind == "msg":
                client.say(data)
            else:
                assert kind in ("eof", "reset"), event
                self.clients.pop(event["conn"]).close()
        elif kind == "http":
            same_head(await client.head(), data)
        elif kind == "msg":
            assert await client.message() == data
        elif kind == "frame":
            frame = await client.frame()
            if data[0] == 0x88 and data[2:4] == b"\x03\xea":
                assert frame[0] == 0x88  # the reason is information
                assert frame[2:4] == data[2:4]
            else:
                assert frame == data
        elif kind == "nothing":
            assert await client.silent()
        else:
            assert kind in ("eof", "reset"), event
            assert await client.ended()


def same_head(ours: bytes, recorded: bytes) -> None:
    """Status and headers, but for the date, the phrase and what says how long the body is."""

    def parsed(head: bytes) -> tuple[bytes, dict[bytes, bytes]]:
        first, *lines = head.partition(b"\r\n\r\n")[0].split(b"\r\n")
        headers = {
            name.strip().lower(): value.strip()
            for name, _, value in (line.partition(b":") for line in lines)
        }
        for name in (b"date", b"content-length", b"connection"):
            headers.pop(name, None)
        return first.split(b" ")[1], headers

    assert parsed(ours) == parsed(recorded)


@pytest.mark.parametrize("case", replayed())
def test_the_door_answers_as_the_originals(case: dict[str, Any]) -> None:
    async def scenario() -> None:
        url = case["config"]["instance_url"]
        async with relay(url=url, same_origin=case["original"].startswith("openzro")) as running:
            replay = Replay(running)
            for event in case["events"]:
                await replay.play(event)

    run(scenario())


def test_what_is_different_is_recorded() -> None:
    known = {
        (case["name"], case["original"].partition(" ")[0])
        for topic in TOPICS
        for case in cases(topic)
    }
    assert set(DIFFERENT) <= known


def test_masked_frames_are_those_of_the_recordings() -> None:
    assert masked(b"x", 0x89).hex() == "898137fa213d4f"
