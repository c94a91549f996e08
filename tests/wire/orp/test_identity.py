from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from wire.orp.identity import (
    AgentUri,
    BadPath,
    BadRelayId,
    BadScheme,
    BadTenant,
    BadUuid,
    IdentityError,
    RelayUri,
    parse_identity,
)

UUID = "0a1b2c3d-4e5f-6071-8293-a4b5c6d7e8f9"
CANONICAL = f"outrelay://acme/agent/{UUID}"

AGENT_SPELLINGS = [
    UUID,
    UUID.upper(),
    UUID.replace("-", ""),
    UUID.replace("-", "").upper(),
    f"urn:uuid:{UUID}",
    f"URN:UUID:{UUID.upper()}",
    f"{{{UUID}}}",
    f"{UUID}?query=1",
    f"{UUID}#fragment",
    f"{UUID}#fragment?not/a/query",
    f"{UUID}?a/b/c",
]

LONGEST = "t" * 63

# Sheet 1.1, in the order the rules are checked.
BROKEN: list[tuple[str, type[IdentityError]]] = [
    ("", BadScheme),
    ("outrelay", BadTenant),
    ("OutRelay://acme/agent/" + UUID, BadScheme),
    (" outrelay://acme/agent/" + UUID, BadScheme),
    ("https://ACME/none/x", BadScheme),
    ("//acme/agent/" + UUID, BadScheme),
    ("outrelay:acme/agent/" + UUID, BadTenant),
    ("outrelay:/acme/agent/" + UUID, BadTenant),
    ("outrelay:///agent/" + UUID, BadTenant),
    ("outrelay://Acme/none/x", BadTenant),
    ("outrelay://-acme/agent/" + UUID, BadTenant),
    ("outrelay://ac_me/agent/" + UUID, BadTenant),
    ("outrelay://acme:7443/agent/" + UUID, BadTenant),
    ("outrelay://user@acme/agent/" + UUID, BadTenant),
    ("outrelay://acmé/agent/" + UUID, BadTenant),
    ("outrelay://acme\n/agent/" + UUID, BadTenant),
    (f"outrelay://{LONGEST}t/agent/{UUID}", BadTenant),
    ("outrelay://acme", BadPath),
    ("outrelay://acme?/agent/" + UUID, BadPath),
    ("outrelay://acme#/agent/" + UUID, BadPath),
    ("outrelay://acme/", BadPath),
    ("outrelay://acme/agent", BadPath),
    ("outrelay://acme/agent/", BadPath),
    ("outrelay://acme/agent/?" + UUID, BadPath),
    ("outrelay://acme//agent/" + UUID, BadPath),
    (f"outrelay://acme/agent/{UUID}/", BadPath),
    (f"outrelay://acme/agent/{UUID}/more", BadPath),
    ("outrelay://acme/Agent/" + UUID, BadPath),
    ("outrelay://acme/controller/not-a-uuid", BadPath),
    ("outrelay://acme/agent/not-a-uuid", BadUuid),
    ("outrelay://acme/agent/r1", BadUuid),
    (f"outrelay://acme/agent/{UUID}0", BadUuid),
    (f"outrelay://acme/agent/{UUID[:-1]}g", BadUuid),
    (f"outrelay://acme/agent/{{{UUID}", BadUuid),
    (f"outrelay://acme/agent/{{{UUID.replace('-', '')}}}", BadUuid),
    (f"outrelay://acme/agent/urn:uuid:{UUID.replace('-', '')}", BadUuid),
    (f"outrelay://acme/agent/{UUID}\n", BadUuid),
    (f"outrelay://acme/agent/%30{UUID[1:]}", BadUuid),
    # U+0131 equals "i" when Unicode decides what a case is.
    (f"outrelay://acme/agent/urn:uu\u0131d:{UUID}", BadUuid),
    ("outrelay://acme/relay/R1", BadRelayId),
    ("outrelay://acme/relay/-r1", BadRelayId),
    ("outrelay://acme/relay/r.1", BadRelayId),
    ("outrelay://acme/relay/r1\n", BadRelayId),
    (f"outrelay://acme/relay/{LONGEST}t", BadRelayId),
]


@pytest.mark.parametrize("spelling", AGENT_SPELLINGS)
def test_every_spelling_of_a_uuid_is_an_agent(spelling: str) -> None:
    text = f"outrelay://acme/agent/{spelling}"
    agent = parse_identity(text)
    assert isinstance(agent, AgentUri)
    assert (agent.text, str(agent)) == (text, text)
    assert (agent.tenant, agent.uuid) == ("acme", UUID)
    assert agent.canonical == CANONICAL


@pytest.mark.parametrize("region", ["acme", "0", "eu-west-1", "a-", LONGEST])
@pytest.mark.parametrize("relay_id", ["r1", "0", "x--", LONGEST])
def test_relays(region: str, relay_id: str) -> None:
    text = f"outrelay://{region}/relay/{relay_id}"
    relay = parse_identity(text + "?ignored#too")
    assert isinstance(relay, RelayUri)
    assert (relay.region, relay.relay_id) == (region, relay_id)
    assert relay.canonical == text
    assert str(relay) == text + "?ignored#too"


@pytest.mark.parametrize("text, error", BROKEN)
def test_the_first_broken_rule_decides_the_error(text: str, error: type[IdentityError]) -> None:
    with pytest.raises(IdentityError) as caught:
        parse_identity(text)
    assert type(caught.value) is error
    assert (caught.value.code, caught.value.reason) == (0, "")


def test_identity_is_the_exact_text() -> None:
    lower = parse_identity(CANONICAL)
    assert lower == parse_identity(CANONICAL)
    assert hash(lower) == hash(parse_identity(CANONICAL))
    upper = parse_identity(f"outrelay://acme/agent/{UUID.upper()}")
    assert upper != lower
    assert upper.canonical == lower.canonical
    assert parse_identity("outrelay://acme/relay/r1") == parse_identity("outrelay://acme/relay/r1")


def test_an_error_text_is_short_and_printable() -> None:
    with pytest.raises(BadTenant) as caught:
        parse_identity("outrelay://\x1b[31m\n" + "x" * 10_000)
    assert len(str(caught.value)) < 400
    assert str(caught.value).isprintable()


@given(st.text() | st.text().map(lambda rest: "outrelay://" + rest))
@example("outrelay://a/agent/" + "\u0660" * 32)
def test_any_text_is_an_identity_or_an_identity_error(text: str) -> None:
    try:
        identity = parse_identity(text)
    except IdentityError:
        return
    assert identity.text == text
    assert parse_identity(identity.canonical).canonical == identity.canonical


@given(
    st.from_regex(r"[a-z0-9][a-z0-9-]{0,62}", fullmatch=True),
    st.uuids(),
)
def test_canonical_uris_parse_to_themselves(tenant: str, uuid: object) -> None:
    agent = parse_identity(f"outrelay://{tenant}/agent/{uuid}")
    assert agent.canonical == agent.text
