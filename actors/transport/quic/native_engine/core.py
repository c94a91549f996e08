"""Making qh3's compiled packet core, and telling it what the handshake found out.

The core (`qh3._hazmat.QuicConnectionCore`) takes 28 positional arguments and is off its package's
stability promise: everything about that call is here, and `tests/transport/test_native_shape.py`
fails when its signature or one of its methods changes.
"""

from __future__ import annotations

from typing import Any

from aioquic.quic.packet import QuicTransportParameters
from qh3._hazmat import QuicConnectionCore

from actors.transport.quic.engine import Address
from actors.transport.quic.native_engine.tls import ACTIVE_CID_LIMIT, VERSION_1, CidSet, PacketKeys
from actors.transport.quic.settings import QuicSettings

_INITIAL_RTT = 0.1
_ACK_DELAY_EXPONENT = 3
_MAX_ACK_DELAY = 0.025
_ENDLESS = 1 << 60


def open_core(
    settings: QuicSettings,
    cids: CidSet,
    peer_cid: bytes,
    address: Address,
    now: float,
    *,
    client: bool,
    validated: bool = False,
    round_trip: float | None = None,
) -> Any:
    """A packet core that sends to `peer_cid` at `address`.

    Without `validated`, that the address is the peer's is not known yet; nor is the round trip.

    It has the Initial keys of that id, which are those of a client that made the id up; a server
    has to install its own.
    """
    local: Address = ("::", 0, 0, 0) if ":" in address[0] else ("0.0.0.0", 0)
    return QuicConnectionCore(
        client,
        VERSION_1,
        local,
        address,
        cids.ours,
        peer_cid,
        client or validated or cids.retry is not None,  # the peer's address is validated
        ACTIVE_CID_LIMIT,
        settings.max_datagram,
        settings.max_probed > settings.max_datagram,  # probe: 1350, 1452, 1472
        settings.idle_timeout,
        _ACK_DELAY_EXPONENT,
        settings.max_datagram_frame or None,
        None,  # DATAGRAM frames of the peer: unknown like its limits
        settings.connection_window,
        0,  # send limits: unknown until the peer's transport parameters
        _ENDLESS,  # stream windows are ours: `flow`
        0,
        0,
        0,
        settings.stream_window,  # most out-of-order bytes of a stream
        settings.max_streams,
        0,  # the protocol has no unidirectional streams
        0,
        0,
        round_trip or _INITIAL_RTT,
        _MAX_ACK_DELAY,
        now,
    )


def install_keys(core: Any, keys: PacketKeys) -> None:
    """Packets of this direction and epoch can be protected from now on."""
    core.install_packet_key(
        keys.direction,
        keys.epoch,
        keys.algorithms,
        keys.key,
        keys.iv,
        keys.hp,
        0,  # key phase
        keys.secret,
        VERSION_1,
    )


def apply_parameters(core: Any, parameters: QuicTransportParameters) -> None:
    """The peer's transport parameters; absent ones have their default (RFC 9000 section 18.2)."""
    core.apply_peer_transport_parameters(
        parameters.initial_max_data or 0,
        parameters.initial_max_stream_data_bidi_local or 0,
        parameters.initial_max_stream_data_bidi_remote or 0,
        parameters.initial_max_stream_data_uni or 0,
        parameters.initial_max_streams_bidi or 0,
        parameters.initial_max_streams_uni or 0,
        _or(parameters.ack_delay_exponent, _ACK_DELAY_EXPONENT),
        _or(parameters.max_ack_delay, 25) / 1000,
        parameters.max_idle_timeout / 1000 if parameters.max_idle_timeout else None,
        parameters.max_datagram_frame_size,
        parameters.stateless_reset_token,
        _or(parameters.active_connection_id_limit, 2),
        bool(parameters.disable_active_migration),
        parameters.max_udp_payload_size,
    )


def _or(value: int | None, default: int) -> int:
    return default if value is None else value
