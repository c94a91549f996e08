"""Events, traces and dead letters as an operator follows them."""

from __future__ import annotations

import asyncio

import pytest

from actors.runtime import Event
from tests.admin.rig import Job, Unknown, node
from tests.conftest import eventually, run
from tools.control_client import Call, ControlError
from wire.admin.messages import Row


async def _take(call: Call, count: int) -> list[Row]:
    rows: list[Row] = []
    async with asyncio.timeout(5.0):
        async for row in call.rows():
            rows.append(row)
            if len(rows) == count:
                break
    return rows


def test_past_events_then_new_ones_without_gap() -> None:
    async def main() -> None:
        async with node() as one:
            client = await one.client()
            call = client.call("events", path="/app/one", last=5, follow=True)
            (started,) = await _take(call, 1)
            assert (started["kind"], started["path"]) == ("started", "/app/one")
            one.system.kill(one.ref("/app/two"))
            one.system.kill(one.ref("/app/one"))
            rows = await _take(call, 2)
            assert [row["kind"] for row in rows] == ["exited", "started"]
            assert {row["path"] for row in rows} == {"/app/one"}
            call.cancel()
            await eventually(lambda: one.system.events.subscribers == 0)
            await client.close()

    run(main())


def test_kinds_last_and_after_choose_what_is_replayed() -> None:
    async def main() -> None:
        async with node() as one:
            one.system.kill(one.ref("/app/one"))
            await one.ref("/app/one").started(timeout=5.0)
            client = await one.client()
            rows = await client.rows("events", kinds="exited, gave_up")
            assert [row["kind"] for row in rows] == ["exited"]
            every = await client.rows("events", last=2048)
            assert await client.rows("events", last=0) == []
            seq = every[-2]["seq"]
            later = await client.rows("events", after=seq, last=2048)
            assert [row["seq"] for row in later] == [every[-1]["seq"]]
            result = await client.request("events", last=0)
            assert result["seq"] == one.system.events.published
            await client.close()

    run(main())


def test_a_reader_too_slow_is_told_what_it_missed() -> None:
    async def main() -> None:
        async with node() as one:
            reader, writer = await one.lines()
            writer.write(
                b'{"id":1,"op":"events","args":{"last":0,"follow":true,"kinds":"mark"},"window":1}\n'
            )
            await eventually(lambda: one.system.events.subscribers == 1)
            for number in range(5000):
                one.system.events.publish(Event("mark", "/app", 0, {"number": number}))
            writer.write(b'{"id":2,"op":"credit","args":{"request":1,"parts":1000}}\n')
            seen, lost = 0, 0
            async with asyncio.timeout(5.0):
                while seen + lost < 5000:
                    line = await reader.readline()
                    seen += line.count(b'"kind":"mark"')
                    if b'"kind":"lost"' in line:
                        lost += int(line.rpartition(b'"events":')[2].split(b"}")[0])
            assert 0 < lost < 5000
            writer.close()

    run(main())


def test_a_trace_ends_by_itself() -> None:
    async def main() -> None:
        async with node() as one:
            client = await one.client()
            call = client.call("trace", path="/app", subtree=True, limit=3, seconds=30)
            cell = one.system.find("/app/one")
            assert cell is not None
            await eventually(lambda: cell.tracer is not None)
            for path in ("/app/one", "/app/two", "/app/one"):
                one.ref(path).tell(Job())
            rows = await _take(call, 3)
            assert sorted(str(row["path"]) for row in rows) == ["/app/one", "/app/one", "/app/two"]
            assert {row["message_type"] for row in rows} == {"Job"}
            assert await call.result() == {"records": 3, "lost": 0, "skipped": 0}
            assert (await client.request("trace", path="/app/one", seconds=0.05))["records"] == 0
            one.ref("/app/one").tell(Job())
            await eventually(lambda: cell.tracer is None)
            with pytest.raises(ControlError, match="no actor"):
                await client.request("trace", path="/nowhere")
            await client.close()

    run(main())


def test_a_cancelled_trace_lets_go() -> None:
    async def main() -> None:
        async with node() as one:
            client = await one.client()
            call = client.call("trace", path="/app/one")
            cell = one.system.find("/app/one")
            assert cell is not None
            await eventually(lambda: cell.tracer is not None)
            call.cancel()
            await client.request("stats")
            cell.ref.tell(Job())
            await eventually(lambda: cell.tracer is None)
            await client.close()

    run(main())


def test_a_trace_of_too_many_actors_is_refused() -> None:
    async def main() -> None:
        async with node() as one:
            one.add(*(str(number) for number in range(5001)))
            client = await one.client()
            with pytest.raises(ControlError) as caught:
                await client.request("trace", path="/pool", subtree=True)
            assert caught.value.code == "too_large"
            await client.close()

    run(main())


def test_dead_letters_are_counted_and_shown_without_payload() -> None:
    async def main() -> None:
        async with node() as one:
            for _ in range(3):
                one.ref("/app/one").tell(Unknown())
            one.add("gone")
            gone = one.ref("/pool/gone")
            one.system.kill(gone)
            await eventually(lambda: one.system.ref("/pool/gone") is None)
            gone.tell(Job(7))
            client = await one.client()
            call = client.call("dead_letters")
            rows = [(r["target"], r["message_type"], r["why"]) async for r in call.rows()]
            assert rows == [("/app/one", "Unknown", "unhandled")] * 3 + [
                ("/pool/gone", "Job", "noproc")
            ]
            answer = await call.result()
            assert answer["total"] == 4
            assert answer["by_type"][0] == {  # type: ignore[index]  # a list
                "message_type": "Unknown",
                "why": "unhandled",
                "count": 3,
            }
            assert len(await client.rows("dead_letters", path="/pool")) == 1
            await client.close()

    run(main())
