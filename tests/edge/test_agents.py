"""Agent connections: HELLO, registration, bad input, reconnects."""

from __future__ import annotations

import asyncio
from pathlib import Path

from actors.edge.settings import EdgeSettings
from actors.runtime import Restart, inspection
from actors.transport.connection import Connection
from tests.conftest import PkiFixture, eventually, run
from tests.edge.rig import relay
from wire.orp.agent_session import AgentSession
from wire.orp.close_codes import CloseCode
from wire.orp.frame import FrameType, encode_frame
from wire.orp.messages import (
    Hello,
    ObservedAddrResp,
    OpenStream,
    Ping,
    Pong,
    Register,
    StreamAccept,
)


def test_observed_address_and_ping_are_answered(pki: PkiFixture, tmp_path: Path) -> None:
    async def main() -> None:
        async with relay(pki, tmp_path) as running:
            agent = running.agent(pki, pki.provider)
            await agent.connect(running.address)
            query = agent.session.query_observed_address(asyncio.get_running_loop().time())
            agent.session.send(Ping())
            agent.flush()
            await eventually(lambda: any(isinstance(e, Pong) for e in agent.events))
            answers = [e for e in agent.events if isinstance(e, ObservedAddrResp)]
            assert answers[0].request_id == query
            assert answers[0].ip == "127.0.0.1"

    run(main())


def test_hello_for_another_uri_is_closed_silently_and_counted(
    pki: PkiFixture, tmp_path: Path
) -> None:
    async def main() -> None:
        async with relay(pki, tmp_path) as running:
            agent = running.agent(pki, pki.provider)
            await agent.dial(running.address)
            agent.ctrl.write(Hello(pki.consumer.identity).encode())
            await eventually(lambda: agent.closed is not None)
            assert agent.closed is not None
            assert (agent.closed.code, agent.closed.text) == (0, "")
            assert sum(n for k, n in running.counters.items() if k.startswith("ctrl_")) == 1

    run(main())


def test_an_oversized_ctrl_frame_closes_with_its_code(pki: PkiFixture, tmp_path: Path) -> None:
    async def main() -> None:
        async with relay(pki, tmp_path) as running:
            agent = running.agent(pki, pki.provider)
            await agent.connect(running.address)
            agent.ctrl.write(b"\x20\x03\x00\x00\x00\x10\x00\x00")  # declares 1 MiB
            await eventually(lambda: agent.closed is not None)
            assert agent.closed is not None
            assert agent.closed.code == CloseCode.FRAME_TOO_LARGE

    run(main())


def test_silent_clients_and_silent_streams_meet_their_deadlines(
    pki: PkiFixture, tmp_path: Path
) -> None:
    async def main() -> None:
        settings = EdgeSettings(hello_deadline=0.2, first_frame_deadline=0.2)
        async with relay(pki, tmp_path, settings=settings) as running:
            silent = running.agent(pki, pki.provider)
            await silent.dial(running.address)
            await eventually(lambda: silent.closed is not None)
            assert silent.closed is not None
            assert silent.closed.code == CloseCode.HELLO_TIMEOUT
            agent = running.agent(pki, pki.consumer)
            await agent.connect(running.address)
            partial = agent.open(OpenStream("svc").encode()[:5])
            await eventually(lambda: partial.reset_code is not None)
            assert running.counters["first_frame_timeout"] == 1
            unknown = agent.open(encode_frame(FrameType.PING, b""))
            await eventually(lambda: unknown.eof)
            assert agent.closed is None

    run(main())


def test_a_fast_reconnect_keeps_the_new_registration(pki: PkiFixture, tmp_path: Path) -> None:
    async def main() -> None:
        async with relay(pki, tmp_path) as running:
            old = running.agent(pki, pki.provider)
            await old.connect(running.address, "svc")
            new = running.agent(pki, pki.provider)
            await new.connect(running.address, "svc")
            await eventually(lambda: old.closed is not None)
            assert old.closed is not None
            assert old.closed.code == CloseCode.SUPERSEDED
            consumer = running.agent(pki, pki.consumer)
            await consumer.connect(running.address)
            mine = consumer.open(OpenStream("svc", "", 1).encode())
            theirs, _ = await new.next_incoming(1)
            theirs.stream.write(StreamAccept().encode() + b"new one")
            await eventually(lambda: bytes(mine.data) == b"new one")

    run(main())


def test_a_killed_agent_connection_closes_visibly_and_resets_its_streams(
    pki: PkiFixture, tmp_path: Path
) -> None:
    async def main() -> None:
        # The stream could be resumed; the provider does not come back for it in time.
        settings = EdgeSettings(region="local", hold=0.2)
        async with relay(pki, tmp_path, settings=settings) as running:
            provider = running.agent(pki, pki.provider)
            await provider.connect(running.address, "svc")
            path = running.only("/edge/agents")
            consumer = running.agent(pki, pki.consumer)
            await consumer.connect(running.address)
            mine = consumer.open(OpenStream("svc", "", 1).encode())
            theirs, _ = await provider.next_incoming(1)
            theirs.stream.write(StreamAccept().encode())
            await eventually(lambda: 1 in consumer.ready_streams)
            running.kill(path)
            await eventually(lambda: provider.closed is not None)
            await eventually(lambda: mine.reset_code is not None)
            assert not mine.eof
            assert consumer.closed is None
            await eventually(lambda: running.streams() == 0)

    run(main())


def test_an_agent_that_comes_while_control_as_a_whole_restarts_is_registered(
    pki: PkiFixture, tmp_path: Path
) -> None:
    async def main() -> None:
        async with relay(pki, tmp_path) as running:
            control = running.system.ref("/control")
            assert control is not None
            for _ in range(5):  # each pause before its restart is longer: nothing is there then
                await control.started(timeout=5)
                running.kill("/control")
            assert running.system.find("/control/registry") is None
            provider = running.agent(pki, pki.provider)
            await provider.connect(running.address, "svc")
            assert len(provider.registered) == 1
            assert provider.closed is None

    run(main())


def test_every_part_of_control_and_edge_is_back_within_the_second_a_stream_may_wait(
    pki: PkiFixture, tmp_path: Path
) -> None:
    async def main() -> None:
        async with relay(pki, tmp_path) as running:
            root = running.system.find("/")
            assert root is not None
            tree = [cell for cell in inspection.walk(root) if cell.parent is not None]
            permanent = [cell for cell in tree if cell.spec.restart is Restart.PERMANENT]
            assert len(permanent) > 8
            for cell in permanent:
                # However often it died: the pauses stay below the second.
                assert cell.spec.backoff.cap <= 1.0, cell.path

    run(main())


def test_a_service_is_provided_by_whom_a_rule_allows(pki: PkiFixture, tmp_path: Path) -> None:
    rules = f"""
    [[rule]]
    id = "web-provider"
    tenant = "acme"
    caller = "{pki.provider.identity}"
    target = "web"
    method = "REGISTER"
    decision = "allow"
    """

    async def main() -> None:
        settings = EdgeSettings(region="local", judge_registers=True)
        async with relay(pki, tmp_path, rules=rules, settings=settings) as running:
            provider = running.agent(pki, pki.provider)
            await provider.connect(running.address, "web")
            assert len(provider.registered) == 1
            for leaf, service in ((pki.consumer, "web"), (pki.consumer, "other")):
                other = running.agent(pki, leaf)
                await other.dial(running.address)
                loop = asyncio.get_running_loop()
                other.session = AgentSession(other.uri, [Register(service)], loop.time())
                other.ctrl.on_data = other._from_ctrl
                other.ctrl.start()
                other.flush()
                await eventually(lambda other=other: other.closed is not None)  # type: ignore[misc]
                assert other.closed is not None
                assert other.closed.code == CloseCode.REGISTER_FAILED
            assert running.counters["register_denied"] == 2
            assert provider.closed is None

    run(main())


def test_a_connection_that_arrives_while_its_supervisor_restarts_waits_for_it(
    pki: PkiFixture, tmp_path: Path
) -> None:
    async def main() -> None:
        async with relay(pki, tmp_path) as running:
            endpoint = running.edge.endpoints[0]
            admit = endpoint.on_connection
            assert admit is not None

            def admit_after_a_death(connection: Connection) -> None:
                running.kill("/edge/agents")
                admit(connection)

            endpoint.on_connection = admit_after_a_death
            agent = running.agent(pki, pki.provider)
            await agent.connect(running.address, "web")  # answered on this very connection
            assert agent.closed is None
            assert running.counters["agents_held"] == 1
            assert running.counters["agents_admitted"] == 1

    run(main())
