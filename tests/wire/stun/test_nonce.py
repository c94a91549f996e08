"""Nonces: for one client, for a while, under two secrets."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from wire.stun.nonce import SIZE, Nonces


def test_a_nonce_is_for_one_client_and_for_a_while() -> None:
    nonces = Nonces(b"secret", 600)
    nonce = nonces.make("192.0.2.1 4000", 1000.0)
    assert nonce.startswith(b"obMatJos2wAAA")
    assert nonces.valid(nonce, "192.0.2.1 4000", 1600.0)
    assert not nonces.valid(nonce, "192.0.2.1 4000", 1601.5)
    assert not nonces.valid(nonce, "192.0.2.1 4000", 900.0)
    assert not nonces.valid(nonce, "192.0.2.1 4001", 1000.0)
    assert not nonces.valid(nonce, "192.0.2.2 4000", 1000.0)


def test_a_rotation_leaves_what_was_given_out() -> None:
    nonces = Nonces(b"one", 600)
    nonce = nonces.make("client", 0.0)
    nonces.rotate(b"two")
    assert nonces.valid(nonce, "client", 1.0)
    assert nonces.make("client", 0.0) != nonce
    nonces.rotate(b"three")
    assert not nonces.valid(nonce, "client", 1.0)


@given(st.integers(0, SIZE - 1), st.integers(1, 255))
def test_a_changed_nonce_is_no_nonce(at: int, change: int) -> None:
    nonces = Nonces(b"secret", 600)
    nonce = bytearray(nonces.make("client", 1000.0))
    nonce[at] ^= change
    assert not nonces.valid(bytes(nonce), "client", 1000.0)


@given(st.binary(max_size=64))
def test_garbage_is_no_nonce(nonce: bytes) -> None:
    assert not Nonces(b"secret", 600).valid(nonce, "client", 0.0)
