"""The requests that were recorded of five servers, answered as RFC 8656 wants them answered."""

from __future__ import annotations

from pathlib import Path

from tests.wire.turn.rig import REALM, USERS, Rig, code
from wire.stun import attribute as a
from wire.stun import message as stun
from wire.stun.errors import StunError
from wire.stun.integrity import MD5, SHA256, long_term_key
from wire.stun.message import Message, parse
from wire.turn.authentication import ALGORITHMS
from wire.turn.credentials import rest_password
from wire.turn.settings import TurnRules

LINES = (Path(__file__).parent / "requests.txt").read_text().splitlines()[1:]
WRONG = ("allocate-bad-integrity", "allocate-wrong-password")


def _again(name: str, recorded: Message, rig: Rig, client: tuple[str, int], token: bytes) -> bytes:
    """The recorded request with our nonce and token, signed again."""
    attributes = []
    for kind, value in recorded.attributes:
        if kind == a.NONCE and name != "allocate-stale-nonce":
            attributes.append((kind, rig.nonce(client)))
        elif kind == a.RESERVATION_TOKEN and name == "allocate-token-valid":
            attributes.append((kind, token))
        elif kind == a.PASSWORD_ALGORITHMS:
            attributes.append((kind, ALGORITHMS))
        else:
            attributes.append((kind, value))
    key = None
    if recorded.has_integrity:
        user = (recorded.get(a.USERNAME) or b"alice").decode()
        password = USERS.get(user) or rest_password(b"north", user)
        algorithm = SHA256 if recorded.has_sha256 else MD5
        key = long_term_key(user, REALM, password, algorithm)
        if name in WRONG:
            key = b"wrong"
    return stun.encode(
        recorded.method, recorded.kind, recorded.transaction_id, attributes,
        key=key, sha256=recorded.has_sha256, fingerprint=recorded.has_fingerprint,
    )  # fmt: skip


def test_every_request_gets_the_answer_of_the_rfc() -> None:
    rules = TurnRules(mobility=False, last_channel=0x4FFF)
    udp, tcp = Rig(rules), Rig(rules, stream=True)
    token, wrong = b"", []
    for line in LINES:
        name, place, raw, expected = line.split()
        host, port = place.split("/")
        client = (host, int(port)) if ":" not in host else (host, int(port), 0, 0)
        rig = tcp if name.startswith("tcp-") else udp
        try:
            recorded = parse(bytes.fromhex(raw))
        except StunError:
            answer = rig.raw(bytes.fromhex(raw), client)
        else:
            if recorded.fingerprint_is_wrong:
                answer = rig.raw(recorded.raw, client)
            else:
                answer = rig.raw(_again(name, recorded, rig, client[:2], token), client)
        got = "-" if answer is None else str(code(answer) or "ok")
        if got != expected:
            wrong.append(f"{name}: {got}, not {expected}")
        if answer is not None and name == "allocate-even-port-r":
            token = answer.get(a.RESERVATION_TOKEN) or b""
    assert wrong == []
    assert len(LINES) > 100
