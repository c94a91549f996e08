"""Everything private that the aioquic engine uses is still what it was written against."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from importlib import metadata

import pytest
from aioquic.quic import connection, recovery, stream
from aioquic.quic.configuration import QuicConfiguration

#: Overridden methods and their parameters.
OVERRIDDEN = {
    "_handle_ack_frame": ["self", "context", "frame_type", "buf"],
    "_parse_transport_parameters": ["self", "data", "from_session_ticket"],
    "_get_or_create_stream": ["self", "frame_type", "stream_id"],
    "_initialize": ["self", "peer_cid"],
    "_handle_new_connection_id_frame": ["self", "context", "frame_type", "buf"],
    "_payload_received": ["self", "context", "plain", "crypto_frame_required"],
    "_handle_connection_close_frame": ["self", "context", "frame_type", "buf"],
    "_on_max_stream_data_delivery": ["self", "delivery", "stream"],
    "_replenish_connection_ids": ["self"],
    "_write_connection_limits": ["self", "builder", "space"],
    "_write_stream_limits": ["self", "builder", "space", "stream"],
}
ATTRIBUTES = (
    "_QuicConnection__frame_handlers",
    "_close_event",
    "_crypto_buffers",
    "_crypto_streams",
    "_cryptos",
    "_handshake_confirmed",
    "_max_datagram_size",
    "_network_paths",
    "_packet_number",
    "_peer_cid",
    "_peer_token",
    "_spaces",
    "_spin_bit",
    "_version",
    "_host_cids",
    "_is_client",
    "_local_max_data",
    "_local_max_streams_bidi",
    "_local_max_streams_uni",
    "_loss",
    "_remote_max_streams_bidi",
    "_state",
    "_streams",
    "_streams_queue",
    "host_cid",
)


def _connection() -> connection.QuicConnection:
    return connection.QuicConnection(configuration=QuicConfiguration(is_client=True))


def test_the_version_is_that_the_engine_was_written_for() -> None:
    assert metadata.version("aioquic").startswith("1.7.")


@pytest.mark.parametrize("name", OVERRIDDEN)
def test_overridden_methods_take_what_they_took(name: str) -> None:
    method = getattr(connection.QuicConnection, name)
    assert list(inspect.signature(method).parameters) == OVERRIDDEN[name]


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_the_connection_has_its_attributes(name: str) -> None:
    assert hasattr(_connection(), name)


def test_streams_are_iterated_for_their_limits_and_nothing_else() -> None:
    source = inspect.getsource(connection)
    assert source.count("self._streams.values()") == 1


def test_limits_are_written_per_stream_of_that_loop() -> None:
    source = inspect.getsource(connection.QuicConnection._write_application)
    assert "for stream in self._streams.values():" in source
    assert "self._write_stream_limits(" in source


def test_streams_are_queued_iterated_and_reordered_as_the_send_queue_knows() -> None:
    source = inspect.getsource(connection)
    assert source.count("self._streams_queue.append(stream)") == 2
    assert source.count("self._streams_queue") == 7
    filling = inspect.getsource(connection.QuicConnection._write_application)
    limits = filling.index("self._write_connection_limits(")
    asking = filling.index("for stream in self._streams_queue:")
    renewing = filling.index("self._streams_queue = [")
    assert limits < asking < renewing < filling.index("self._streams_queue.extend(sent)")


def test_every_frame_about_a_stream_asks_for_the_stream() -> None:
    for kind in ("stream", "max_stream_data", "reset_stream", "stop_sending"):
        handler = getattr(connection.QuicConnection, f"_handle_{kind}_frame")
        assert "self._get_or_create_stream(frame_type, stream_id)" in inspect.getsource(handler)


@pytest.mark.parametrize(
    "method, parameters",
    [
        (stream.QuicStreamSender.on_data_delivery, ["self", "delivery", "start", "stop", "fin"]),
        (stream.QuicStreamSender.on_reset_delivery, ["self", "delivery"]),
        (stream.QuicStreamReceiver.on_stop_sending_delivery, ["self", "delivery"]),
        (stream.QuicStreamSender.__init__, ["self", "stream_id", "writable"]),
        (stream.QuicStreamSender.get_frame, ["self", "max_size", "max_offset"]),
        (stream.QuicStreamSender.write, ["self", "data", "end_stream"]),
        (stream.QuicStreamReceiver.__init__, ["self", "stream_id", "readable"]),
    ],
)
def test_overridden_methods_of_halves_take_what_they_took(
    method: Callable[..., object], parameters: list[str]
) -> None:
    assert list(inspect.signature(method).parameters) == parameters


def test_a_stream_has_the_parts_that_are_used() -> None:
    one = stream.QuicStream(stream_id=0)
    for name in (
        *("_buffer_start", "_buffer_stop", "_reset_error_code", "is_finished"),
        *("_pending", "buffer_is_empty", "reset_pending", "next_offset", "highest_offset"),
        *("_acked", "_acked_fin", "_buffer_fin", "_pending_eof"),
    ):
        assert hasattr(one.sender, name), name
    for name in ("highest_offset", "is_finished", "stop_pending"):
        assert hasattr(one.receiver, name), name
    assert hasattr(one, "max_stream_data_local")
    assert hasattr(one, "max_stream_data_local_sent")
    assert hasattr(one, "max_stream_data_remote")


def test_nobody_else_looks_into_a_sending_half() -> None:
    # What it keeps the bytes in is ours to replace.
    source = inspect.getsource(connection)
    for name in ("_buffer", "_pending", "_acked"):
        assert f"sender.{name}" not in source


def test_after_the_handshake_tls_is_used_for_these_only() -> None:
    source = inspect.getsource(connection)
    assert source.count("self.tls.handle_message(") == 2  # a client begins; CRYPTO frames
    after = source.split("def _handle_crypto_frame")[1].split("    def ")[0]
    assert "if not self._handshake_complete and self.tls.state in [" in after
    # CRYPTO frames; the anti-deadlock rule; what TLS wrote; packets of either kind.
    assert source.count("self._crypto_streams[") == 5
    assert "self._spaces[epoch].discarded = True" in source


def test_a_limit_has_the_parts_that_are_used() -> None:
    limit = _connection()._local_max_data
    for name in ("frame_type", "sent", "used", "value"):
        assert hasattr(limit, name), name


def test_an_idle_timeout_is_recognised_by_these_words() -> None:
    assert 'reason_phrase="Idle timeout"' in inspect.getsource(connection)


def test_recovery_has_the_parts_that_are_replaced() -> None:
    loss = _connection()._loss
    for name in ("_cc", "_pacer", "_rtt_smoothed", "_rtt_initialized"):
        assert hasattr(loss, name), name
    source = inspect.getsource(recovery)
    assert source.count("self._pacer") == 3  # made, and given the rate twice
    assert source.count("self._pacer.update_rate(") == 2
