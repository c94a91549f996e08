"""Our relay says what the reference was recorded to say, but where the sheet wants it otherwise.

Frames of yamux are compared per stream: how DATA is cut, and when credit is given, is free.
"""

from __future__ import annotations

import asyncio
import re

import pytest

from tests.conftest import run
from tests.rendezvous.recordings import EVENT, HANDSHAKE, MULTIPLEX, POOL, PORTS
from tests.rendezvous.rig import Peer, Relay, free_base, relay
from tests.wire.yamux.peer import PING, WINDOW, Frame, frames_of

ALL = {**HANDSHAKE, **POOL, **EVENT, **PORTS, **MULTIPLEX}
#: The reference leaves these open, or its process ends (1.2): ours closes.
CLOSES = {"hs_upper", "hs_unknown", "hs_event_bad_second"}
#: What else differs, and why.
DIFFERENT = {
    # An error of the service is one to its user, at once (1.7 row 20a).
    "pool_member_rst": ("u1 quiet", "u1 < a"),
    # Users that come while a service drains are refused with RST: an end would be an answer.
    "mux_goaway0": ("u2 eof",),
}
VARIABLE = re.compile(r"\$\{(\w+)\}")


class Replay:
    def __init__(self, it: Relay, name: str) -> None:
        self.it = it
        self.name = name
        self.peers: dict[str, Peer] = {}
        self.known: dict[str, str] = {}
        self.turned_away: set[str] = set()

    def bytes_of(self, text: str) -> bytes:
        if text.startswith("0x"):
            return bytes.fromhex(text[2:])
        return VARIABLE.sub(lambda match: self.known[match[1]], text).encode()

    async def step(self, step: str) -> None:
        if step.startswith("? "):
            _, name, wanted = step.split()
            assert await self._listens(name, there=wanted == "yes")
            return
        name, action, *rest = step.split(" ", 2)
        text = rest[0] if rest else ""
        if action == "connect":
            port = 0 if text == "base" else int(self.known[text])
            try:
                self.peers[name] = await self.it.connect(port)
            except ConnectionResetError:
                self.turned_away.add(name)
            return
        if name in self.turned_away:
            assert action in ("eof", "reset")
            return
        peer = self.peers[name]
        if action == "<":
            await peer.send(self.bytes_of(text))
            await asyncio.sleep(0.02)  # what is one segment there is one here
        elif action == ">":
            await self._hear(name, peer, text)
        elif action in ("finish", "close"):
            getattr(peer, action)()
        elif action == "rst":
            peer.reset()
        elif action == "quiet" and self.name not in CLOSES:
            assert await peer.quiet(), step
        else:
            assert await peer.end() in ("eof", "reset"), step
            if name.startswith("u"):
                peer.close()  # as users do; the reference closes them completely

    async def _listens(self, name: str, *, there: bool) -> bool:
        for _ in range(100):
            if await self.it.listens(int(self.known[name])) is there:
                return True
            await asyncio.sleep(0.02)
        return False

    async def _hear(self, name: str, peer: Peer, text: str) -> None:
        if text.startswith("0x"):
            wanted, left = frames_of(bytes.fromhex(text[2:]))
            if wanted and not left:
                await self._hear_frames(name, peer, wanted)
                return
        if VARIABLE.search(text):
            heard = "".join([f"{await peer.line()}\n" for _ in range(text.count("\n"))])
            pattern = VARIABLE.sub(r"(?P<\1>\\w+)", text)
            match = re.fullmatch(pattern, heard)
            assert match is not None, (text, heard)
            for key, value in match.groupdict().items():
                assert self.known.setdefault(key, value) == value
            return
        wanted_bytes = self.bytes_of(text)
        assert await peer.exactly(len(wanted_bytes)) == wanted_bytes

    async def _hear_frames(self, name: str, peer: Peer, wanted: list[Frame]) -> None:
        for frame in wanted:
            if frame.kind == WINDOW and not frame.flags:
                continue
            while True:
                heard = await peer.frame()
                if not (heard.kind == WINDOW and not heard.flags) and not (
                    heard.kind == PING and frame.kind != PING
                ):
                    break
            assert heard == frame, (self.name, frame, heard)


@pytest.mark.parametrize("name", sorted(ALL))
def test_the_conversation_goes_as_with_the_reference(name: str) -> None:
    async def main() -> None:
        async with relay(port=free_base(), handshake=5.0, user_wait=6.0, keepalive=30.0) as it:
            replay = Replay(it, name)
            for step in ALL[name]:
                if step not in DIFFERENT.get(name, ()):
                    await replay.step(step)

    run(main())


def test_each_difference_is_one_of_a_recording() -> None:
    for name, steps in DIFFERENT.items():
        assert set(steps) <= set(ALL[name]), name
    assert set(ALL) >= CLOSES
