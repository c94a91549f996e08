from __future__ import annotations

import pytest

from tests.conftest import run
from tests.peer.rig import relay
from wire.admin.arguments import Arguments
from wire.admin.errors import Declined
from wire.peer.messages import id_text, peer_id


def test_operators_see_peers_and_close_one() -> None:
    async def scenario() -> None:
        async with relay() as running:
            alice, bob = await running.join("alice"), await running.join("bob")
            alice.say(b"\x01\x03" + peer_id("bob") + b"hello")
            assert (await bob.message())[38:] == b"hello"
            commands = running.peer.commands()
            rows, result = await commands["peer_list"](Arguments({}), "test")
            assert result["peers"] == 2
            by_id = {row["peer"]: row for row in rows}
            assert by_id[id_text(peer_id("alice"))]["bytes_in"] == 43
            assert by_id[id_text(peer_id("bob"))]["bytes_out"] == 43
            which = id_text(peer_id("bob"))
            _, closed = await commands["peer_close"](Arguments({"which": which}), "test")
            assert closed == {"closed": 1}
            assert await bob.ended()
            await running.gone("bob")
            with pytest.raises(Declined, match="no peer"):
                await commands["peer_close"](Arguments({"which": which}), "test")

    run(scenario())
