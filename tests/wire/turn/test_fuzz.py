"""No bytes of anybody make the dispatcher fail, or leave more behind than its bounds allow."""

from __future__ import annotations

import os
import random

import pytest

from tests.wire.stun.test_message import mutate
from tests.wire.stun.test_vectors import VECTORS
from tests.wire.turn.rig import PEER, REALM, UDP, USERS, Rig, channel, peer
from wire.stun import attribute as a
from wire.stun import message as stun
from wire.stun.integrity import long_term_key
from wire.turn.settings import TurnRules

RULES = TurnRules(max_per_user=50, max_permissions=8, max_channels=8)


def _signed(rig: Rig, dice: random.Random, client: tuple[str, int]) -> bytes:
    """A request of a user who knows the password and abuses it."""
    attributes = [
        UDP, channel(dice.randrange(0x3FF0, 0x4010)), peer((PEER[0], dice.randrange(4))),
        a.lifetime(dice.choice((0, 1, 600, 2**32 - 1))), (a.EVEN_PORT, dice.randbytes(1)),
        (a.RESERVATION_TOKEN, dice.randbytes(8)), (a.MOBILITY_TICKET, dice.randbytes(2)),
        (a.ADDITIONAL_ADDRESS_FAMILY, b"\x02\0\0\0"), (a.DONT_FRAGMENT, b""),
        (dice.randrange(0x10000), dice.randbytes(dice.randrange(30))), (a.MOBILITY_TICKET, b""),
        (a.REQUESTED_ADDRESS_FAMILY, dice.randbytes(4)), (a.DATA, dice.randbytes(9)),
    ]  # fmt: skip
    user = dice.choice(("alice", "bob"))
    chosen = [*dice.sample(attributes, dice.randrange(5)), *([UDP] if dice.random() < 0.5 else [])]
    return stun.encode(
        dice.choice((3, 3, 4, 8, 9, 9, 6, 10)), stun.REQUEST, dice.randbytes(12),
        (
            *chosen, (a.USERNAME, user.encode()), (a.REALM, REALM.encode()),
            (a.NONCE, rig.nonce(client)),
        ),
        key=long_term_key(user, REALM, USERS[user]),
    )  # fmt: skip


def _run(packets: int, seed: int) -> Rig:
    dice = random.Random(seed)
    rig = Rig(RULES)
    samples = [one.raw for one in VECTORS.values()]
    for n in range(packets):
        client = ("192.0.2.1", dice.randrange(1, 80))
        what = dice.randrange(10)
        if what < 3:
            raw = _signed(rig, dice, client)
        elif what < 6:
            raw = mutate(dice.choice(samples), dice)
        elif what < 9:
            raw = mutate(_signed(rig, dice, client), dice)
        else:
            raw = dice.randbytes(dice.randrange(100))
        rig.raw(raw, client)
        if n % 100 == 0:
            rig.advance(dice.choice((0, 1, 30, 300)))
            rig.endpoint.sent.clear()
            rig.host.ended.clear()
            rig.host.relays = [one for one in rig.host.relays if not one.closed]
    return rig


def _check(rig: Rig) -> None:
    alive = rig.dispatcher.allocations.values()
    assert set(alive) == set(rig.endpoint.clients.values())
    for one in alive:
        assert len(one.permissions) <= 8
        assert one.bindings <= 8
    rig.advance(10_000)
    assert rig.host.open == 0
    assert rig.endpoint.clients == {}
    assert rig.dispatcher.deadlines.next() is None
    assert not rig.dispatcher._per_user
    assert not rig.dispatcher._per_source
    assert not rig.dispatcher._tickets
    assert not rig.dispatcher._reserved


def test_hostile_packets() -> None:
    rig = _run(30_000, 8656)
    assert rig.dispatcher.counters["answered"] > 300
    _check(rig)


@pytest.mark.soak
@pytest.mark.timeout(7200)
def test_ten_million_hostile_packets() -> None:
    seed = int(os.environ.get("TURN_FUZZ_SEED", "0"))
    for part in range(100):
        _check(_run(100_000, seed + part))
