"""Programs reach services by name: DNS answers with addresses that stand for them."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import dns.flags
import dns.message
import dns.opcode
import dns.query
import dns.rcode
import dns.rdatatype
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.agent.rig import SERVICE, agent_systems, says
from tests.conftest import PkiFixture, eventually, run
from tests.edge.rig import relay
from tools.agent.dns_answers import DnsAnswers
from tools.agent.virtual_addresses import VirtualAddresses
from tools.chaos.history import History
from tools.chaos.workload import Plan, Target, Workload

NAMES = VirtualAddresses(["web", "Db-Main", "web", "a.b"])
ANSWERS = DnsAnswers(NAMES, "outrelay")


def test_addresses_are_given_in_order_and_are_always_the_same() -> None:
    assert [NAMES.address(name) for name in ("web", "db-main", "a.b")] == [
        "100.64.0.1",
        "100.64.0.2",
        "100.64.0.3",
    ]
    assert NAMES.address("DB-MAIN") == "100.64.0.2"
    assert NAMES.service("100.64.0.2") == "Db-Main"
    assert NAMES.address("nobody") is None
    assert NAMES.service("100.64.0.4") is None
    many = VirtualAddresses([f"s{n}" for n in range(600)])
    assert many.address("s253") == "100.64.0.254"
    assert many.address("s254") == "100.64.1.1"
    assert len({many.address(f"s{n}") for n in range(600)}) == 600
    with pytest.raises(ValueError, match="no room"):
        VirtualAddresses(["a", "b", "c"], "192.0.2.0/31")


def ask(name: str, kind: str = "A") -> dns.message.Message:
    question = dns.message.make_query(name, kind)
    answer = ANSWERS.answer(question.to_wire())
    assert answer is not None
    response = dns.message.from_wire(answer)
    assert response.id == question.id
    assert not response.flags & (dns.flags.AA | dns.flags.RA)
    return response


@pytest.mark.parametrize("name", ["web.outrelay.", "WEB.OutRelay.", "wEb.outrelay"])
def test_the_address_of_a_service(name: str) -> None:
    response = ask(name)
    assert response.rcode() == dns.rcode.NOERROR
    (rrset,) = response.answer
    assert rrset.ttl == 60
    assert [record.to_text() for record in rrset] == ["100.64.0.1"]
    assert response.flags & dns.flags.RD
    assert response.flags & dns.flags.QR


@pytest.mark.parametrize(
    "name, kind, rcode",
    [
        ("web.outrelay.", "AAAA", dns.rcode.NOERROR),
        ("web.outrelay.", "HTTPS", dns.rcode.NOERROR),
        ("web.outrelay.", "TXT", dns.rcode.NOERROR),
        ("a.b.outrelay.", "A", dns.rcode.NOERROR),
        ("nobody.outrelay.", "A", dns.rcode.NXDOMAIN),
        ("nobody.outrelay.", "AAAA", dns.rcode.NXDOMAIN),
        ("outrelay.", "A", dns.rcode.REFUSED),
        ("web.example.", "A", dns.rcode.REFUSED),
        ("weboutrelay.", "A", dns.rcode.REFUSED),
    ],
)
def test_other_questions(name: str, kind: str, rcode: dns.rcode.Rcode) -> None:
    response = ask(name, kind)
    assert response.rcode() == rcode
    assert bool(response.answer) == (name == "a.b.outrelay.")


def test_what_is_no_question() -> None:
    query = dns.message.make_query("web.outrelay.", "A")
    assert ANSWERS.answer(dns.message.make_response(query).to_wire()) is None
    query.set_opcode(dns.opcode.STATUS)
    answer = ANSWERS.answer(query.to_wire())
    assert answer is not None
    assert dns.message.from_wire(answer).rcode() == dns.rcode.NOTIMP
    empty = dns.message.Message()
    answer = ANSWERS.answer(empty.to_wire())
    assert answer is not None
    assert dns.message.from_wire(answer).rcode() == dns.rcode.FORMERR
    assert ANSWERS.answer(b"") is None


def _as_question(data: bytes) -> bytes:
    return data[:2] + b"\x01\0\0\1" + data[6:]


@given(st.binary(max_size=300) | st.binary(min_size=12, max_size=60).map(_as_question))
def test_no_datagram_breaks_it(datagram: bytes) -> None:
    ANSWERS.answer(datagram)


def test_a_program_reaches_a_service_by_its_name(pki: PkiFixture, tmp_path: Path) -> None:
    async def main() -> None:
        history = History()
        target = Target(history)
        await target.start()
        async with (
            relay(pki, tmp_path) as running,
            agent_systems(running, pki, target.port, only=0),
            agent_systems(
                running,
                pki,
                0,
                only=1,
                # Loopback addresses need no redirect to arrive here.
                intercept=(SERVICE, "other"),
                virtual_network="127.64.0.0/16",
                transparent_listen=("0.0.0.0", 0),
                dns_listen=("0.0.0.0", 0),
                dns_suffix="outrelay",
            ) as (_, systems),
        ):
            (consumer,) = systems
            resolver = str(says(consumer, "/dns", "address")).rpartition(":")[2]
            port = int(str(says(consumer, "/listeners/transparent", "address")).rpartition(":")[2])

            async def lookup(name: str) -> list[str]:
                question = dns.message.make_query(f"{name}.outrelay.", "A")
                answer = await asyncio.to_thread(
                    dns.query.udp, question, "127.0.0.2", 5.0, int(resolver)
                )
                return [record.to_text() for rrset in answer.answer for record in rrset]

            assert await lookup("nobody") == []
            (address,) = await lookup(SERVICE.upper())
            assert address == "127.64.0.1"
            workload = Workload((address, port), history, streams=1, target=target)
            result = await workload.transfer(Plan("one", 1, 100_000, 100_000, half_close=True))
            assert (result.outcome, result.detail) == ("complete", "")
            # An address that stands for nothing: closed at once.
            with socket.create_connection(("127.64.0.9", port)) as stray:
                stray.settimeout(5)
                assert await asyncio.to_thread(stray.recv, 1) == b""
            # A killed DNS server answers again at the same place.
            ref = consumer.ref("/dns")
            assert ref is not None
            consumer.kill(ref, initiator="test")
            await eventually(lambda: says(consumer, "/dns", "answered") == 0)
            assert await lookup("other") == ["127.64.0.2"]
        await target.stop()

    run(main(), timeout=30)
