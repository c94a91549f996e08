"""`watch`: what a screen shows of the tree, picture by picture."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.admin.rig import Job, Node, node
from tests.conftest import eventually, run
from tools.control_client import Call, ControlClient, ControlError


async def _next(call: Call) -> dict[str, Any]:
    async with asyncio.timeout(5.0):
        async for part in call.parts():
            return part[0]
    raise AssertionError("the watch ended")


async def _picture(client: ControlClient, **args: object) -> dict[str, Any]:
    call = client.call("watch", interval=0.5, **args)
    picture = await _next(call)
    call.cancel()
    return picture


def _drawn(picture: dict[str, Any]) -> list[tuple[int, str]]:
    return [
        (row["depth"], row.get("path") or f"{row['where']} {row['more']} of {row['more_of']}")
        for row in picture["rows"]
    ]


def test_only_open_places_show_their_children() -> None:
    async def main() -> None:
        async with node() as one:
            one.add("a", "b")
            one.system.suspend(one.ref("/pool/b"))
            one.ref("/pool/b").tell(Job())
            client = await one.client()
            picture = await _picture(client, open={"/": 0, "/app": 0})
            assert _drawn(picture) == [
                (0, "/"),
                (1, "/app"),
                (2, "/app/one"),
                (2, "/app/two"),
                (1, "/pool"),
                (1, "/ops"),
            ]
            pool = picture["rows"][4]["group"]
            assert (pool["actors"], pool["worst"], pool["mailbox"]) == (2, "suspended", 1)
            assert picture["totals"]["actors"] == len(await client.rows("tree"))
            await client.close()

    run(main())


def test_a_group_of_many_shows_a_page_and_what_is_left() -> None:
    async def main() -> None:
        async with node() as one:
            one.add(*(f"{number:03}" for number in range(250)))
            client = await one.client()
            args = {"root": "/pool", "page": 2}
            assert _drawn(await _picture(client, open={"/pool": 100}, **args)) == [
                (0, "/pool"),
                (1, "before 100 of /pool"),
                (1, "/pool/100"),
                (1, "/pool/101"),
                (1, "after 148 of /pool"),
            ]
            # A page that is no longer there: the last one is shown.
            late = _drawn(await _picture(client, open={"/pool": 9999}, **args))
            assert late[1:] == [(1, "before 248 of /pool"), (1, "/pool/248"), (1, "/pool/249")]
            short = await _picture(client, open={"/pool": 0}, root="/pool", max_rows=5)
            assert short["truncated"]
            assert len(short["rows"]) == 5
            await client.close()

    run(main())


def test_pictures_follow_what_happens() -> None:
    async def main() -> None:
        async with node() as one:
            client = await one.client()
            call = client.call("watch", interval=0.5, root="/app", open={"/app": 0})
            first = await _next(call)
            one.system.kill(one.ref("/app/one"))
            second = await _next(call)
            assert second["seq"] == first["seq"] + 1
            assert second["at"] > first["at"]
            assert (first["rows"][1]["restarts"], second["rows"][1]["restarts"]) == (0, 1)
            call.cancel()
            await client.close()

    run(main())


def test_the_end_of_the_place_watched_ends_the_watch() -> None:
    async def main() -> None:
        async with node() as one:
            one.add("guest")
            client = await one.client()
            call = client.call("watch", interval=0.5, root="/pool/guest")
            await _next(call)
            one.system.kill(one.ref("/pool/guest"))
            with pytest.raises(ControlError) as caught:
                await call.result()
            assert caught.value.code == "not_found"
            await client.close()

    run(main())


def test_a_filter_shows_matches_wherever_they_are() -> None:
    async def main() -> None:
        async with node() as one:
            one.add("alpha", "beta")
            client = await one.client()
            picture = await _picture(client, filter="alp")
            assert _drawn(picture) == [(0, "/"), (1, "/pool"), (2, "/pool/alpha")]
            assert [row["match"] for row in picture["rows"]] == [False, False, True]
            await client.close()

    run(main())


async def _work(one: Node, path: str) -> None:
    while True:
        for _ in range(10):
            one.ref(path).tell(Job())
        await asyncio.sleep(0.01)


def test_the_busiest_come_first() -> None:
    async def main() -> None:
        async with node() as one:
            one.add(*(f"{number:03}" for number in range(50)))
            work = asyncio.create_task(_work(one, "/pool/031"))
            client = await one.client()
            call = client.call(
                "watch", view="top", sort="rate", descending=True, interval=0.5, max_rows=3
            )
            async with asyncio.timeout(10.0):
                while (row := (await _next(call))["rows"][0])["path"] != "/pool/031":
                    pass
            assert row["value"] > 0
            work.cancel()
            call.cancel()
            await client.close()

    run(main())


def test_top_sorts_the_whole_tree_and_filters() -> None:
    async def main() -> None:
        async with node() as one:
            one.add("a")
            one.system.suspend(one.ref("/app/two"))
            one.ref("/app/two").tell(Job())
            client = await one.client()
            top = {"view": "top", "sort": "mailbox", "descending": True}
            picture = await _picture(client, **top, max_rows=2)
            assert [row["path"] for row in picture["rows"]] == ["/app/two", "/"]
            assert picture["rows"][0]["value"] == 1
            picture = await _picture(client, **top, filter="worker")
            assert {row["class"] for row in picture["rows"]} == {"Worker"}
            await client.close()

    run(main())


def test_nothing_is_left_when_nobody_watches() -> None:
    async def main() -> None:
        async with node() as one:
            client = await one.client()
            tasks = len(asyncio.all_tasks())
            call = client.call("watch", open={"/": 0})
            await _next(call)
            call.cancel()
            await eventually(lambda: len(asyncio.all_tasks()) <= tasks)
            await client.close()

    run(main())


@pytest.mark.parametrize(
    "args,words",
    [
        ({"interval": 0.1}, "allowed are 0.5"),
        ({"max_rows": 501}, "allowed are 1 to 500"),
        ({"view": "sideways"}, "view must be one of: top, tree"),
        ({"open": {str(n): 0 for n in range(201)}}, "at most 200"),
        ({"sort": "colour"}, "sort must be one of"),
        ({"root": "/nowhere"}, "no actor at /nowhere"),
    ],
)
def test_a_wrong_wish_is_refused(args: dict[str, Any], words: str) -> None:
    async def main() -> None:
        async with node() as one:
            client = await one.client()
            with pytest.raises(ControlError, match=words):
                await client.request("watch", **args)
            await client.close()

    run(main())
