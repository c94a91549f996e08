"""Which address other relays are told."""

from __future__ import annotations

import pytest

from actors.wiring.announced import announced
from config.schema import Settings


@pytest.mark.parametrize(
    "listen, advertise, told",
    [
        (["0.0.0.0:7443", "[::]:7443"], "relay.example:7443", "relay.example:7443"),
        (["0.0.0.0:7443", "192.0.2.1:7444"], None, "192.0.2.1:7444"),
        (["[fe80::1%lo]:7443", "[2001:db8::1]:7443"], None, "[2001:db8::1]:7443"),
        (["[::]:7443", "relay.example:7443"], None, "relay.example:7443"),
        (["[::]:7443"], None, "[::]:7443"),
    ],
)
def test_what_means_something_elsewhere(
    listen: list[str], advertise: str | None, told: str
) -> None:
    edge = {"listen": listen} | ({"advertise": advertise} if advertise else {})
    assert str(announced(Settings.model_validate({"edge": edge}))) == told
