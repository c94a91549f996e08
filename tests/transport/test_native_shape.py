"""Everything private that the native engine uses is still what it was written against."""

from __future__ import annotations

import inspect
from importlib import metadata

import pytest
from aioquic import tls
from aioquic.quic import crypto, packet
from qh3 import _hazmat

#: The signature and the members of qh3 2.1's packet core.
CORE_SIGNATURE = (
    "(is_client, version, local_addr, remote_addr, source_cid, destination_cid, "
    "peer_address_validated, active_connection_id_limit, max_datagram_size, "
    "probe_datagram_size, idle_timeout, ack_delay_exponent, max_datagram_frame_size, "
    "peer_max_datagram_frame_size, connection_receive_window, connection_send_limit, "
    "stream_receive_window, stream_send_limit_bidi_local, stream_send_limit_bidi_remote, "
    "stream_send_limit_uni, max_stream_reassembly, local_max_streams_bidi, "
    "local_max_streams_uni, peer_max_streams_bidi, peer_max_streams_uni, initial_rtt, "
    "max_ack_delay, initial_time)"
)
CORE_METHODS = {
    "receive_datagram": "($self, data, addr, now, datagram_size=None)",
    "receive_many_datagrams": "($self, datagrams, addr, now)",
    "receive_gro_buffer": "($self, buffer, segment_size, addr, now)",
    "next_event": "($self)",
    "poll_transmit": "($self, now)",
    "get_timer": "($self)",
    "handle_timer": "($self, now)",
    "set_initial_token": "($self, token)",
    "open_stream": "($self, unidirectional)",
    "send_stream": "($self, stream_id, data, fin=False)",
    "reset_stream": "($self, stream_id, error_code)",
    "stop_sending": "($self, stream_id, error_code)",
    "send_ping": "($self, uid)",
    "send_crypto": "($self, epoch, offset, data)",
    "close": "($self, error_code, frame_type=None, reason=None)",
    "install_packet_key": "($self, direction, epoch, algorithms, key, iv, hp, phase, "
    "traffic_secret=None, version=None)",
    "request_key_update": "($self)",
    "restore_send_packet_number": "($self, space, packet_number)",
    "apply_peer_transport_parameters": "($self, connection_send_limit, "
    "stream_send_limit_bidi_local, stream_send_limit_bidi_remote, stream_send_limit_uni, "
    "peer_max_streams_bidi, peer_max_streams_uni, ack_delay_exponent, max_ack_delay, "
    "peer_idle_timeout, max_datagram_frame_size, stateless_reset_token=None, "
    "active_connection_id_limit=2, disable_active_migration=False, max_udp_payload_size=None)",
    "handshake_complete": "($self)",
    "get_send_buffer_size": "($self, stream_id=None)",
    "can_send_stream": "($self, stream_id)",
}
CORE_PROPERTIES = (
    "state",
    "received_authenticated_packet",
    "send_key_phase",
    "bytes_in_flight",
    "congestion_window",
    "loss_total",
    "pto_count",
    "outstanding_application_packets",
    "smoothed_rtt",
    "stream_limits",
    "active_path",
)


def test_the_versions_are_those_the_engine_was_written_for() -> None:
    assert metadata.version("qh3").startswith("2.1.")
    assert metadata.version("aioquic").startswith("1.7.")


def test_the_core_is_made_like_before() -> None:
    assert _hazmat.QuicConnectionCore.__text_signature__ == CORE_SIGNATURE


@pytest.mark.parametrize("name", CORE_METHODS)
def test_the_cores_methods_take_what_they_took(name: str) -> None:
    method = getattr(_hazmat.QuicConnectionCore, name)
    assert method.__text_signature__ == CORE_METHODS[name]


@pytest.mark.parametrize("name", CORE_PROPERTIES)
def test_the_core_has_its_properties(name: str) -> None:
    assert inspect.isgetsetdescriptor(getattr(_hazmat.QuicConnectionCore, name))


def test_a_header_is_parsed_into_the_same_tuple() -> None:
    header = _hazmat.pull_quic_header(b"\xc0\x00\x00\x00\x01\x01a\x02bc\x00\x05" + bytes(5), 0, 8)
    assert len(header) == 10
    assert (header[3], header[4], header[9]) == (b"a", b"bc", 17)


def test_the_tls_context_has_the_parts_that_are_used() -> None:
    context = tls.Context(is_client=False, alpn_protocols=["x"])
    for name in (
        "_peer_certificate",
        "_peer_certificate_chain",
        "_receive_buffer",
        "_request_client_certificate",
        "alpn_cb",
        "alpn_negotiated",
        "certificate",
        "certificate_chain",
        "certificate_private_key",
        "handshake_extensions",
        "legacy_session_id",
        "received_extensions",
        "state",
        "update_traffic_key_cb",
    ):
        assert hasattr(context, name), name
    assert list(inspect.signature(context.handle_message).parameters) == [
        "input_data",
        "output_buf",
    ]


def test_epochs_are_the_numbers_the_core_takes() -> None:
    assert [epoch.value for epoch in tls.Epoch] == [0, 1, 2, 3]
    assert [epoch.name for epoch in tls.Epoch] == ["INITIAL", "ZERO_RTT", "HANDSHAKE", "ONE_RTT"]


def test_packet_protection_has_the_parts_that_are_used() -> None:
    context = crypto.CryptoContext()
    context.setup(cipher_suite=tls.CipherSuite.AES_128_GCM_SHA256, secret=bytes(32), version=1)
    sealed = context.encrypt_packet(b"\x41" + b"c" * 8 + b"\x12\x34", b"payload payload", 0x1234)
    plain, number = context.hp.remove(sealed, 9)  # type: ignore[union-attr]  # set by setup
    assert (plain[:9], number) == (b"\x41" + b"c" * 8, 0x1234)
    crypto.apply_key_phase(context, crypto.next_key_phase(context), trigger="test")
    assert context.key_phase == 1


def test_transport_parameters_have_the_fields_that_are_used() -> None:
    parameters = packet.QuicTransportParameters()
    for name in (
        "initial_max_data",
        "initial_max_stream_data_bidi_local",
        "initial_max_stream_data_bidi_remote",
        "initial_max_streams_bidi",
        "initial_source_connection_id",
        "max_udp_payload_size",
        "original_destination_connection_id",
        "preferred_address",
        "retry_source_connection_id",
        "stateless_reset_token",
        "version_information",
    ):
        assert hasattr(parameters, name), name
