"""What becomes of a datagram that belongs to no connection: sans-IO, and cheap on purpose.

Everything here runs before the sender proved anything, so it is bounded in work and in memory:

* Initials without a token: at most `INITIALS_PER_SECOND` are looked at, with a burst of as many;
* handshakes in progress: `max_pending` in all and `max_pending_per_source` (`transport.gate`);
  above `retry_above` the sender must first show that it receives at its address (Retry, RFC 9000
  section 8.1.2);
* answers are smaller than what caused them, so nobody is flooded through us.

Every outcome is counted by reason. Source: RFC 9000 sections 5.2, 6, 8.1, 10.3, 14.1, 17.2.
"""

from __future__ import annotations

import os
from collections.abc import MutableMapping
from typing import NamedTuple

from aioquic.buffer import Buffer
from aioquic.quic.packet import (
    QuicHeader,
    QuicPacketType,
    encode_quic_retry,
    encode_quic_version_negotiation,
    pull_quic_header,
)
from aioquic.quic.retry import QuicRetryTokenHandler

from actors.transport.gate import Gate, source_of
from actors.transport.quic.engine import Address
from actors.transport.quic.flood_guard import FloodGuard
from actors.transport.quic.rate_limit import RateLimit
from actors.transport.quic.settings import QuicSettings
from actors.transport.quic.stateless_reset import ResetKey

CID_LENGTH = 8
VERSION_1 = 1
#: Smallest datagram that may carry a client's Initial, bytes (RFC 9000 section 14.1).
SMALLEST_INITIAL = 1200
#: Initials without a token looked at per second, all sources together; the rest is dropped.
INITIALS_PER_SECOND = 2000
#: Stateless resets sent per second; the rest of what would cause one is dropped.
RESETS_PER_SECOND = 200
#: Longest connection id of version 1, bytes.
_LONGEST_CID = 20


class Accepted(NamedTuple):
    """A first packet worth a connection."""

    original_cid: bytes  #: what the client chose first
    retry_cid: bytes | None  #: ours in the Retry, when there was one
    source: str  #: for its place at the gate


def plain_host(address: Address) -> str:
    """The sender's host; an IPv4-mapped IPv6 address in dotted form."""
    host = address[0]
    return host[7:] if host.startswith("::ffff:") and "." in host else host


def long_header_cid(datagram: bytes | memoryview) -> bytes | None:
    """The destination connection id of a long header packet; None: too short or too long."""
    if len(datagram) < 7:
        return None
    length = datagram[5]
    if length > _LONGEST_CID or len(datagram) < 6 + length:
        return None
    return bytes(datagram[6 : 6 + length])


class Admission:
    """What becomes of a datagram that belongs to no connection: sans-IO, and cheap on purpose.

    Args:
        settings: the limits.
        counters: outcomes by reason are added here.
        reset_key: for stateless resets; None: none are sent.
    """

    def __init__(
        self,
        settings: QuicSettings,
        counters: MutableMapping[str, int],
        reset_key: ResetKey | None = None,
    ) -> None:
        self.accepting = False
        self.gate = Gate(settings.max_pending, settings.max_pending_per_source, counters)
        self._settings = settings
        self._counters = counters
        self._reset_key = reset_key
        self._retry = QuicRetryTokenHandler()
        self.flood = FloodGuard()
        self._initials = RateLimit(INITIALS_PER_SECOND)
        self._resets = RateLimit(RESETS_PER_SECOND)

    # Datagrams.

    def judge(self, datagram: bytes, address: Address, now: float) -> Accepted | bytes | None:
        """A datagram that no connection id of ours is in.

        Returns:
            A connection to make; an answer to send; or None: drop it.
        """
        if not datagram:
            return self._drop("empty")
        if not datagram[0] & 0x80:
            return self._unknown_short(datagram, now)
        if not self.accepting:
            return self._drop("not_accepting")
        if len(datagram) < SMALLEST_INITIAL:
            return self._drop("short_initial")
        self.flood.seen()
        if not self._initials.take(now):
            return self._drop("initial_rate")
        try:
            header = pull_quic_header(Buffer(data=datagram), host_cid_length=CID_LENGTH)
        except ValueError:
            return self._drop("malformed")
        if header.version != VERSION_1:
            return self._negotiate(header)
        if header.packet_type is not QuicPacketType.INITIAL:
            return self._drop("unknown_cid")
        return self._initial(header, address, now)

    def _initial(self, header: QuicHeader, address: Address, now: float) -> Accepted | bytes | None:
        source = source_of(address[0])
        refusal = self.gate.refusal(source)
        if refusal:
            return self._drop(refusal.removeprefix("pending_per_"))
        if header.token:
            try:
                original = self._retry.validate_token(
                    address=(address[0], address[1]),
                    destination_cid=header.destination_cid,
                    token=header.token,
                    now=now,
                )
            except ValueError:
                return self._drop("bad_token")
            return Accepted(original, header.destination_cid, source)
        if len(header.destination_cid) < 8:
            return self._drop("short_cid")  # RFC 9000 section 7.2
        if len(self.gate) >= self._settings.retry_above:
            return self._send_retry(header, address, now)
        return Accepted(header.destination_cid, None, source)

    def _send_retry(self, header: QuicHeader, address: Address, now: float) -> bytes:
        self._counters["retry"] += 1
        source_cid = os.urandom(CID_LENGTH)
        token = self._retry.create_token(
            address=(address[0], address[1]),
            original_destination_connection_id=header.destination_cid,
            retry_source_connection_id=source_cid,
            now=now,
        )
        return encode_quic_retry(
            version=VERSION_1,
            source_cid=source_cid,
            destination_cid=header.source_cid,
            original_destination_cid=header.destination_cid,
            retry_token=token,
        )

    def _negotiate(self, header: QuicHeader) -> bytes | None:
        if header.version == 0:
            return self._drop("version_negotiation")  # never answered: it would loop
        self._counters["version_negotiation"] += 1
        return encode_quic_version_negotiation(
            source_cid=header.destination_cid,
            destination_cid=header.source_cid,
            supported_versions=[VERSION_1],
        )

    def _unknown_short(self, datagram: bytes, now: float) -> bytes | None:
        """Its connection is not here any more: say so, if the sender can verify that."""
        self._counters["drop_unknown_cid"] += 1
        if self._reset_key is None or not self.accepting or not self._resets.take(now):
            return None
        answer = self._reset_key.packet(datagram[1 : 1 + CID_LENGTH], len(datagram))
        if answer is not None:
            self._counters["stateless_reset"] += 1
        return answer

    def _drop(self, reason: str) -> bytes | None:
        self._counters[f"drop_{reason}"] += 1
        return None
