"""Callers that ask for too much, or read too slowly: bounded, counted, harmless to the others."""

from __future__ import annotations

import asyncio
import socket
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from loguru import logger

from actors.controller import callers
from actors.controller.complaints import MAX_LINES, MINUTE_SECONDS, Complaints
from actors.controller.limits import MAX_REQUEST, MAX_RPCS_PER_CALLER
from actors.controller.server import ServerSettings
from actors.controller.watches import Watch, WatchEnded
from actors.runtime import ActorDown
from tests.conftest import PkiFixture, eventually, run
from tests.controller.rig import Controller, client, link, server, watching
from tests.controller.test_roles import caller, secured
from wire.orp import control_pb2 as pb


def test_a_message_above_the_limit_is_refused_and_the_server_lives(tmp_path: Path) -> None:
    async def main() -> None:
        controller = Controller(tmp_path / "c.db")
        async with controller.run() as rig, client(controller.address) as foreign:
            big = pb.ResolveRequest(tenant="a", service_name="x" * (MAX_REQUEST + 1))
            assert await foreign.status("Registry/Resolve", big) == "RESOURCE_EXHAUSTED"
            assert await foreign.resolve("web") == []
            assert server(rig)["listening"]

    run(main())


def test_watches_are_bounded_and_counted(tmp_path: Path) -> None:
    async def main() -> None:
        controller = Controller(tmp_path / "c.db", settings=ServerSettings(max_watches=3))
        async with controller.run() as rig, client(controller.address) as foreign:
            watches = [foreign.stream("Registry/Watch", pb.WatchRequest()) for _ in range(3)]
            for watch in watches:
                await watch.initial_metadata()
            one_more = pb.WatchPoliciesRequest()
            assert await foreign.status("Policy/Watch", one_more) == "RESOURCE_EXHAUSTED"
            assert server(rig)["refused"] == {"RESOURCE_EXHAUSTED": 1}
            watches[0].cancel()
            await eventually(lambda: server(rig)["provider_watches"] == 2)
            assert await foreign.status("Policy/Watch", one_more) == "OK"

    run(main())


def test_a_full_queue_ends_the_watch_and_says_why() -> None:
    async def main() -> None:
        watch: Watch[int] = Watch(lambda _: True, 3)
        assert [watch.put(n) for n in range(4)] == [True, True, True, False]
        with pytest.raises(WatchEnded) as caught:
            await watch.get()
        assert caught.value.dropped  # what it had not read is gone with it: never half of it

    run(main())


def test_a_watcher_that_does_not_read_is_dropped_and_others_are_not(tmp_path: Path) -> None:
    """A caller whose flow-control window stays full, beside one that reads."""

    async def main() -> None:
        controller = Controller(tmp_path / "c.db", settings=ServerSettings(watch_queue=64))
        small_window = (("grpc.http2.bdp_probe", 0),)
        async with (
            controller.run() as rig,
            client(controller.address) as foreign,
            client(controller.address, options=small_window) as slow,
        ):
            stuck = slow.stream("Registry/Watch", pb.WatchRequest(), timeout=60)
            reading = foreign.stream("Registry/Watch", pb.WatchRequest(), timeout=60)
            for watch in (stuck, reading):
                await watch.initial_metadata()
            got = 0

            async def read() -> None:
                nonlocal got
                while await reading.read() is not grpc.aio.EOF:
                    got += 1

            reader = asyncio.create_task(read())
            sent = 0
            while not server(rig)["watches_dropped"]:
                await asyncio.gather(
                    *(foreign.register(f"s{sent + n}", "u" * 1000) for n in range(20))
                )
                sent += 20
                await eventually(lambda: got == sent)  # noqa: B023  # awaited here
                assert sent < 5000
            assert server(rig)["watches_dropped"] == 1
            assert server(rig)["provider_watches"] == 1
            reader.cancel()
            stuck.cancel()
            await asyncio.wait({reader})

    run(main(), timeout=60)


def test_a_relay_whose_watch_was_dropped_starts_over_with_everything(tmp_path: Path) -> None:
    async def main() -> None:
        controller = Controller(tmp_path / "c.db", settings=ServerSettings(watch_queue=16))
        async with controller.run() as c, controller.relay("a") as a:
            await watching(a)
            # One transaction tells more changes than the queue holds.
            _, generation = await c.connect("u1")
            names = [f"s{number}" for number in range(200)]
            await asyncio.gather(*(c.register("u1", name, generation) for name in names))
            await eventually(lambda: server(c)["watches_dropped"] > 0)
            await watching(a)
            for name in names[::20]:
                assert await a.providers(name) == ["u1"]
            assert link(a)["outages"] == 0

    run(main(), timeout=60)


@pytest.mark.parametrize(
    "data", [b"", b"GET / HTTP/1.1\r\n\r\n", b"\x00" * 4096, b"PRI * HTTP/2.0"]
)
def test_what_is_not_grpc_disturbs_nobody(tmp_path: Path, data: bytes) -> None:
    async def main() -> None:
        controller = Controller(tmp_path / "c.db")
        async with controller.run() as rig, client(controller.address) as foreign:
            sockets = []
            for _ in range(20):
                raw = socket.create_connection((controller.port.host, controller.port.port), 5)
                sockets.append(raw)
                raw.sendall(data)
            assert await foreign.resolve("web") == []
            assert server(rig)["listening"]
            for raw in sockets:
                raw.close()

    run(main())


def test_bytes_that_are_no_message_are_an_error_of_the_caller(tmp_path: Path) -> None:
    async def main() -> None:
        controller = Controller(tmp_path / "c.db")
        async with controller.run() as rig, client(controller.address) as foreign:
            channel: Any = foreign._channel
            rpc = channel.unary_unary("/outrelay.control.v1.Registry/Resolve")
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await rpc(b"\xff\xff\xff", timeout=5)
            assert caught.value.code() in (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN)
            unknown = channel.unary_unary("/outrelay.control.v1.Registry/Nothing")
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await unknown(b"", timeout=5)
            assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
            assert await foreign.resolve("web") == []
            assert server(rig)["listening"]
            assert rig.describe("controller/server")["served"]["Registry/Resolve"] == 1

    run(main())


def test_an_agent_cannot_write_the_log(
    tmp_path: Path, pki: PkiFixture, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever has a certificate but no role is refused before what it sent is looked at."""

    async def main() -> None:
        controller = secured(tmp_path, pki)
        async with controller.run() as rig:
            async with caller(controller, pki.consumer, pki.ca) as agent:
                channel: Any = agent._channel
                for name in ("Registry/Resolve", "Registry/Watch", "Audit/Record") * 100:
                    rpc = channel.unary_unary(f"/outrelay.control.v1.{name}")
                    with pytest.raises(grpc.aio.AioRpcError) as caught:
                        await rpc(b"\xff\xff\xff", timeout=5)
                    assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
            told = rig.describe("controller/server")
            assert told["refused"] == {"PERMISSION_DENIED": 300}
            assert told["malformed"] == 0
            async with caller(controller, pki.relay, pki.ca) as relay:
                rpc = relay._channel.unary_unary("/outrelay.control.v1.Registry/Resolve")
                for _ in range(100):
                    with pytest.raises(grpc.aio.AioRpcError) as caught:
                        await rpc(b"\xff\xff\xff", timeout=5)
                    assert caught.value.code() is grpc.StatusCode.INTERNAL
            assert rig.describe("controller/server")["malformed"] == 100

    lines: list[str] = []
    sink = logger.add(lambda line: lines.append(str(line)), level="WARNING")
    try:
        run(main(), timeout=40)
    finally:
        logger.remove(sink)
    assert not caplog.records  # what the library says
    assert sum("may not call" in line for line in lines) == 3
    assert sum("no message" in line for line in lines) == 1
    assert len(lines) == 4


def test_many_callers_cannot_either() -> None:
    lines: list[str] = []
    now = 0.0
    complaints = Complaints(lines.append, lambda: now)
    for number in range(10_000):
        complaints.say(f"caller {number}")
    assert len(lines) == MAX_LINES
    now = MINUTE_SECONDS
    complaints.say("caller 1")
    assert lines[MAX_LINES:] == ["9980 more complaints about callers were left out", "caller 1"]


def test_an_address_in_use_is_an_error_and_not_shared(tmp_path: Path) -> None:
    async def main() -> None:
        controller = Controller(tmp_path / "c.db")
        with socket.socket() as taken:
            taken.bind((controller.port.host, controller.port.port))
            taken.listen()
            second = Controller(tmp_path / "d.db", port=controller.port)
            with pytest.raises(ActorDown, match=r"control\.serve\.listen: .*already in use"):
                async with second.run():
                    pass

    run(main())


def test_one_caller_does_not_take_the_places_of_others(tmp_path: Path, pki: PkiFixture) -> None:
    """However many connections it has; what it is refused is counted, and logged once."""
    connections, each = 4, 100

    async def main() -> None:
        controller = secured(tmp_path, pki)
        async with controller.run() as rig, AsyncExitStack() as stack:
            callers = [
                await stack.enter_async_context(caller(controller, pki.relay, pki.ca))
                for _ in range(connections)
            ]
            watches = [
                one.stream("Registry/Watch", pb.WatchRequest(), timeout=60)
                for one in callers
                for _ in range(each)
            ]
            ended = [asyncio.ensure_future(watch.code()) for watch in watches]
            refused = connections * each - MAX_RPCS_PER_CALLER
            await eventually(
                lambda: server(rig)["refused_by_bound"] == {"rpcs_identity": refused}, timeout=20
            )
            assert server(rig)["provider_watches"] == MAX_RPCS_PER_CALLER
            assert {one.result().name for one in ended if one.done()} <= {"RESOURCE_EXHAUSTED"}
            for watch in watches:
                watch.cancel()
            await asyncio.wait(ended)
            await eventually(lambda: server(rig)["provider_watches"] == 0)
            assert await callers[0].resolve("web") == []

    run(main(), timeout=50)


def test_a_caller_that_calls_too_often_waits_and_hears_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(callers, "CALLS_PER_SECOND", 100.0)
    monkeypatch.setattr(callers, "CALLS_AT_ONCE", 10)

    async def main() -> None:
        controller = Controller(tmp_path / "c.db")
        async with (
            controller.run() as rig,
            client(controller.address) as busy,
            client(controller.address, options=(("grpc.use_local_subchannel_pool", 1),)) as other,
        ):
            started = asyncio.get_running_loop().time()
            flood = [asyncio.ensure_future(busy.resolve("web")) for _ in range(60)]
            await eventually(lambda: server(rig)["delayed"] > 20)
            assert await other.resolve("web") == []
            assert not all(one.done() for one in flood)
            assert await asyncio.gather(*flood) == [[]] * 60
            assert asyncio.get_running_loop().time() - started >= 0.49

    run(main())
