"""Names are lists of addresses; one that is not answered makes nobody wait."""

from __future__ import annotations

import asyncio
import errno
import socket

import pytest

from actors.transport.addresses import literal
from actors.transport.connection import DialFailed
from actors.transport.dialling import connect_tcp, first_to_connect, resolve
from actors.transport.dialling.names import MAX_LOOKUPS
from actors.transport.quic import QuicEndpoint, QuicSettings
from actors.transport.tcp import TcpEndpoint
from tests.conftest import PkiFixture, run
from tests.edge.rig import identity
from tests.transport.names import names
from tests.transport.test_endpoint import serving

#: The server is at the second address of its name; at the first nobody answers.
SILENT, SERVED = "127.0.0.2", "127.0.0.3"


# Names.


@pytest.mark.parametrize(
    "host, family, address",
    [
        ("127.0.0.1", socket.AF_INET, ("127.0.0.1", 5)),
        ("::1", socket.AF_INET6, ("::1", 5, 0, 0)),
        ("fe80::1%7", socket.AF_INET6, ("fe80::1", 5, 0, 7)),
        ("fe80::1%lo", socket.AF_INET6, ("fe80::1", 5, 0, socket.if_nametoindex("lo"))),
    ],
)
def test_a_literal_never_leaves_the_loop(
    host: str, family: int, address: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        with names(monkeypatch) as system:
            (target,) = await resolve(host, 5)
            assert not system.asked
        assert (target.family, target.address) == (family, address)

    run(main())


def test_a_zone_that_is_no_interface() -> None:
    with pytest.raises(OSError, match="no interface nowhere") as caught:
        literal("fe80::1%nowhere", 5)
    assert caught.value.errno == errno.ENODEV
    assert literal("relay.example", 5) is None


def test_families_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        with names(monkeypatch) as system:
            system.known["x.test"] = ["::1", "::2", "::3", "127.0.0.1", "127.0.0.1", "127.0.0.2"]
            found = await resolve("x.test", 9)
        assert [target.address[0] for target in found] == [
            "::1",
            "127.0.0.1",
            "::2",
            "127.0.0.2",
            "::3",
        ]
        assert {target.address[1] for target in found} == {9}

    run(main())


def test_what_hangs_makes_nobody_else_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        with names(monkeypatch) as system:
            system.known["good.test"] = ["127.0.0.1"]
            hanging = [
                asyncio.create_task(resolve(f"{number % (MAX_LOOKUPS - 1)}.dead", 1))
                for number in range(2 * MAX_LOOKUPS)
            ]
            async with asyncio.timeout(5):
                assert [t.address for t in await resolve("good.test", 1)] == [("127.0.0.1", 1)]
                assert (await resolve("127.0.0.9", 2))[0].address == ("127.0.0.9", 2)
            hanging += [asyncio.create_task(resolve("last.dead", 1))]
            await asyncio.sleep(0)
            with pytest.raises(OSError, match="64 names") as caught:
                await resolve("good.test", 1)
            assert caught.value.errno == errno.EAGAIN
            # Who gives up leaves at once; the system is asked once for each name.
            hanging[0].cancel()
            await asyncio.wait({hanging[0]}, timeout=5)
            assert hanging[0].cancelled()
            assert max(system.asked.values()) == 1
            system.answer_all()
            outcomes = await asyncio.gather(*hanging[1:], return_exceptions=True)
            assert {type(one) for one in outcomes} == {socket.gaierror}
            assert "last.dead: no answer" in str(outcomes[-1])

    run(main())


@pytest.mark.parametrize("host", ["a" * 64 + ".test", "a..b"])
def test_what_can_be_no_name(host: str) -> None:
    with pytest.raises(OSError, match="no host name") as caught:
        run(connect_tcp(host, 1))
    assert caught.value.errno == errno.EINVAL


# Attempts.


class Attempts:
    """Targets are (seconds, succeeds)."""

    def __init__(self) -> None:
        self.begun: list[tuple[float, bool]] = []
        self.discarded: list[tuple[float, bool]] = []

    async def attempt(self, target: tuple[float, bool]) -> tuple[float, bool]:
        self.begun.append(target)
        seconds, succeeds = target
        try:
            await asyncio.sleep(seconds)
        except asyncio.CancelledError:
            if not succeeds:
                raise  # else it just made it
        if not succeeds:
            raise OSError(errno.ECONNREFUSED, f"after {seconds}")
        return target

    async def connect(self, *targets: tuple[float, bool], stagger: float) -> tuple[float, bool]:
        return await first_to_connect(targets, self.attempt, self.discarded.append, stagger=stagger)


def test_the_next_attempt_begins_after_a_failure_or_a_pause() -> None:
    async def main() -> None:
        one = Attempts()
        async with asyncio.timeout(5):
            # The first fails at once, the second is silent, the third answers.
            targets = ((0.0, False), (60.0, True), (0.0, True), (0.0, True))
            assert await one.connect(*targets, stagger=0.01) == targets[2]
        assert one.begun == list(targets[:3])
        assert one.discarded == [targets[1]]  # it was connected in the last moment
        two = Attempts()
        assert await two.connect((0.0, True), (0.0, True), stagger=60.0) == (0.0, True)
        assert len(two.begun) == 1
        three = Attempts()
        with pytest.raises(OSError, match="after"):
            await three.connect((0.0, False), (0.02, False), (0.01, False), stagger=0)
        with pytest.raises(OSError, match="nothing to dial"):
            await three.connect(stagger=0)

    run(main())


def test_who_gives_up_leaves_nothing_behind() -> None:
    async def main() -> None:
        attempts = Attempts()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await attempts.connect((60.0, True), (60.0, False), stagger=0)
        assert attempts.discarded == [(60.0, True)]

    run(main())


# What dials by it.


@pytest.mark.parametrize("addresses", [("::1", "127.0.0.1"), ("127.0.0.2", "127.0.0.1")])
def test_quic_reaches_a_relay_at_any_address_of_its_name(
    pki: PkiFixture, addresses: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        client = QuicEndpoint(alpn=("orp/1",), identity=identity(pki, pki.provider))
        with names(monkeypatch) as system:
            system.known["relay.test"] = list(addresses)
            async with serving(pki, QuicSettings()) as server:
                assert server.address is not None
                connection = await client.connect(("relay.test", server.address[1]), timeout=4)
                assert connection.remote_address == server.address
                client.abort()

    run(main())


def test_tcp_reaches_a_relay_at_any_address_of_its_name(
    pki: PkiFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the first one somebody listens who never says a word."""

    async def main() -> None:
        server = TcpEndpoint(
            alpn=("orp/1",), identity=identity(pki, pki.relay), on_connection=lambda _: None
        )
        client = TcpEndpoint(alpn=("orp/1",), identity=identity(pki, pki.provider))
        with names(monkeypatch) as system, socket.socket() as silent:
            system.known["relay.test"] = [SILENT, SERVED]
            _, port = server.attach((SERVED, 0))
            silent.bind((SILENT, port))
            silent.listen()
            connection = await client.connect(("relay.test", port), timeout=4)
            assert connection.remote_address == (SERVED, port)
            connection.abort()
            client.abort()
            server.abort()

    run(main())


@pytest.mark.parametrize("transport", ["quic", "tcp"])
def test_a_dial_ends_in_time_while_a_name_is_looked_up(
    pki: PkiFixture, transport: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        who = identity(pki, pki.provider)
        client = (
            QuicEndpoint(alpn=("orp/1",), identity=who)
            if transport == "quic"
            else TcpEndpoint(alpn=("orp/1",), identity=who)
        )
        with names(monkeypatch):
            async with asyncio.timeout(5):
                with pytest.raises(DialFailed, match="timed out"):
                    await client.connect(("relay.dead", 1), timeout=0.1)
            client.abort()

    run(main())
