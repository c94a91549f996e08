"""Conversations with hashicorp/yamux (revision e14d7fe), recorded on loopback: facts only."""

from __future__ import annotations

from typing import Final, NamedTuple


class Recording(NamedTuple):
    """A conversation of a raw peer with a session of the reference.

    Steps: `<` bytes to the session in hex, `+N` zeros; `>` frames of the session as kind, flags,
    stream and length, and hex where payload matters; `!` what its owner was told to do; `quiet`:
    it says nothing; `end`: it ends the connection.

    The application of the session: sink accepts and reads; hold accepts and never reads; echo
    answers and closes on EOF; source writes 1 MiB and closes; closeread closes, then reads;
    noaccept never accepts.
    """

    role: str
    application: str
    steps: tuple[str, ...]


SESSIONS: Final[dict[str, Recording]] = {
    "open": Recording("server", "sink", ("< 000100010000000100000000", "> WINDOW ACK 1 0")),
    "open_on_data": Recording(
        "server", "sink", ("< 000000010000000100000003616263", "> WINDOW ACK 1 0")
    ),
    "open_with_window": Recording(
        "server",
        "source",
        (
            "< 000100010000000100100000",
            "> WINDOW ACK 1 0",
            "> DATA - 1 1048576",
            "> WINDOW FIN 1 0",
        ),
    ),
    "open_data_fin": Recording("server", "sink", ("< 000000050000000100000003616263", "quiet")),
    "open_data_fin_echo": Recording(
        "server",
        "echo",
        ("< 000000050000000100000003616263", "> DATA - 1 3 616263", "> WINDOW FIN 1 0"),
    ),
    "open_separate_fin_echo": Recording(
        "server",
        "echo",
        (
            "< 000100010000000100000000000000000000000100000003616263000100040000000100000000",
            "> DATA - 1 3 616263",
            "> WINDOW FIN 1 0",
        ),
    ),
    "echo": Recording(
        "server",
        "echo",
        (
            "< 000100010000000100000000",
            "> WINDOW ACK 1 0",
            "< 00000000000000010000000568656c6c6f",
            "> DATA - 1 5 68656c6c6f",
            "< 000100040000000100000000",
            "> WINDOW FIN 1 0",
        ),
    ),
    "second_fin": Recording(
        "server",
        "sink",
        (
            "< 000100010000000100000000",
            "> WINDOW ACK 1 0",
            "< 000100040000000100000000",
            "quiet",
            "< 000100040000000100000000",
            "end",
        ),
    ),
    "second_fin_closed": Recording(
        "server",
        "echo",
        (
            "< 000100010000000100000000",
            "> WINDOW ACK 1 0",
            "< 000100040000000100000000",
            "> WINDOW FIN 1 0",
            "< 000100040000000100000000",
            "quiet",
            "< 000200010000000000000005",
            "> PING ACK 0 5",
        ),
    ),
    "data_after_fin": Recording(
        "server",
        "sink",
        (
            "< 000100010000000100000000",
            "> WINDOW ACK 1 0",
            "< 000100040000000100000000000000000000000100000003616263",
            "quiet",
            "< 000200010000000000000005",
            "> PING ACK 0 5",
        ),
    ),
    "empty_data_after_fin": Recording(
        "server",
        "sink",
        (
            "< 000100010000000100000000",
            "> WINDOW ACK 1 0",
            "< 000100040000000100000000000000000000000100000000",
            "quiet",
            "< 000200010000000000000005",
            "> PING ACK 0 5",
        ),
    ),
    "window_after_fin": Recording(
        "server",
        "sink",
        (
            "< 000100010000000100000000",
            "> WINDOW ACK 1 0",
            "< 000100040000000100000000000100000000000100000064",
            "quiet",
            "< 000200010000000000000005",
            "> PING ACK 0 5",
        ),
    ),
    "fin_then_rst": Recording(
        "server",
        "sink",
        (
            "< 000100010000000100000000",
            "> WINDOW ACK 1 0",
            "< 000100040000000100000000000100080000000100000000",
            "quiet",
            "< 000200010000000000000005",
            "> PING ACK 0 5",
        ),
    ),
    "rst_then_fin": Recording(
        "server",
        "sink",
        (
            "< 000100010000000100000000",
            "> WINDOW ACK 1 0",
            "< 000100080000000100000000000100040000000100000000",
            "quiet",
            "< 000200010000000000000005",
            "> PING ACK 0 5",
        ),
    ),
    "rst_on_data": Recording(
        "server",
        "sink",
        (
            "< 000100010000000100000000",
            "> WINDOW ACK 1 0",
            "< 000000080000000100000003616263",
            "quiet",
            "< 000200010000000000000005",
            "> PING ACK 0 5",
        ),
    ),
    "syn_rst": Recording(
        "server",
        "sink",
        ("< 000100090000000100000000", "quiet", "< 000100010000000100000000", "> WINDOW ACK 1 0"),
    ),
    "syn_fin_rst": Recording(
        "server",
        "sink",
        ("< 0001000d0000000100000000", "quiet", "< 000200010000000000000005", "> PING ACK 0 5"),
    ),
    "all_flags": Recording(
        "server",
        "sink",
        ("< 0001000f0000000100000000", "quiet", "< 000200010000000000000005", "> PING ACK 0 5"),
    ),
    "duplicate_syn": Recording(
        "server",
        "sink",
        ("< 000100010000000100000000", "> WINDOW ACK 1 0", "< 000100010000000100000000", "end"),
    ),
    "syn_id_0": Recording("server", "sink", ("< 000100010000000000000000", "> WINDOW ACK 0 0")),
    "syn_even_id": Recording("server", "sink", ("< 000100010000000200000000", "> WINDOW ACK 2 0")),
    "syn_max_id": Recording(
        "server", "sink", ("< 00010001ffffffff00000000", "> WINDOW ACK 4294967295 0")
    ),
    "id_reuse_after_end": Recording(
        "server",
        "echo",
        (
            "< 000000050000000100000000",
            "> WINDOW FIN 1 0",
            "< 000100010000000100000000",
            "> WINDOW ACK 1 0",
        ),
    ),
    "id_reuse_after_rst": Recording(
        "server",
        "sink",
        (
            "< 000100010000000100000000",
            "> WINDOW ACK 1 0",
            "< 000100080000000100000000000100010000000100000000",
            "> WINDOW ACK 1 0",
        ),
    ),
    "id_order": Recording(
        "server",
        "sink",
        (
            "< 000100010000000900000000",
            "> WINDOW ACK 9 0",
            "< 000100010000000300000000",
            "> WINDOW ACK 3 0",
        ),
    ),
    "unknown_stream": Recording(
        "server",
        "sink",
        (
            "< 000000000000000900000003616263000100000000000900000003000100040000000900"
            "000000000100080000000900000000000100020000000900000000000200010000000000"
            "000005",
            "> PING ACK 0 5",
        ),
    ),
    "unknown_stream_large": Recording(
        "server",
        "sink",
        ("< 000000000000000900100000 +1048576", "< 000200010000000000000005", "> PING ACK 0 5"),
    ),
    "unknown_flags": Recording(
        "server", "sink", ("< 0001ff010000000100000000", "> WINDOW ACK 1 0")
    ),
    "ack_unasked": Recording(
        "server",
        "sink",
        (
            "< 000100010000000100000000",
            "> WINDOW ACK 1 0",
            "< 000100020000000100000000",
            "quiet",
            "< 000200010000000000000005",
            "> PING ACK 0 5",
        ),
    ),
    "bad_version": Recording("server", "sink", ("< 010100010000000100000000", "end")),
    "bad_type": Recording("server", "sink", ("< 000400000000000000000000", "end")),
    "bad_type_255": Recording("server", "sink", ("< 00ff00000000000000000000", "end")),
    "window_exact": Recording(
        "server",
        "sink",
        (
            "< 000100010000000100000000",
            "> WINDOW ACK 1 0",
            "< 000000000000000100040000 +262144",
            "> WINDOW - 1 131072",
            "> WINDOW - 1 131072",
        ),
    ),
    "window_exceeded": Recording(
        "server",
        "hold",
        (
            "< 000100010000000100000000",
            "> WINDOW ACK 1 0",
            "< 000000000000000100040001 +262145",
            "end",
        ),
    ),
    "window_exceeded_second": Recording(
        "server",
        "hold",
        (
            "< 000100010000000100000000",
            "> WINDOW ACK 1 0",
            "< 000000000000000100040000 +262144",
            "quiet",
            "< 00000000000000010000000178",
            "end",
        ),
    ),
    "window_exceeded_header": Recording(
        "server",
        "sink",
        ("< 000100010000000100000000", "> WINDOW ACK 1 0", "< 00000000000000017fffffff", "end"),
    ),
    "window_no_syn": Recording("server", "sink", ("< 000000010000000100040001 +262145", "end")),
    "window_updates": Recording(
        "server",
        "sink",
        (
            "< 000100010000000100000000",
            "> WINDOW ACK 1 0",
            *(
                ("< 000000000000000100004000 +16384", "quiet") * 7
                + ("< 000000000000000100004000 +16384", "> WINDOW - 1 131072")
            )
            * 3,
        ),
    ),
    "credit_overflow": Recording(
        "server", "source", ("< 0001000100000001ffffffff", "> WINDOW ACK 1 0", "> DATA - 1 262143")
    ),
    "credit_max": Recording(
        "server",
        "source",
        (
            "< 0001000100000001fffbffff",
            "> WINDOW ACK 1 0",
            "> DATA - 1 1048576",
            "> WINDOW FIN 1 0",
        ),
    ),
    "zero_credit_stop": Recording(
        "server",
        "source",
        (
            "< 000100010000000100000000",
            "> WINDOW ACK 1 0",
            "> DATA - 1 262144",
            "< 000100000000000100000001",
            "> DATA - 1 1",
        ),
    ),
    "rst_drops_data": Recording(
        "server",
        "hold",
        (
            "< 000100010000000100000000",
            "> WINDOW ACK 1 0",
            "< 00000000000000010000000568656c6c6f000100080000000100000000",
            "quiet",
            "< 000200010000000000000005",
            "> PING ACK 0 5",
        ),
    ),
    "ping": Recording("server", "sink", ("< 0002000100000000deadbeef", "> PING ACK 0 3735928559")),
    "ping_stream_id": Recording(
        "server", "sink", ("< 0002000100000007deadbeef", "> PING ACK 0 3735928559")
    ),
    "ping_no_flag": Recording(
        "server", "sink", ("< 000200000000000000000003000200010000000000000004", "> PING ACK 0 4")
    ),
    "ping_syn_ack": Recording("server", "sink", ("< 000200030000000000000009", "> PING ACK 0 9")),
    "pong_foreign": Recording(
        "server", "sink", ("< 000200020000000000003039000200010000000000000001", "> PING ACK 0 1")
    ),
    "ping_100": Recording(
        "server",
        "sink",
        (
            "< " + "".join(f"0002000100000000{n:08x}" for n in range(100)),
            *(f"> PING ACK 0 {n}" for n in range(100)),
        ),
    ),
    "goaway_0": Recording(
        "server",
        "sink",
        ("< 000300000000000000000000", "quiet", "< 000100010000000100000000", "> WINDOW ACK 1 0"),
    ),
    "goaway_0_open": Recording(
        "server", "sink", ("< 000300000000000000000000", "quiet", "! open", "quiet")
    ),
    "goaway_1": Recording("server", "sink", ("< 000300000000000000000001", "end")),
    "goaway_2": Recording("server", "sink", ("< 000300000000000000000002", "end")),
    "goaway_99": Recording("server", "sink", ("< 000300000000000000000063", "end")),
    "goaway_stream_id": Recording(
        "server", "sink", ("< 000300000000000700000000000200010000000000000001", "> PING ACK 0 1")
    ),
    "goaway_flags": Recording(
        "server", "sink", ("< 000300010000000000000000000200010000000000000001", "> PING ACK 0 1")
    ),
    "goaway_sent": Recording(
        "server",
        "sink",
        ("! goaway", "> GO_AWAY - 0 0", "< 000100010000000100000000", "> WINDOW RST 1 0"),
    ),
    "close": Recording("server", "sink", ("! close", "end")),
    "opened_refused": Recording(
        "server",
        "sink",
        (
            "! open",
            "> WINDOW SYN 2 0",
            "< 000100080000000200000000",
            "quiet",
            "< 000200010000000000000001",
            "> PING ACK 0 1",
        ),
    ),
    "opened_acked": Recording(
        "server",
        "sink",
        (
            "! open",
            "> WINDOW SYN 2 0",
            "< 000100020000000200100000",
            "quiet",
            "< 000200010000000000000001",
            "> PING ACK 0 1",
        ),
    ),
    "opened_ack_twice": Recording(
        "server",
        "sink",
        (
            "! open",
            "> WINDOW SYN 2 0",
            "< 000100020000000200000000000100020000000200000000",
            "quiet",
            "< 000200010000000000000001",
            "> PING ACK 0 1",
        ),
    ),
    "opened_client": Recording(
        "client", "sink", ("! open", "> WINDOW SYN 1 0", "! open", "> WINDOW SYN 3 0")
    ),
    "keepalive": Recording("server", "sink", ("> PING SYN 0 0", "end")),
    "half_header": Recording(
        "server", "sink", ("< 0001000100", "quiet", "< 00000100000000", "> WINDOW ACK 1 0")
    ),
    "bytewise": Recording(
        "server",
        "echo",
        (
            *(
                f"< {byte:02x}"
                for byte in bytes.fromhex(
                    "000100010000000100000000000000000000000100000003616263000100040000000100000000"
                )
            ),
            "> WINDOW ACK 1 0",
            "> DATA - 1 3 616263",
            "> WINDOW FIN 1 0",
        ),
    ),
    "partial_then_eof": Recording(
        "server",
        "sink",
        (
            "< 000100010000000100000000",
            "> WINDOW ACK 1 0",
            "< 00000000000000010000006468616c66",
            "quiet",
        ),
    ),
    "zero_length_data": Recording(
        "server",
        "sink",
        (
            "< 000100010000000100000000",
            "> WINDOW ACK 1 0",
            "< 000000000000000100000000",
            "quiet",
            "< 000200010000000000000001",
            "> PING ACK 0 1",
        ),
    ),
    "backlog": Recording(
        "server",
        "noaccept",
        (
            "< " + "".join(f"00010001{n:08x}00000000" for n in range(1, 600, 2)),
            *(f"> WINDOW RST {n} 0" for n in range(513, 600, 2)),
        ),
    ),
    "close_then_data": Recording(
        "server",
        "closeread",
        (
            "< 000100010000000100000000",
            "> WINDOW ACK 1 0",
            "> WINDOW FIN 1 0",
            "< 000000000000000100000003616263",
            "quiet",
            "< 000100040000000100000000",
            "quiet",
            "< 000200010000000000000001",
            "> PING ACK 0 1",
        ),
    ),
    "close_timeout": Recording(
        "server",
        "closeread",
        (
            "< 000100010000000100000000",
            "> WINDOW ACK 1 0",
            "> WINDOW FIN 1 0",
            "> WINDOW RST 1 0",
            "< 000200010000000000000001",
            "> PING ACK 0 1",
        ),
    ),
}
