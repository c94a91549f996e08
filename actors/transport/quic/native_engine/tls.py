"""TLS 1.3 of the native engine: aioquic's handshake, driven by CRYPTO bytes.

In: contiguous CRYPTO bytes of an epoch. Out: CRYPTO bytes to send, packet protection keys, the
peer's transport parameters, and that the handshake is complete. Packets, loss and timers belong to
the packet core. Nobody is verified here: the peer proves that it holds the key of the certificate
it sent, and the endpoint checks the chain (see `actors.transport.tls`).

Why aioquic's: the packet core's own TLS library cannot ask a client for a certificate.

All use of aioquic's private TLS parts by the native engine is in this module;
`tests/transport/test_native_shape.py` fails when one of them changes. Source: RFC 9001, RFC 9000
sections 7.3, 7.4 and 18.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from aioquic import tls
from aioquic.buffer import Buffer
from aioquic.quic.crypto import CIPHER_SUITES, derive_key_iv_hp
from aioquic.quic.packet import (
    QuicErrorCode,
    QuicFrameType,
    QuicTransportParameters,
    QuicVersionInformation,
    pull_quic_transport_parameters,
    push_quic_transport_parameters,
)
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm

from actors.transport.peer_policy import PeerPolicy
from actors.transport.quic.settings import QuicSettings
from actors.transport.tls import TlsIdentity

VERSION_1 = 1
#: What one TLS flight of ours may take; a certificate chain is a few KiB.
_FLIGHT_BYTES = 65536
#: An unfinished TLS message of the peer larger than this ends the connection.
MAX_MESSAGE_BYTES = 65536
_MAX_STREAM_COUNT = 1 << 60
_SMALLEST_UDP_PAYLOAD = 1200
_ACK_DELAY_EXPONENT = 3
_MAX_ACK_DELAY_MS = 25
ACTIVE_CID_LIMIT = 8
#: Only a server may send these (RFC 9000 section 18.2).
_SERVER_ONLY = (
    "original_destination_connection_id",
    "preferred_address",
    "retry_source_connection_id",
    "stateless_reset_token",
)


class HandshakeFailed(Exception):
    """The handshake cannot go on; to be sent as a CONNECTION_CLOSE of the transport."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.frame_type = int(QuicFrameType.CRYPTO)
        self.text = text


class PacketKeys(NamedTuple):
    """Keys of one direction of one epoch, in the form the packet core takes."""

    direction: str  #: "send" or "receive"
    epoch: int
    algorithms: tuple[str, str]  #: AEAD, header protection
    key: bytes
    iv: bytes
    hp: bytes
    secret: bytes


class CryptoBytes(NamedTuple):
    """Bytes for CRYPTO frames."""

    epoch: int
    offset: int
    data: bytes


@dataclass(slots=True)
class CidSet:
    """The connection ids that transport parameters authenticate (RFC 9000 section 7.3)."""

    ours: bytes
    original: bytes
    retry: bytes | None
    peers: bytes | None = None


class TlsDriver:
    """One handshake.

    Args:
        settings: limits to advertise.
        identity: what we present.
        alpn: protocols offered or accepted.
        cids: connection ids; `peers` is filled in by the engine before it matters.
        client: our side.
        peer_policy: who shows a certificate.
        server_name: SNI of a client.
        reset_token: stateless reset token of `cids.ours`, servers only.
    """

    def __init__(
        self,
        settings: QuicSettings,
        identity: TlsIdentity,
        alpn: tuple[str, ...],
        cids: CidSet,
        *,
        client: bool,
        peer_policy: PeerPolicy = PeerPolicy.MUTUAL,
        server_name: str | None = None,
        reset_token: bytes | None = None,
    ) -> None:
        self.parameters: QuicTransportParameters | None = None
        self.complete = False
        self.cids = cids
        self._client = client
        self._key_log = settings.key_log
        self._keys: list[PacketKeys] = []
        self._outgoing: list[CryptoBytes] = []
        self._sent = dict.fromkeys(_EPOCHS, 0)
        self._tls = tls.Context(
            is_client=client,
            alpn_protocols=list(alpn),
            server_name=server_name,
            verify_mode=ssl.CERT_NONE,
        )
        if identity.chain and (peer_policy.of_clients or not client):
            self._tls.certificate = identity.chain[0]
            self._tls.certificate_chain = list(identity.chain[1:])
            self._tls.certificate_private_key = identity.key  # type: ignore[assignment]
            # TlsIdentity allows every private key; the handshake refuses what TLS cannot use.
        self._tls.handshake_extensions = [
            (
                tls.ExtensionType.QUIC_TRANSPORT_PARAMETERS,
                _serialize(settings, cids, client=client, reset_token=reset_token),
            )
        ]
        self._tls.alpn_cb = self._on_peer_hello
        self._tls.update_traffic_key_cb = self._on_secret
        if not client and peer_policy.of_clients:
            self._tls._request_client_certificate = True

    @property
    def chain(self) -> Sequence[x509.Certificate]:
        """The peer's certificates, leaf first; empty when it sent none."""
        leaf = self._tls._peer_certificate
        return [] if leaf is None else [leaf, *self._tls._peer_certificate_chain]

    @property
    def alpn(self) -> str:
        """The protocol agreed on, or empty."""
        return self._tls.alpn_negotiated or ""

    def release(self) -> None:
        """Nothing of TLS follows: the context and this driver let go of each other."""
        vars(self._tls).clear()

    def start(self) -> None:
        """Make the client's first flight."""
        self._handle(b"")

    def receive(self, data: bytes) -> None:
        """Contiguous CRYPTO bytes of the peer, of whatever epoch its state allows.

        Raises:
            HandshakeFailed: close with its code.
        """
        self._handle(data)

    def take_keys(self) -> list[PacketKeys]:
        """Keys made since the last call, in the order of their making."""
        keys, self._keys = self._keys, []
        return keys

    def take_outgoing(self) -> list[CryptoBytes]:
        """CRYPTO bytes made since the last call."""
        outgoing, self._outgoing = self._outgoing, []
        return outgoing

    def _handle(self, data: bytes) -> None:
        buffers = {epoch: Buffer(capacity=_FLIGHT_BYTES) for epoch in _EPOCHS}
        try:
            self._tls.handle_message(data, buffers)
        except tls.Alert as alert:
            raise HandshakeFailed(
                QuicErrorCode.CRYPTO_ERROR + int(alert.description), str(alert)
            ) from None
        except (ValueError, TypeError, AssertionError, UnsupportedAlgorithm):
            # The library's parsers meet bytes of somebody unknown here.
            raise HandshakeFailed(
                QuicErrorCode.CRYPTO_ERROR + int(tls.AlertDescription.decode_error),
                "malformed TLS message",
            ) from None
        if len(self._tls._receive_buffer) > MAX_MESSAGE_BYTES:
            raise HandshakeFailed(QuicErrorCode.CRYPTO_BUFFER_EXCEEDED, "TLS message too large")
        for epoch, buffer in buffers.items():
            if out := buffer.data:
                self._outgoing.append(CryptoBytes(int(epoch.value), self._sent[epoch], out))
                self._sent[epoch] += len(out)
        self.complete = self._tls.state in _COMPLETE

    def _on_secret(
        self, direction: tls.Direction, epoch: tls.Epoch, suite: tls.CipherSuite, secret: bytes
    ) -> None:
        if self._key_log is not None:
            ours = direction is tls.Direction.ENCRYPT
            whose = "CLIENT" if ours is self._client else "SERVER"
            what = (
                "HANDSHAKE_TRAFFIC_SECRET" if epoch is tls.Epoch.HANDSHAKE else "TRAFFIC_SECRET_0"
            )
            random = (self._tls.client_random or b"").hex()
            self._key_log.write(f"{whose}_{what} {random} {secret.hex()}\n")
        hp_name, aead_name = CIPHER_SUITES[suite]
        key, iv, hp = derive_key_iv_hp(cipher_suite=suite, secret=secret, version=VERSION_1)
        self._keys.append(
            PacketKeys(
                "send" if direction is tls.Direction.ENCRYPT else "receive",
                int(epoch.value),
                (aead_name.decode(), hp_name.decode()),
                key,
                iv,
                hp,
                secret,
            )
        )

    def _on_peer_hello(self, alpn: str | None) -> None:
        """The peer's extensions are here: ClientHello for a server, EncryptedExtensions else."""
        if not self._client and self._tls.legacy_session_id:
            # QUIC has no middlebox compatibility mode (RFC 9001 section 8.4).
            raise HandshakeFailed(QuicErrorCode.PROTOCOL_VIOLATION, "non-empty legacy_session_id")
        for kind, data in self._tls.received_extensions or ():
            if kind == tls.ExtensionType.QUIC_TRANSPORT_PARAMETERS:
                self.parameters = _parse(data, self.cids, client=self._client)
                return
        raise HandshakeFailed(
            QuicErrorCode.CRYPTO_ERROR + int(tls.AlertDescription.missing_extension),
            "no QUIC transport parameters",
        )


_EPOCHS = (tls.Epoch.INITIAL, tls.Epoch.HANDSHAKE, tls.Epoch.ONE_RTT)
_COMPLETE = (tls.State.CLIENT_POST_HANDSHAKE, tls.State.SERVER_POST_HANDSHAKE)


def _serialize(
    settings: QuicSettings, cids: CidSet, *, client: bool, reset_token: bytes | None
) -> bytes:
    parameters = QuicTransportParameters(
        ack_delay_exponent=_ACK_DELAY_EXPONENT,
        active_connection_id_limit=ACTIVE_CID_LIMIT,
        max_idle_timeout=int(settings.idle_timeout * 1000),
        initial_max_data=settings.connection_window,
        initial_max_stream_data_bidi_local=settings.stream_window,
        initial_max_stream_data_bidi_remote=settings.stream_window,
        initial_max_stream_data_uni=0,
        initial_max_streams_bidi=settings.max_streams,
        initial_max_streams_uni=0,
        initial_source_connection_id=cids.ours,
        max_ack_delay=_MAX_ACK_DELAY_MS,
        max_datagram_frame_size=settings.max_datagram_frame or None,
        version_information=QuicVersionInformation(
            chosen_version=VERSION_1, available_versions=[VERSION_1]
        ),
    )
    if not client:
        parameters.original_destination_connection_id = cids.original
        parameters.retry_source_connection_id = cids.retry
        parameters.stateless_reset_token = reset_token
    buffer = Buffer(capacity=1024)
    push_quic_transport_parameters(buffer, parameters)
    return buffer.data


def _parse(data: bytes, cids: CidSet, *, client: bool) -> QuicTransportParameters:
    """Parse and validate (RFC 9000 sections 7.3 and 18.2).

    Raises:
        HandshakeFailed: with TRANSPORT_PARAMETER_ERROR or VERSION_NEGOTIATION_ERROR.
    """
    try:
        parameters = pull_quic_transport_parameters(Buffer(data=data))
    except ValueError:
        raise _refused("could not be parsed") from None
    if not client:
        for name in _SERVER_ONLY:
            if getattr(parameters, name) is not None:
                raise _refused(f"{name} is not allowed for clients")
    if parameters.initial_source_connection_id != cids.peers:
        raise _refused("initial_source_connection_id does not match")
    if client and parameters.original_destination_connection_id != cids.original:
        raise _refused("original_destination_connection_id does not match")
    if client and parameters.retry_source_connection_id != cids.retry:
        raise _refused("retry_source_connection_id does not match")
    for name, valid in _LIMITS.items():
        value = getattr(parameters, name)
        if value is not None and not valid(value):
            raise _refused(f"{name} out of range")
    information = parameters.version_information
    if information is not None:
        if not client and information.chosen_version not in information.available_versions:
            raise _refused("chosen_version is not among available_versions")
        if information.chosen_version != VERSION_1:
            raise HandshakeFailed(
                QuicErrorCode.VERSION_NEGOTIATION_ERROR, "chosen_version is not the one in use"
            )
    return parameters


_LIMITS: dict[str, Callable[[int], bool]] = {
    "active_connection_id_limit": lambda value: value >= 2,
    "ack_delay_exponent": lambda value: value <= 20,
    "max_ack_delay": lambda value: value < 2**14,
    "initial_max_streams_bidi": lambda value: value <= _MAX_STREAM_COUNT,
    "initial_max_streams_uni": lambda value: value <= _MAX_STREAM_COUNT,
    "max_udp_payload_size": lambda value: value >= _SMALLEST_UDP_PAYLOAD,
}


def _refused(text: str) -> HandshakeFailed:
    return HandshakeFailed(QuicErrorCode.TRANSPORT_PARAMETER_ERROR, text)
