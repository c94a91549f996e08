"""What an operator sees of the tree: rows, pages, details, sums; in slices however large it is."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.admin.rig import Job, node
from tests.conftest import run
from tools.control_client import ControlClient, ControlError
from wire.admin.limits import MAX_PART_ROWS
from wire.admin.messages import Row


def _paths(rows: list[Row]) -> list[str]:
    return [str(row["path"]) for row in rows]


async def _page(client: ControlClient, **args: object) -> tuple[list[str], Row]:
    call = client.call("children", **args)
    rows = [str(row["id"]) async for row in call.rows()]
    return rows, await call.result()


def test_the_tree_is_every_actor_parents_first() -> None:
    async def main() -> None:
        async with node() as one:
            one.add("a", "b")
            client = await one.client()
            paths = _paths(await client.rows("tree"))
            assert paths[:7] == ["/", "/app", "/app/one", "/app/two", "/pool", "/pool/a", "/pool/b"]
            assert _paths(await client.rows("tree", depth=0)) == ["/"]
            assert _paths(await client.rows("tree", path="/app", depth=1)) == paths[1:4]
            with pytest.raises(ControlError, match="no actor at /app/three"):
                await client.rows("tree", path="/app/three")
            await client.close()

    run(main())


def test_a_filter_keeps_the_way_to_every_match() -> None:
    async def main() -> None:
        async with node() as one:
            one.add("alpha", "beta")
            client = await one.client()
            rows = await client.rows("tree", filter="BETA")
            assert [(row["path"], row["match"]) for row in rows] == [
                ("/", False),
                ("/pool", False),
                ("/pool/beta", True),
            ]
            assert _paths(await client.rows("tree", filter="app/t")) == ["/", "/app", "/app/two"]
            below = await client.rows("tree", filter="pool")
            assert [(row["path"], row["match"]) for row in below] == [
                ("/", False),
                ("/pool", True),
                ("/pool/alpha", True),
                ("/pool/beta", True),
            ]
            by_class = await client.rows("tree", filter="worker")
            assert [row["path"] for row in by_class if row["match"]] == [
                "/app/one",
                "/app/two",
                "/pool/alpha",
                "/pool/beta",
            ]
            one.system.suspend(one.ref("/app/one"))
            suspended = await client.rows("tree", filter="suspended")
            assert _paths(suspended)[-1] == "/app/one"
            assert await client.rows("tree", filter="nothing has this") == []
            await client.close()

    run(main())


def test_a_large_tree_leaves_the_loop_its_turns() -> None:
    async def main() -> None:
        async with node() as one:
            one.add(*(str(number) for number in range(6000)))
            client = await one.client()
            turns = 0
            loop = asyncio.get_running_loop()

            def turn() -> None:
                nonlocal turns
                turns += 1
                handle[0] = loop.call_soon(turn)

            handle = [loop.call_soon(turn)]
            wishes: list[dict[str, Any]] = [{}, {"filter": "no match at all"}]
            for args in wishes:
                turns = 0
                await client.rows("tree", **args)
                # At least one turn for every part; without a part, one for every slice of work.
                assert turns >= (6000 // MAX_PART_ROWS if not args else 2)
            handle[0].cancel()
            await client.close()

    run(main())


def test_children_come_in_pages() -> None:
    async def main() -> None:
        async with node() as one:
            one.add(*(f"w{number:03}" for number in range(250)))
            client = await one.client()
            ids, result = await _page(client, path="/pool", limit=100, offset=200)
            assert ids == [f"w{number:03}" for number in range(200, 250)]
            assert result == {"path": "/pool", "total": 250, "matched": 250, "offset": 200}
            ids, result = await _page(client, path="/pool", filter="w01", offset=8, limit=5)
            assert (ids, result["matched"]) == (["w018", "w019"], 10)
            assert (await _page(client, path="/pool", descending=True, limit=1))[0] == ["w249"]
            assert await _page(client, path="/app/one") == (
                [],
                {"path": "/app/one", "total": 0, "matched": 0, "offset": 0},
            )
            for args, words in (
                ({"limit": 501}, "allowed are 1 to 500"),
                ({"sort": "colour"}, "sort must be one of"),
                ({"sort": "mailbox", "offset": 5001}, "use a filter"),
            ):
                with pytest.raises(ControlError, match=words):
                    await client.request("children", path="/pool", **args)
            await client.close()

    run(main())


def test_children_are_sorted_by_what_counts() -> None:
    async def main() -> None:
        async with node() as one:
            one.add(*(f"w{number}" for number in range(300)))
            for number, jobs in ((7, 3), (250, 9), (100, 5)):
                ref = one.ref(f"/pool/w{number}")
                one.system.suspend(ref)
                for _ in range(jobs):
                    ref.tell(Job())
            client = await one.client()
            page = {"path": "/pool", "sort": "mailbox", "descending": True, "limit": 4}
            assert (await _page(client, **page))[0] == ["w250", "w100", "w7", "w0"]
            page = {"path": "/pool", "sort": "state", "descending": True, "limit": 2, "offset": 1}
            assert (await _page(client, **page))[0] == ["w100", "w250"]
            await client.close()

    run(main())


def test_describe_shows_the_actor_s_own_words() -> None:
    async def main() -> None:
        async with node() as one:
            one.ref("/app/one").tell(Job())
            client = await one.client()
            details = await client.request("describe", path="/app/one/")
            assert details["describe"] == {"name": "one", "jobs": 1}
            assert details["last_message"] == "Job"
            with pytest.raises(ControlError) as caught:
                await client.request("describe", path="/pool/none")
            assert caught.value.code == "not_found"
            await client.close()

    run(main())


def test_stats_sum_by_class_and_below_a_path() -> None:
    async def main() -> None:
        async with node() as one:
            one.add("a", "b", "c")
            client = await one.client()
            answer = await client.request("stats", classes=True, path="/pool")
            assert answer["actors"] == 4
            classes = answer["classes"]
            assert isinstance(classes, list)
            assert [(row["class"], row["actors"]) for row in classes] == [
                ("Worker", 3),
                ("DynamicSupervisor", 1),
            ]
            whole = await client.request("stats")
            assert "classes" not in whole
            assert whole["totals"]["node"] == "test"  # type: ignore[index]  # an object
            process = whole["process"]
            assert isinstance(process, dict)
            assert process["rss_bytes"] > 1_000_000
            assert process["descriptors"] > 3
            await client.close()

    run(main())
