"""Another process's tree, mounted below its process actor, looks and acts like a part of ours."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest

from actors.admin.child_link import ControlLink
from actors.admin.mounts import ControlFailed
from actors.runtime import Actor, ChildSpec, Restart
from tests.admin.rig import Job, mounted_child, node
from tests.conftest import eventually, run
from tools.control_client import ControlError
from wire.admin.limits import MAX_IN_FLIGHT_LINK
from wire.admin.messages import Greeting, decode_request, encode_greeting, encode_part

INNER = "/pool/echo"


def test_one_tree_is_seen() -> None:
    async def main() -> None:
        async with node() as one, mounted_child(one):
            client = await one.client()
            rows = await client.rows("tree", path="/pool")
            assert [row["path"] for row in rows] == [
                "/pool",
                INNER,
                f"{INNER}/links",
                f"{INNER}/links/listen",
                f"{INNER}/links/dial",
                f"{INNER}/parent-link",
            ]
            assert rows[1]["mount"] is True
            assert [row["path"] for row in await client.rows("tree", path=INNER, depth=1)] == [
                INNER,
                f"{INNER}/links",
                f"{INNER}/parent-link",
            ]
            inside = await client.rows("tree", path=f"{INNER}/links")
            assert [row["id"] for row in inside] == ["links", "listen", "dial"]
            found = await client.rows("tree", filter="dial")
            assert [row["path"] for row in found] == [
                "/",
                "/pool",
                INNER,
                f"{INNER}/links",
                f"{INNER}/links/dial",
            ]
            below = await client.rows("tree", filter=INNER.rpartition("/")[2])
            assert [row["path"] for row in below if row["match"]] == [
                INNER,
                f"{INNER}/links",
                f"{INNER}/links/listen",
                f"{INNER}/links/dial",
                f"{INNER}/parent-link",
            ]
            assert await client.rows("tree", filter="no such name") == []
            await client.close()

    run(main())


def test_children_describe_and_stats_reach_inside() -> None:
    async def main() -> None:
        async with node() as one, mounted_child(one):
            client = await one.client()
            call = client.call("children", path=INNER)
            assert [row["path"] async for row in call.rows()] == [
                f"{INNER}/links",
                f"{INNER}/parent-link",
            ]
            assert (await call.result())["path"] == INNER
            details = await client.request("describe", path=f"{INNER}/links/dial")
            assert (details["path"], details["class"]) == (f"{INNER}/links/dial", "Worker")
            outer = await client.request("describe", path=INNER)
            assert outer["class"] == "ChildNode"
            process = outer["process"]
            assert isinstance(process, dict)
            assert (process["path"], process["class"]) == (INNER, "Supervisor")
            stats = await client.request("stats", path=f"{INNER}/links")
            assert (stats["path"], stats["actors"]) == (f"{INNER}/links", 3)
            assert (await client.request("stats"))["mounts"] == [INNER]
            with pytest.raises(ControlError, match="no actor at /nothing"):
                await client.request("describe", path=f"{INNER}/nothing")
            await client.close()

    run(main())


def test_verbs_reach_inside_and_name_the_operator() -> None:
    async def main() -> None:
        async with node() as one, mounted_child(one) as child:
            client = await one.client()
            answer = await client.request("kill", path=f"{INNER}/links/dial", reason="drill")
            assert answer["path"] == f"{INNER}/links/dial"
            dial = child.ref("/links/dial")
            assert dial is not None
            await dial.started(timeout=5.0)
            ended = [event for event in child.events.history if event.kind == "exited"]
            assert str(ended[-1].fields["initiator"]).startswith("operator uid=")
            # The link is the branch we sit on.
            with pytest.raises(ControlError, match="--force"):
                await client.request("kill", path=f"{INNER}/parent-link")
            # At the mount's own path the process actor is meant.
            await client.request("kill", path=INNER)
            await eventually(lambda: one.mounts.at(INNER) is None)
            with pytest.raises(ControlError, match="no actor"):
                await client.request("describe", path=f"{INNER}/links")
            await client.close()

    run(main())


def test_events_of_both_are_told_in_one_stream() -> None:
    async def main() -> None:
        async with node() as one, mounted_child(one) as child:
            client = await one.client()
            past = await client.rows("events", last=2048, kinds="started")
            paths = [str(row["path"]) for row in past]
            assert "/app/one" in paths
            assert f"{INNER}/links/dial" in paths
            assert [row["at"] for row in past] == sorted(float(str(row["at"])) for row in past)
            call = client.call("events", last=0, follow=True, kinds="exited")
            await eventually(lambda: child.events.subscribers == 1)
            dial = child.ref("/links/dial")
            assert dial is not None
            child.kill(dial)
            one.system.kill(one.ref("/app/one"))
            seen: dict[object, Any] = {}
            async with asyncio.timeout(5.0):
                async for row in call.rows():
                    seen[row["path"]] = row["fields"]
                    if len(seen) == 2:
                        break
            assert set(seen) == {"/app/one", f"{INNER}/links/dial"}
            assert seen[f"{INNER}/links/dial"]["supervisor"] == f"{INNER}/links"
            call.cancel()
            await eventually(lambda: child.events.subscribers == 0)
            inside = await client.rows("events", path=f"{INNER}/links/listen", last=1)
            assert [row["path"] for row in inside] == [f"{INNER}/links/listen"]
            await client.close()

    run(main())


def test_a_process_that_comes_later_is_followed_too() -> None:
    async def main() -> None:
        async with node() as one:
            client = await one.client()
            call = client.call("events", last=0, follow=True, path="/pool")
            async with mounted_child(one), asyncio.timeout(10.0):
                async for row in call.rows():
                    if row["path"] == f"{INNER}/links/dial":
                        break
            await client.close()

    run(main())


def test_a_trace_reaches_inside() -> None:
    async def main() -> None:
        async with node() as one, mounted_child(one) as child:
            client = await one.client()
            call = client.call("trace", path=f"{INNER}/links/dial", limit=1)
            cell = child.find("/links/dial")
            assert cell is not None
            await eventually(lambda: cell.tracer is not None)
            cell.ref.tell(Job())
            rows = [row async for row in call.rows()]
            assert [row["path"] for row in rows] == [f"{INNER}/links/dial"]
            await client.close()

    run(main())


@pytest.mark.parametrize("root", ["/", "/pool", INNER, f"{INNER}/links"])
def test_a_watch_shows_both_trees_as_one(root: str) -> None:
    async def main() -> None:
        async with node() as one, mounted_child(one):
            client = await one.client()
            wanted = {"/": 0, "/pool": 0, INNER: 0, f"{INNER}/links": 0}
            call = client.call("watch", root=root, open=wanted, interval=0.5)
            paths: dict[object, int] = {}
            async with asyncio.timeout(5.0):
                async for row in call.rows():
                    rows = row["rows"]
                    assert isinstance(rows, list)
                    paths = {one["path"]: one["depth"] for one in rows}
                    if f"{INNER}/links/dial" in paths:
                        break
            depth = {"/": 4, "/pool": 3, INNER: 2, f"{INNER}/links": 1}[root]
            assert paths[f"{INNER}/links/dial"] == depth
            assert paths[f"{INNER}/links"] == depth - 1
            assert f"{INNER}" not in paths or paths[INNER] == depth - 2
            call.cancel()
            await client.close()

    run(main())


def test_a_filter_and_top_reach_inside() -> None:
    async def main() -> None:
        async with node() as one, mounted_child(one) as child:
            client = await one.client()
            dial = child.ref("/links/dial")
            assert dial is not None
            child.suspend(dial)
            dial.tell(Job())
            wishes: list[dict[str, Any]] = [
                {"filter": "dial"},
                {"view": "top", "sort": "mailbox", "descending": True, "max_rows": 1},
            ]
            for args in wishes:
                last: dict[str, Any] = {}
                stream = client.call("watch", interval=0.5, **args)
                async with asyncio.timeout(5.0):
                    async for picture in stream.rows():
                        rows = picture["rows"]
                        assert isinstance(rows, list)
                        last = rows[-1] if rows else {}
                        if last.get("mailbox"):
                            break
                assert last["path"] == f"{INNER}/links/dial"
                stream.cancel()
            await client.close()

    run(main())


def test_the_loss_of_the_process_is_an_answer_not_a_hang() -> None:
    async def main() -> None:
        async with node() as one:
            client = await one.client()
            async with mounted_child(one):
                follow = client.call("trace", path=f"{INNER}/links/dial")
                await client.request("describe", path=f"{INNER}/links/dial")
            with pytest.raises(ControlError) as caught:
                await follow.result()
            assert caught.value.code == "unavailable"
            with pytest.raises(ControlError) as caught:
                await client.request("describe", path=f"{INNER}/links")
            assert caught.value.code == "unavailable"
            call = client.call("tree", path="/pool")
            assert [row["path"] async for row in call.rows()] == ["/pool", INNER]
            unavailable = (await call.result())["unavailable"]
            assert isinstance(unavailable, list)
            assert unavailable[0]["path"] == INNER
            assert "control link" in unavailable[0]["message"]
            await client.close()

    run(main())


class _LinkOwner(Actor):
    """Owns the parent's end of a link to a peer that the test plays."""

    def __init__(self, sock: socket.socket, lost: list[str]) -> None:
        self._sock = sock
        self._lost = lost

    def init(self) -> None:
        self.control = ControlLink(self, self._sock, on_lost=self._lost.append)

    def describe(self) -> dict[str, object]:
        return {"lost": self.control.lost}


def test_a_peer_that_breaks_the_protocol_loses_the_link() -> None:
    async def main() -> None:
        async with node() as one:
            ours, theirs = socket.socketpair()
            lost: list[str] = []
            owner: list[_LinkOwner] = []

            def make() -> Actor:
                owner.append(_LinkOwner(ours, lost))
                return owner[-1]

            spec = ChildSpec("liar", make, restart=Restart.TEMPORARY)
            ref = one.system.start_child(one.ref("/pool"), spec)
            await ref.started(timeout=5.0)
            link = owner[0].control
            with pytest.raises(ControlFailed, match="starting"):
                await link.request("stats", {}, timeout=1.0)
            theirs.sendall(encode_greeting(Greeting("liar", 1)))
            assert (await link.greeted(timeout=5.0)).node == "liar"
            call = link.call("tree", {})
            others = [link.call("tree", {}) for _ in range(MAX_IN_FLIGHT_LINK)]
            with pytest.raises(ControlFailed, match="too many"):
                await others[-1].result()
            request = decode_request(theirs.recv(65536).splitlines()[0])
            assert request.window == 8
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01):
                    await call.result()
            theirs.sendall(encode_part(request.id, [{}]) * 9)
            await eventually(lambda: lost)
            assert lost == ["protocol error: more parts than the window allows"]
            assert call.unread == 8
            with pytest.raises(ControlFailed) as caught:
                await call.result()
            assert caught.value.code == "unavailable"
            with pytest.raises(ControlFailed):
                await others[0].result()
            with pytest.raises(ControlFailed, match="no control link"):
                await link.request("stats", {}, timeout=1.0)
            theirs.close()

    run(main())


def test_many_parts_cross_a_link_and_a_slow_reader_holds_up_nobody() -> None:
    async def main() -> None:
        async with node() as one, mounted_child(one) as child:
            links = child.find("/links")
            assert links is not None
            _, writer = await one.lines()
            line = b'{"id":1,"op":"events","args":{"path":"%s/links","last":0,"follow":true},'
            writer.write(line % INNER.encode() + b'"window":1}\n')
            await eventually(lambda: child.events.subscribers == 1)
            dial = child.ref("/links/dial")
            assert dial is not None
            for _ in range(60):
                child.suspend(dial)
                child.resume(dial)
                await asyncio.sleep(0)
            client = await one.client()
            for _ in range(50):
                assert len(await client.rows("tree", path=f"{INNER}/links")) == 3
            writer.close()
            await client.close()

    run(main())
