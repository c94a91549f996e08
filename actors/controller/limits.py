"""Limits of the served controller: what each protects, and what happens at the limit.

Sources: protocol sheet ORP 4.1; 6.2 R28, R29; the rest is ours.
"""

from __future__ import annotations

from typing import Final

#: Bytes of one message from a caller; a longer one is refused by gRPC with RESOURCE_EXHAUSTED.
MAX_REQUEST: Final = 4 * 1024 * 1024
#: RPCs of all connections under way, watches included; a further one gets RESOURCE_EXHAUSTED.
MAX_RPCS: Final = 4_096
#: RPCs of one connection under way (HTTP/2 streams); a further one waits at the caller.
MAX_RPCS_PER_CONNECTION: Final = 256
#: RPCs of one caller under way, whatever connections it has; a further one gets RESOURCE_EXHAUSTED.
#: A relay of ours has one connection.
MAX_RPCS_PER_CALLER: Final = 256
#: Calls of one caller per second, after so many at once; a further one waits for its turn.
CALLS_PER_SECOND: Final = 1_000.0
CALLS_AT_ONCE: Final = 2_000
#: Connections; for a further one the oldest gives way that never made a call it may make.
MAX_CONNECTIONS: Final = 1_024
#: Of one source (see `transport.gate`); a further one is closed.
MAX_CONNECTIONS_PER_SOURCE: Final = 256
#: Seconds from an accepted connection to its first call; then it is closed.
PROVE_SECONDS: Final = 15.0
#: Seconds from an accepted connection to the end of its TLS and HTTP/2 handshakes.
HANDSHAKE_SECONDS: Final = 5.0
#: Watches of all connections; a further one gets RESOURCE_EXHAUSTED.
MAX_WATCHES: Final = 1_024
#: Changes waiting for one watcher; one more ends its watch, and it begins anew (ABORTED).
WATCH_QUEUE: Final = 1_024
#: Seconds one message of a watch may take to leave; a slower reader loses its watch.
WATCH_WRITE_SECONDS: Final = 30.0
#: Names one Registry.Watch may ask for.
MAX_WATCHED_NAMES: Final = 1_024
#: Seconds a unary call may take here, whatever deadline its caller set.
CALL_SECONDS: Final = 10.0
#: Characters of an identity, an id, an address or a name in a request.
MAX_TEXT: Final = 1_024
#: Characters of a relay's id, region and endpoint: they are repeated in every answer.
MAX_RELAY_TEXT: Final = 255
#: Audit events of one batch.
MAX_BATCH: Final = 1_024
#: Seconds between two HTTP/2 pings to a caller, and for its answer: a dead one is let go.
KEEPALIVE_SECONDS: Final = 30.0
KEEPALIVE_TIMEOUT_SECONDS: Final = 10.0
#: Seconds a caller has to wait between two pings of its own on a quiet connection.
MIN_PING_SECONDS: Final = 10.0
#: Seconds unary calls get to end when the daemon stops.
STOP_SECONDS: Final = 2.0
#: Seconds between two looks for relays that stopped; it is a quarter of their time to live.
SWEEPS_PER_LIFE: Final = 4
