"""Limits of the ORP codec: value, unit, what each protects against, what happens at the limit.

Names end in their unit. The reference has only the 16 MiB frame limit (sheet 2.1); the tighter
ones are ours. Text limits count UTF-8 bytes. Exceeding a message limit is `MalformedMessage` when
received and `EncodeError` when sent.
"""

from __future__ import annotations

from typing import Final

KIB: Final = 1024

# ------------------------------------------------------------------------------------- framing

#: Largest payload the format allows (sheet 2.1, inclusive). No reader accepts more.
MAX_FRAME_PAYLOAD_BYTES: Final = 1 << 24

#: Ctrl stream. Bounds what one connection makes us buffer for an unfinished frame (sheet R14);
#: the largest message we know, a full candidate list, needs under 16 KiB. Above: `FrameTooLarge`,
#: raised from the 8 header bytes alone.
MAX_CTRL_PAYLOAD_BYTES: Final = 64 * KIB

#: First frame of a data stream. An agent may open ten thousand streams, each with an unfinished
#: first frame, so this one is smaller: 10 000 x 4 KiB = 40 MiB at worst. Above: `FrameTooLarge`.
MAX_FIRST_FRAME_PAYLOAD_BYTES: Final = 4 * KIB

# ---------------------------------------------------------------------------- message contents

#: Identity URI. The longest canonical form has 144 bytes; the rest is room for a query part,
#: which the grammar ignores but the byte-for-byte comparison keeps.
MAX_URI_BYTES: Final = 1024

#: Service name; it becomes a registry key, a log field and part of the service id.
MAX_SERVICE_NAME_BYTES: Final = 255

#: Service id: tenant (63) + "/" + service name, or whatever an external controller returns.
MAX_SERVICE_ID_BYTES: Final = 1024

#: Method; today's agents always send it empty. It is matched against policy patterns.
MAX_METHOD_BYTES: Final = 1024

#: "host:port" texts (local_addr, forward_endpoint): a DNS name has at most 253 bytes.
MAX_ENDPOINT_BYTES: Final = 261

#: One IP address as text: IPv6 has at most 45, the rest is room for a zone.
MAX_IP_BYTES: Final = 64

#: Reject and migration reasons; a backend's dial error text is the longest known user.
MAX_REASON_BYTES: Final = 1024

#: Short words: protocol version, session id, candidate kind, one capability or feature.
MAX_TOKEN_BYTES: Final = 128

#: Capabilities and features in one HELLO or HELLO_ACK.
MAX_TOKENS: Final = 64

#: Candidates in one offer or answer: each costs the receiver a punch datagram and up to 2 s of
#: dialling (sheet 3.9), so the list is what a relay lets one agent make another one do.
MAX_CANDIDATES: Final = 64

#: Services of one agent that a relay names to another: each is a decision of policy there, and
#: all fit, with the URIs, into a first frame.
MAX_PROVIDED: Final = 64
MAX_PROVIDED_BYTES: Final = 2 * KIB

# ------------------------------------------------------------------------------------ sessions

#: REGISTERs the relay has not answered yet. Each holds a registry call. Above: `TooManyRequests`.
#: Our agent keeps at most this many in flight and queues the rest.
MAX_UNANSWERED_REGISTERS: Final = 64

#: REGISTERs an agent session queues behind those in flight. A longer service list is an error of
#: our own configuration: `SessionMisuse`.
MAX_QUEUED_REGISTERS: Final = 4096

#: OBSERVED_ADDR_QUERYs an agent may have in flight. Above: `SessionMisuse`, our own bug.
MAX_UNANSWERED_QUERIES: Final = 8

#: Bytes queued by `send()` and not taken by `data_to_send()`. The owner takes them after each
#: call, so more is our own bug: `SessionMisuse`.
MAX_UNTAKEN_BYTES: Final = 1024 * KIB

#: Unsolicited frames a relay holds back while a REGISTER is unanswered (sheet 3.1: today's agents
#: take any other frame in that place for an error). Above, the frame is dropped and counted:
#: checkpoints and candidates are best effort, and a missed STREAM_READY costs the agent 10 s.
MAX_HELD_BYTES: Final = 64 * KIB

#: Connection start to complete HELLO; 10 000 silent connections last this long (sheet R9).
HELLO_TIMEOUT_SECONDS: Final = 10.0

#: First byte of a frame to its last byte. Without it a peer holds 64 KiB for ever by sending
#: one byte per idle period.
FRAME_TIMEOUT_SECONDS: Final = 30.0

#: Agent: HELLO sent to HELLO_ACK received.
HELLO_ACK_TIMEOUT_SECONDS: Final = 10.0

#: Agent: REGISTER sent to its REGISTER_ACK. A relay may wait 15 s for its controller (sheet 3.2)
#: and today's relay never answers a failed one.
REGISTER_ACK_TIMEOUT_SECONDS: Final = 20.0

#: Agent: OBSERVED_ADDR_QUERY to its answer (sheet 3.14). At the limit the query is given up and
#: the session lives on.
OBSERVED_ADDR_TIMEOUT_SECONDS: Final = 3.0
