"""`ctl agents`, `services`, `streams` over doors whose clients are no agents of the network."""

from __future__ import annotations

from typing import Any

from actors.transport.addresses import address_text
from actors.wiring.views import Views
from tests.conftest import eventually, run
from tests.peer import rig as peers
from tests.rendezvous import rig as services
from wire.admin.arguments import Arguments
from wire.peer.messages import id_text, peer_id


async def _rows(views: Views, view: str, **filters: str) -> list[dict[str, Any]]:
    rows, result = await views.rows(view, Arguments(dict(filters)))
    assert result["silent"] == []
    assert result["matched"] == len(rows)
    return [dict(row) for row in rows]


def test_services_of_the_rendezvous_door_and_their_users_are_listed() -> None:
    async def main() -> None:
        async with services.relay() as it:
            views = Views({"rendezvous": it.rendezvous})
            member, port, _ = await it.pool()
            user = await it.connect(port)
            await user.send(b"four")
            assert await member.exactly(4) == b"four"
            await member.send(b"answer")
            assert await user.exactly(6) == b"answer"

            (agent,) = await _rows(views, "agents")
            assert (agent["agent"], agent["services"]) == ("127.0.0.1", [f"port-{port}"])
            assert agent["remote"] == address_text(*member.sock.getsockname())
            (service,) = await _rows(views, "services", service=f"port-{port}")
            assert (service["listen"], service["streams"]) == (port, 1)
            (stream,) = await _rows(views, "streams", door="rendezvous", filter="pool")
            assert stream["consumer"] == address_text(*user.sock.getsockname())
            assert (stream["service"], stream["provider"]) == (f"port-{port}", "127.0.0.1")
            assert (stream["bytes_up"], stream["bytes_down"]) == (4, 6)
            assert (agent["bytes_out"], agent["bytes_in"]) == (4, 6)
            assert it.system.find(stream["path"]) is not None
            assert await _rows(views, "streams", service="other") == []
            user.close()
            await eventually(lambda: not list(it.rendezvous.streams()))

    run(main())


def test_peers_of_the_peer_door_are_listed() -> None:
    async def main() -> None:
        async with peers.relay() as it:
            views = Views({"peer": it.peer})
            alice, bob = await it.join("alice"), await it.join("bob")
            alice.say(b"\x01\x03" + peer_id("bob") + b"hello")
            await bob.message()
            rows = {row["agent"]: row for row in await _rows(views, "agents")}
            said = rows[id_text(peer_id("alice"))]
            assert (said["bytes_in"], said["transport"]) == (43, "ws")
            assert said["remote"] == address_text(*alice.writer.get_extra_info("sockname"))
            assert it.system.find(said["path"]) is not None
            assert len(await _rows(views, "agents", agent=id_text(peer_id("bob")))) == 1
            assert await _rows(views, "services") == await _rows(views, "streams") == []

    run(main())
