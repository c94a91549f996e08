"""Control connections: hostile or careless clients get an answer, and harm nobody else."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from actors.admin.mounts import ControlFailed
from actors.admin.session import Exchange, Operation
from tests.admin.rig import node
from tests.conftest import eventually, run
from tools.control_client import CannotConnect, ControlError, Disconnected
from wire.admin.limits import MAX_CLIENTS, MAX_IN_FLIGHT, MAX_LINE_BYTES
from wire.admin.messages import Row


async def _answer(reader: asyncio.StreamReader) -> dict[str, Any]:
    async with asyncio.timeout(5.0):
        value: dict[str, Any] = json.loads(await reader.readline())
    return value


def test_garbage_is_answered_and_the_connection_goes_on() -> None:
    async def main() -> None:
        async with node() as one:
            reader, writer = await one.lines()
            writer.write(b"hello\n\xff\xfe\n[]\n\n" + b'{"id":3,"op":"dance"}\n')
            writer.write(b'{"id":4,"op":"tree","args":{"colour":1}}\n')
            writer.write(b'{"id":5,"op":"describe","args":{"path":"/nowhere"}}\n')
            answers = [await _answer(reader) for _ in range(6)]
            assert [answer["id"] for answer in answers] == [0, 0, 0, 3, 4, 5]
            codes = [answer["error"]["code"] for answer in answers]
            assert codes == ["bad_request"] * 5 + ["not_found"]
            assert "known are: " in answers[3]["error"]["message"]
            assert "colour" in answers[4]["error"]["message"]
            writer.close()

    run(main())


def test_a_line_without_end_closes_only_its_connection() -> None:
    async def main() -> None:
        async with node() as one:
            other = await one.client()
            reader, writer = await one.lines()
            writer.write(b"x" * (MAX_LINE_BYTES + 2))
            answer = await _answer(reader)
            assert answer["error"]["code"] == "too_large"
            assert await reader.read() == b""
            writer.close()
            assert (await other.request("describe", path="/app/one"))["state"] == "running"
            await other.close()

    run(main())


def test_one_client_too_many_is_told_and_a_free_place_is_given_again() -> None:
    async def main() -> None:
        async with node() as one:
            clients = [await one.client() for _ in range(MAX_CLIENTS)]
            with pytest.raises(CannotConnect, match=f"{MAX_CLIENTS} control connections"):
                await one.client()
            assert await clients[0].request("stats")
            await clients.pop().close()
            pool = one.system.find("/ops/clients")
            assert pool is not None
            await eventually(lambda: len(pool.children or ()) < MAX_CLIENTS)
            clients.append(await one.client())
            for client in clients:
                await client.close()

    run(main())


def test_requests_in_flight_are_bounded_and_may_be_cancelled() -> None:
    async def main() -> None:
        async with node() as one:
            client = await one.client()
            calls = [
                client.call("events", follow=True, last=0, kinds="none")
                for _ in range(MAX_IN_FLIGHT)
            ]
            with pytest.raises(ControlError) as caught:
                await client.request("stats")
            assert caught.value.code == "busy"
            for call in calls:
                call.cancel()
            assert await client.request("stats")
            await client.close()

    run(main())


def test_an_id_in_flight_is_not_taken_twice() -> None:
    async def main() -> None:
        async with node() as one:
            reader, writer = await one.lines()
            follow = b'{"id":1,"op":"events","args":{"follow":true,"last":0,"kinds":"none"}}\n'
            writer.write(follow + b'{"id":1,"op":"stats"}\n')
            answer = await _answer(reader)
            assert "in flight already" in answer["error"]["message"]
            writer.write(b'{"id":2,"op":"cancel","args":{"request":1}}\n')
            assert (await _answer(reader)) == {"id": 1, "ok": True, "result": {"cancelled": True}}
            assert (await _answer(reader)) == {"id": 2, "ok": True, "result": {"cancelled": True}}
            writer.write(b'{"id":3,"op":"cancel","args":{"request":1}}\n')
            assert (await _answer(reader))["result"] == {"cancelled": False}
            writer.close()

    run(main())


def test_a_window_bounds_what_is_sent_until_more_is_granted() -> None:
    async def main() -> None:
        async with node() as one:
            one.add(*(str(number) for number in range(1000)))
            reader, writer = await one.lines()
            writer.write(b'{"id":1,"op":"tree","window":2}\n')
            assert len((await _answer(reader))["part"]) == 200
            assert len((await _answer(reader))["part"]) == 200
            writer.write(b'{"id":2,"op":"describe","args":{"path":"/app/one"}}\n')
            # The stream waits, another request of the same connection does not.
            assert (await _answer(reader))["id"] == 2
            writer.write(b'{"id":3,"op":"credit","args":{"request":1,"parts":100}}\n')
            rows = 400
            while "part" in (answer := await _answer(reader)):
                rows += len(answer["part"])
            assert answer["result"]["rows"] == rows > 1000
            writer.close()

    run(main())


def test_a_question_before_the_end_of_input_is_answered() -> None:
    """`echo '{...}' | nc -NU control.sock` works."""

    async def main() -> None:
        async with node() as one:
            reader, writer = await one.lines()
            writer.write(b'{"id":1,"op":"stats"}\n{"id":2,"op":"events","args":{"follow":true}}\n')
            writer.write_eof()
            async with asyncio.timeout(5.0):
                rest = (await reader.read()).splitlines()
            assert any(b'"id":1,"ok":true' in line for line in rest)
            writer.close()
            clients = one.system.find("/ops/clients")
            assert clients is not None
            await eventually(lambda: not clients.children)

    run(main())


def test_a_client_that_does_not_read_holds_a_bounded_amount() -> None:
    async def main() -> None:
        async with node() as one:
            one.add(*(str(number) for number in range(3000)))
            reader, writer = await one.lines()
            transport = writer.transport
            assert isinstance(transport, asyncio.ReadTransport)
            transport.pause_reading()
            writer.write(b"".join(b'{"id":%d,"op":"tree"}\n' % n for n in range(1, 30)))
            other = await one.client()
            path = str((await other.rows("children", path="/ops/clients"))[0]["path"])
            sent = -1
            while sent != (now := (await other.request("describe", path=path))["bytes_out"]):
                sent = int(str(now))
                await asyncio.sleep(0.05)
            # 29 trees of 3000 rows would be tens of megabytes.
            assert sent < 4_000_000
            transport.resume_reading()
            async with asyncio.timeout(15.0):
                for _ in range(29):
                    while b'"ok":true' not in await reader.readline():
                        pass
            writer.close()
            await other.close()

    run(main(), timeout=40.0)


async def _explode(exchange: Exchange) -> Row:
    raise ZeroDivisionError("secret detail")


async def _refuse(exchange: Exchange) -> Row:
    raise ControlFailed("refused", "not today")


async def _sleep(exchange: Exchange) -> Row:
    await asyncio.sleep(60.0)
    return {}


async def _huge(exchange: Exchange) -> Row:
    return {"text": "x" * (MAX_LINE_BYTES + 1)}


async def _huge_row(exchange: Exchange) -> Row:
    await exchange.part([{"text": "x" * (MAX_LINE_BYTES // 2)} for _ in range(3)])
    await exchange.part([{"text": "x" * (MAX_LINE_BYTES + 1)}])
    return {}


def test_whatever_an_operation_does_becomes_an_answer() -> None:
    operations = {
        "explode": Operation(_explode, 5.0),
        "refuse": Operation(_refuse, 5.0),
        "sleep": Operation(_sleep, 0.05),
        "huge": Operation(_huge, 5.0),
        "huge_row": Operation(_huge_row, 5.0),
    }

    async def main() -> None:
        async with node(operations) as one:
            client = await one.client()
            codes = {}
            for op in operations:
                with pytest.raises(ControlError) as caught:
                    await client.request(op)
                codes[op] = caught.value.code
                assert "secret" not in str(caught.value)
            assert codes == {
                "explode": "internal",
                "refuse": "refused",
                "sleep": "timeout",
                "huge": "too_large",
                "huge_row": "too_large",
            }
            assert (await client.request("describe", path="/app/one"))["restarts"] == 0
            await client.close()

    run(main())


def test_connections_outlive_the_control_server_and_new_ones_come_back() -> None:
    async def main() -> None:
        async with node() as one:
            client = await one.client()
            with pytest.raises(ControlError, match="--force"):
                await client.request("kill", path="/ops/control")
            await client.request("kill", path="/ops/control", force=True)
            await one.ref("/ops/control").started(timeout=5.0)
            details = await client.request("describe", path="/ops/control")
            assert details["restarts"] == 1
            second = await one.client()
            await second.close()
            await client.close()

    run(main())


def test_killing_a_connection_ends_it_for_its_client() -> None:
    async def main() -> None:
        async with node() as one:
            client = await one.client()
            follow = client.call("events", follow=True)
            (row,) = await client.rows("children", path="/ops/clients")
            one.system.kill(one.ref(str(row["path"])))
            with pytest.raises(Disconnected):
                await follow.result()
            await client.close()

    run(main())
