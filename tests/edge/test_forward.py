"""The forward plane as agents and intruders see it (sheet ORP 3.5, 6.3, 7.1 12, 7.2, 7.4)."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from actors.edge.forward import allocation
from actors.edge.forward.allocation import HELD_DATAGRAMS
from actors.edge.forward.settings import ForwardSettings
from actors.transport.quic import QuicSettings
from tests.conftest import PkiFixture, eventually, run
from tests.edge.forward_rig import FORWARD_ALL, Plug, forward_relay
from tests.edge.rig import relay
from wire.orp.messages import OpenStream, StreamAccept, StreamReject, StreamResume


def test_both_agents_get_mirrored_grants_and_payload_arrives_without_prefix(
    pki: PkiFixture, tmp_path: Path
) -> None:
    async def main() -> None:
        async with forward_relay(pki, tmp_path) as up:
            stream = await up.open(7)
            ours, theirs = stream.grants
            assert (ours.my_allocation, ours.peer_allocation) == (
                theirs.peer_allocation,
                theirs.my_allocation,
            )
            assert 0 not in (ours.my_allocation, ours.peer_allocation)
            assert ours.my_allocation != ours.peer_allocation
            assert ours.forward_endpoint.startswith("127.0.0.1:")
            stream.register()
            stream.from_consumer(b"hello")
            await eventually(lambda: stream.provider.received == [b"hello"])
            stream.from_provider(b"and back")
            stream.from_provider(b"")
            await eventually(lambda: stream.consumer.received == [b"and back", b""])
            assert stream.provider.sources == {theirs.forward_endpoint}
            assert up.consumer.ready_streams == []  # the grant replaces STREAM_READY
            assert stream.mine.data == b"" == stream.theirs.data  # never over the relay's streams
            assert up.running.counters["streams_forwarded"] == 1

    run(main())


def test_what_comes_before_the_other_agent_registered_waits_for_it(
    pki: PkiFixture, tmp_path: Path
) -> None:
    """A consumer of the reference sends its first packets at once; the repetition takes 200 ms."""

    async def main() -> None:
        async with forward_relay(pki, tmp_path) as up:
            stream = await up.open(7)
            mine, theirs = (grant.my_allocation for grant in stream.grants)
            stream.consumer.register(mine)
            early = [b"first %d" % number for number in range(HELD_DATAGRAMS)]
            for payload in early:
                stream.from_consumer(payload)
            stream.from_consumer(b"one too many")
            await eventually(lambda: up.counters.get("unbound") == 1)
            assert up.place.table.held_bytes == sum(map(len, early)) + 4 * len(early)
            stream.provider.register(theirs)
            await eventually(lambda: stream.provider.received == early)
            assert up.place.table.held_bytes == 0
            stream.from_consumer(b"at once")
            await eventually(lambda: stream.provider.received == [*early, b"at once"])

    run(main())


def test_what_waits_for_nobody_is_forgotten(
    pki: PkiFixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(allocation, "HELD_SECONDS", 0.2)

    async def main() -> None:
        async with forward_relay(pki, tmp_path) as up:
            stream = await up.open(7)
            mine, theirs = (grant.my_allocation for grant in stream.grants)
            stream.consumer.register(mine)
            stream.from_consumer(b"early")
            await eventually(lambda: up.place.table.held_bytes > 0)
            await eventually(lambda: up.counters.get("unbound") == 1)  # its time is over
            assert up.place.table.held_bytes == 0
            stream.provider.register(theirs)
            stream.from_consumer(b"late enough")
            await eventually(lambda: stream.provider.received == [b"late enough"])
            # And the end of the stream forgets what still waits.
            further = await up.open(8)
            further.consumer.register(further.grants[0].my_allocation)
            further.from_consumer(b"x" * 1000)
            await eventually(lambda: up.place.table.held_bytes > 0)
            further.mine.stream.write_eof()
            await eventually(lambda: up.place.table.held_bytes == 0)

    run(main())


def test_the_stream_ends_the_ids_and_both_halves(pki: PkiFixture, tmp_path: Path) -> None:
    async def main() -> None:
        async with forward_relay(pki, tmp_path) as up:
            stream = await up.open(7)
            stream.register()
            await stream.exchange("alive")
            stream.theirs.stream.write_eof()
            await eventually(lambda: stream.mine.eof and stream.theirs.eof)
            await eventually(lambda: up.allocations() == [])
            await eventually(lambda: up.running.streams() == 0)
            assert up.place.table.routes == {}
            before = len(stream.provider.received)
            stream.register()  # a dead id stays dead
            stream.from_consumer(b"late")
            await eventually(lambda: up.counters.get("unknown_id", 0) == 1)
            assert up.counters["registration_unknown_id"] == 2
            assert len(stream.provider.received) == before

    run(main())


def test_nobody_waits_for_the_resumption_of_a_forward_stream(
    pki: PkiFixture, tmp_path: Path
) -> None:
    """Agents of the reference resume these, too, one after the other, before they take new ones."""

    async def main() -> None:
        async with forward_relay(pki, tmp_path) as up:
            stream = await up.open(7)
            stream.mine.stream.write_eof()
            await eventually(lambda: up.running.streams() == 0)
            asked = up.provider.open(StreamResume(7, 0, 0).encode())
            await eventually(lambda: asked.eof or asked.reset_code is not None)

    run(main())


def test_200_forward_streams_leave_nothing_behind(pki: PkiFixture, tmp_path: Path) -> None:
    async def main() -> None:
        # The relay lets an agent open 16 streams at a time: leaked credit would stop this early.
        async with forward_relay(pki, tmp_path, quic=QuicSettings(max_streams=16)) as up:
            idle = [agent.connection.statistics().streams for agent in (up.consumer, up.provider)]
            for number in range(200):
                stream = await up.open(number + 1)
                stream.register()
                if number % 50 == 0:
                    await stream.exchange(str(number))
                first, second = (
                    (stream.mine, stream.theirs) if number % 2 else (stream.theirs, stream.mine)
                )
                first.stream.write_eof()
                await eventually(lambda second=second: second.eof)  # type: ignore[misc]
                second.stream.write_eof()
                stream.close()
                up.streams.clear()
            await eventually(lambda: up.running.streams() == 0)
            await eventually(lambda: up.allocations() == [])
            await eventually(
                lambda: (
                    idle
                    == [
                        agent.connection.statistics().streams
                        for agent in (up.consumer, up.provider)
                    ]
                )
            )
            assert up.place.table.routes == {}
            assert up.says("/edge/forward/registry", "pairs") == 0

    run(main(), timeout=60)


def test_a_relay_without_a_plane_refuses_instead_of_splicing(
    pki: PkiFixture, tmp_path: Path
) -> None:
    async def main() -> None:
        async with relay(pki, tmp_path, rules=FORWARD_ALL) as running:
            provider = running.agent(pki, pki.provider)
            consumer = running.agent(pki, pki.consumer)
            await provider.connect(running.address, "svc")
            await consumer.connect(running.address)
            mine = consumer.open(OpenStream("svc", "", 1).encode())
            assert await mine.first_frame() == StreamReject(502, "forward plane unavailable")
            assert provider.incoming == []  # it was not bothered

    run(main())


def test_a_full_plane_refuses(pki: PkiFixture, tmp_path: Path) -> None:
    async def main() -> None:
        settings = ForwardSettings(listen=("127.0.0.1", 0), max_allocations=2)
        async with forward_relay(pki, tmp_path, settings) as up:
            stream = await up.open(1)
            mine = up.consumer.open(OpenStream("svc", "", 2).encode())
            theirs, _ = await up.provider.next_incoming(2)
            theirs.stream.write(StreamAccept().encode())
            assert await mine.first_frame() == StreamReject(502, "forward plane unavailable")
            stream.mine.stream.write_eof()
            await eventually(lambda: up.allocations() == [])
            up.opened += 1
            await up.open(3)

    run(main())


@pytest.mark.parametrize(
    "advertise, expected",
    [(None, "127.0.0.1"), (("198.51.100.7", 9443), "198.51.100.7:9443"), (("192.0.2.1", 0), "192")],
)
def test_a_wildcard_is_never_advertised(
    pki: PkiFixture, tmp_path: Path, advertise: tuple[str, int] | None, expected: str
) -> None:
    async def main() -> None:
        for listen in ("0.0.0.0", "::"):
            settings = ForwardSettings(listen=(listen, 0), advertise=advertise)
            async with forward_relay(pki, tmp_path, settings) as up:
                stream = await up.open(1)
                for grant in stream.grants:
                    assert grant.forward_endpoint.startswith(expected)
                    assert not grant.forward_endpoint.endswith(":0")
                if advertise is None:
                    stream.register()
                    await stream.exchange("through a wildcard")

    run(main())


@pytest.mark.parametrize("asked", ["127.0.0.2", "127.0.0.3"])
def test_what_is_forwarded_leaves_from_the_address_that_was_asked(
    pki: PkiFixture, tmp_path: Path, asked: str
) -> None:
    """The host has several; an agent behind a NAT hears from that one only."""

    async def main() -> None:
        settings = ForwardSettings(listen=("0.0.0.0", 0), advertise=(asked, 0))
        async with forward_relay(pki, tmp_path, settings) as up:
            stream = await up.open(1)
            stream.register()
            await stream.exchange("through a wildcard")
            endpoint = stream.grants[0].forward_endpoint
            assert endpoint.startswith(f"{asked}:")
            assert stream.consumer.sources | stream.provider.sources == {endpoint}

    run(main())


def test_forged_datagrams_reach_nobody(pki: PkiFixture, tmp_path: Path) -> None:
    async def main() -> None:
        async with forward_relay(pki, tmp_path) as up:
            stream = await up.open(1)
            stream.register()
            await stream.exchange("before")
            stream.provider.received.clear()
            stream.consumer.received.clear()
            mine, theirs = stream.grants[0].my_allocation, stream.grants[0].peer_allocation
            # Another port of the same IP while the agents are heard, and another IP.
            for host in ("127.0.0.1", "127.0.0.2"):
                intruder = Plug(stream.grants[0].forward_endpoint, host)
                intruder.register(mine)
                intruder.register(theirs)
                intruder.send(theirs, b"injected")
                intruder.send(mine, b"injected")
                intruder.close()
            await eventually(lambda: up.counters.get("wrong_source", 0) == 4)
            assert up.counters["registration_refused"] == 4
            await stream.exchange("after")
            assert b"injected" not in stream.provider.received + stream.consumer.received

    run(main())


def test_another_ip_is_refused_even_before_the_agents_registered(
    pki: PkiFixture, tmp_path: Path
) -> None:
    async def main() -> None:
        async with forward_relay(pki, tmp_path) as up:
            stream = await up.open(1)
            mine, theirs = stream.grants[0].my_allocation, stream.grants[0].peer_allocation
            intruder = Plug(stream.grants[0].forward_endpoint, "127.0.0.2")
            intruder.register(mine)
            intruder.send(theirs, b"injected")
            await eventually(
                lambda: (
                    up.counters.get("registration_refused") == up.counters.get("wrong_source")
                    and up.counters.get("wrong_source") == 1
                )
            )
            stream.register()
            await stream.exchange("first")
            assert intruder.received == []
            intruder.close()

    run(main())


def test_without_the_source_check_another_ip_may_register(pki: PkiFixture, tmp_path: Path) -> None:
    async def main() -> None:
        settings = ForwardSettings(listen=("127.0.0.1", 0), check_source=False)
        async with forward_relay(pki, tmp_path, settings) as up:
            stream = await up.open(1)
            stream.consumer.close()
            stream.consumer = Plug(stream.grants[0].forward_endpoint, "127.0.0.2")
            stream.register()
            await stream.exchange("from another address")

    run(main())


def test_lost_registrations_are_learnt_from_data(pki: PkiFixture, tmp_path: Path) -> None:
    async def main() -> None:
        async with forward_relay(pki, tmp_path) as up:
            stream = await up.open(1)
            await stream.exchange("nobody registered")
            assert up.counters["learnt_from_data"] == 2
            assert "registrations" not in up.counters

    run(main())


@pytest.mark.parametrize("how", ["data", "registration"])
def test_an_agent_whose_address_changes_is_followed(
    pki: PkiFixture, tmp_path: Path, how: str
) -> None:
    async def main() -> None:
        async with forward_relay(pki, tmp_path) as up:
            stream = await up.open(1)
            stream.register()
            await stream.exchange("before")
            stream.consumer.close()  # a NAT forgets it and takes another port
            stream.consumer = Plug(stream.grants[0].forward_endpoint)
            if how == "registration":

                def followed() -> bool:
                    stream.consumer.register(stream.grants[0].my_allocation)
                    return up.counters["registrations"] > 2

                await eventually(followed)
            await stream.exchange("after the change")

    run(main())


def test_an_idle_pair_expires_and_its_stream_ends(pki: PkiFixture, tmp_path: Path) -> None:
    async def main() -> None:
        settings = ForwardSettings(listen=("127.0.0.1", 0), idle=0.4)
        async with forward_relay(pki, tmp_path, settings) as up:
            stream = await up.open(1)
            stream.register()
            for number in range(8):  # one direction is enough to stay, well beyond the idle time
                stream.from_consumer(str(number).encode())
                await eventually(lambda n=number: len(stream.provider.received) > n)  # type: ignore[misc]
                await asyncio.sleep(0.1)  # the passing of time is the subject
            assert up.allocations()
            await eventually(lambda: stream.mine.eof and stream.theirs.eof)
            await eventually(lambda: up.allocations() == [])
            assert up.says("/edge/forward/registry", "pairs") == 0

    run(main())


def test_short_and_unknown_datagrams_are_counted_and_dropped(
    pki: PkiFixture, tmp_path: Path
) -> None:
    async def main() -> None:
        async with forward_relay(pki, tmp_path) as up:
            stream = await up.open(1)
            stream.register()
            plug = stream.consumer
            for datagram in (b"", b"\0", b"\0\0\0", b"\0\0\0\0", b"\0\0\0\0\1\2\3"):
                plug.send_raw(datagram)
            plug.send_raw(b"\0" * 8)  # registers id 0
            plug.send_raw(b"\xff\xff\xff\xff")
            await eventually(lambda: up.counters.get("short", 0) == 5)
            await eventually(lambda: up.counters.get("unknown_id", 0) == 1)
            assert up.counters["registration_unknown_id"] == 1
            plug.register(stream.grants[0].my_allocation, b"trailing bytes are ignored")
            await stream.exchange("still fine")

    run(main())


def test_invented_ids_work_with_the_lab_switch_only(pki: PkiFixture, tmp_path: Path) -> None:
    async def main() -> None:
        for invented in (True, False):
            settings = ForwardSettings(listen=("127.0.0.1", 0), invented_ids=invented)
            async with forward_relay(pki, tmp_path, settings) as up:
                host, port = (up.place.table.address or ("", 0))[:2]
                ours, theirs = Plug(f"{host}:{port}"), Plug(f"{host}:{port}")
                ours.register(0xA0A0A0A0)
                theirs.register(0xB0B0B0B0)
                ours.send(0xB0B0B0B0, b"exact payload")
                if invented:
                    await eventually(lambda theirs=theirs: theirs.received == [b"exact payload"])  # type: ignore[misc]
                else:
                    await eventually(lambda up=up: up.counters.get("unknown_id") == 1)  # type: ignore[misc]
                    assert theirs.received == []
                ours.close()
                theirs.close()

    run(main())


def test_agents_connected_over_ipv4_may_forward_over_ipv6(pki: PkiFixture, tmp_path: Path) -> None:
    async def main() -> None:
        settings = ForwardSettings(listen=("::", 0), advertise=("::1", 0))
        async with forward_relay(pki, tmp_path, settings) as up:
            stream = await up.open(1)
            assert stream.grants[0].forward_endpoint.startswith("[::1]:")
            stream.register()
            await stream.exchange("over IPv6")
            # The first address pinned the IP: the other family is no way in.
            other = f"127.0.0.1:{stream.grants[0].forward_endpoint.rpartition(':')[2]}"
            intruder = Plug(other, "127.0.0.2")
            intruder.register(stream.grants[0].my_allocation)
            await eventually(lambda: up.counters.get("registration_refused", 0) == 1)
            intruder.close()
            await stream.exchange("still")

    run(main())
