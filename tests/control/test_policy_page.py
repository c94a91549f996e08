"""The example of docs/policy.md is what it says: as rules, and at a relay with agents."""

from __future__ import annotations

import re
from pathlib import Path
from uuid import UUID

from actors.control.policy.match import RuleSet
from actors.control.policy.rules_toml import KEYS, parse_rules
from actors.pki.certificates import agent_identity
from tests.conftest import PkiFixture, eventually, run
from tests.edge.rig import relay
from wire.orp.messages import OpenStream, StreamAccept, StreamReject

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "policy.md").read_text()
NOW = 1_800_000_000_000


def _example() -> str:
    (found,) = re.findall(r"^```toml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    return str(found)


def _table(first: str) -> list[list[str]]:
    """Rows of the table whose first heading this is."""
    lines = PAGE[PAGE.index(f"| {first} |") :].split("\n\n")[0].splitlines()[2:]
    return [
        [cell.strip().replace("`", "") for cell in line.strip("|").split("|")] for line in lines
    ]


def _agent(shown: str) -> str:
    return agent_identity("acme", UUID(int=int(shown.removeprefix("..."))))


def test_the_table_is_what_the_rules_come_to() -> None:
    rules = RuleSet(parse_rules(_example(), "policy.md", NOW))
    rows = _table("consumer")
    assert len(rows) == 6
    for consumer, service, provider, answer, by in rows:
        first = rules.evaluate("acme", _agent(consumer), service, "", NOW)
        second = rules.evaluate("acme", _agent(provider), _agent(consumer), "", NOW)
        if answer == "allow":
            assert (first.allow, second.allow) == (True, True)
            assert by == f"{first.reason}, {second.reason}"
        elif answer == "403 denied":
            assert (first.allow, first.reason) == (False, by)
        else:
            assert answer == "403 denied (callee)"
            assert (first.allow, second.allow, second.reason) == (True, False, by)
    later = NOW + 25 * 3_600_000
    assert not rules.evaluate("acme", _agent("...0003"), "db", "", later).allow


def test_every_key_is_there() -> None:
    assert sorted(row[0] for row in _table("key")) == sorted(KEYS)


def test_a_relay_with_these_rules(pki: PkiFixture, tmp_path: Path) -> None:
    """The provider of the test's PKI is agent 1, its consumer agent 2."""
    assert pki.provider.identity == _agent("...0001")
    assert pki.consumer.identity == _agent("...0002")

    async def main() -> None:
        async with relay(pki, tmp_path, rules=_example()) as running:
            provider, consumer = (running.agent(pki, x) for x in (pki.provider, pki.consumer))
            await provider.connect(running.address, "web", "db", "mail")
            await consumer.connect(running.address, "web")
            mine = consumer.open(OpenStream("db", "", 7).encode())
            theirs, _ = await provider.next_incoming(1)
            theirs.stream.write(StreamAccept().encode())
            await eventually(lambda: 7 in consumer.ready_streams)
            mine.stream.write(b"select")
            await eventually(lambda: bytes(theirs.data) == b"select")
            refused = consumer.open(OpenStream("mail", "", 8).encode())
            assert await refused.first_frame() == StreamReject(403, "denied: no matching rule")
            # Whoever else registers a service is not joined to those who ask for it.
            other = provider.open(OpenStream("web", "", 9).encode())
            assert await other.first_frame() == StreamReject(
                403, "denied (callee): no matching rule"
            )

    run(main())
