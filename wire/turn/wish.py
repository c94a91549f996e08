"""What an Allocate asks for, checked (RFC 8656 section 7.2, RFC 8016 section 3.2)."""

from __future__ import annotations

from typing import NamedTuple

from wire.stun import attribute as a
from wire.stun.address import IPV4, IPV6
from wire.stun.message import Message
from wire.turn import limits
from wire.turn.settings import TurnRules


class Refused(Exception):  # an answer, not an error of ours
    """A request that gets an error response.

    Args:
        code: see `wire.stun.attribute.REASONS`.
        label: to count it by.
        attributes: of the answer, behind ERROR-CODE.
    """

    def __init__(self, code: int, label: str, attributes: tuple[a.Attribute, ...] = ()) -> None:
        super().__init__(label)
        self.code = code
        self.label = label
        self.attributes = attributes


class Wish(NamedTuple):
    """An Allocate.

    Attributes:
        families: of addresses; the second one may fail.
        lifetime: as wanted.
        even: an even port.
        reserve: and the next one held.
        token: of a port that was held.
        mobility: the client wants a ticket.
    """

    families: tuple[int, ...]
    lifetime: int | None
    even: bool
    reserve: bool
    token: bytes
    mobility: bool


def read_wish(message: Message, rules: TurnRules, *, stream: bool) -> Wish:
    """What is asked for.

    Args:
        stream: the client came by a connection.

    Raises:
        Refused, BadValue: it cannot be had.
    """
    transport = message.number(a.REQUESTED_TRANSPORT, 1, padded_to=4)
    if transport is None or (transport == limits.TCP and not stream):
        raise Refused(400, "transport")
    if transport != limits.UDP:
        raise Refused(442, "transport")
    lifetime = message.number(a.LIFETIME, 4)
    even = message.number(a.EVEN_PORT, 1)
    token = message.get(a.RESERVATION_TOKEN)
    family = message.number(a.REQUESTED_ADDRESS_FAMILY, 1, padded_to=4)
    additional = message.number(a.ADDITIONAL_ADDRESS_FAMILY, 1, padded_to=4)
    if additional is None:
        additional = message.number(a.ADDITIONAL_ADDRESS_FAMILY_OLD, 1, padded_to=4)
    if token is not None and (
        len(token) != 8 or even is not None or family is not None or additional is not None
    ):
        raise Refused(400, "token")
    if additional is not None and (
        additional != IPV6 or family is not None or (even is not None and even & 0x80)
    ):
        raise Refused(400, "additional_family")
    if family is not None and family not in (IPV4, IPV6):
        raise Refused(440, "family")
    ticket = message.get(a.MOBILITY_TICKET)
    if ticket is not None:
        if not rules.mobility:
            raise Refused(405, "mobility_off")
        if ticket:
            raise Refused(400, "ticket")
    return Wish(
        (IPV4, IPV6) if additional is not None else (family or IPV4,),
        lifetime,
        even is not None,
        even is not None and bool(even & 0x80),
        token or b"",
        ticket is not None,
    )
