"""Limits of the control actors: what each protects, and what happens at the limit.

Sources: protocol sheet ORP 4.4 (cache, audit queue), 6.2 R19 to R24; the rest is ours.
"""

from __future__ import annotations

from typing import Final

# Registry.

#: Agents one registry knows; a further HELLO is refused with `limit`. Doors bound theirs lower.
MAX_AGENTS: Final = 1_000_000
#: Services of one agent; a further REGISTER is refused with `limit`.
MAX_SERVICES_PER_AGENT: Final = 100_000
#: Characters of a service name; a longer one is refused with `bad_name`.
MAX_SERVICE_NAME: Final = 255
#: Stream ids bound to a pair; a further claim is answered False.
MAX_CLAIMS: Final = 2_000_000
#: Requests of doors waiting for the store or the grace, per actor; a further one is refused.
MAX_WAITING: Final = 65_536
#: Services whose remote providers are remembered; the oldest is forgotten.
MAX_REMOTE_CACHE: Final = 65_536
#: Withdrawals the store could not take yet; the oldest is forgotten (the next start purges it).
MAX_WITHDRAWALS: Final = 65_536
#: Names looked up, or services written, with one request to the backend.
BATCH: Final = 256
#: Seconds a restarted registry waits for the connected agents before it says "not found".
GRACE_SECONDS: Final = 1.0
#: Seconds a fast reconnect keeps the services of the older connection alive.
CARRY_SECONDS: Final = 5.0
#: Seconds remote providers are served without asking the backend again.
REMOTE_FRESH_SECONDS: Final = 1.0
#: Seconds remote providers are served while the backend fails (R21).
REMOTE_STALE_SECONDS: Final = 300.0
#: Seconds a resolve of which nothing is known waits for a failing backend, then "unavailable".
LOOKUP_PATIENCE_SECONDS: Final = 1.0
#: Seconds between two heartbeats of this relay (R19).
HEARTBEAT_SECONDS: Final = 30.0
#: Seconds after which a relay without heartbeat is not resolved any more (R19).
RELAY_ALIVE_SECONDS: Final = 120.0

# Policy.

#: Rules of all sources together; more are an error of the load, the last good ones stay.
MAX_RULES: Final = 100_000
#: Bytes of one rules file; a larger one is an error of the load.
MAX_RULES_FILE: Final = 16 * 1024 * 1024
#: Characters of a pattern, an id or a tenant in a rule.
MAX_PATTERN: Final = 1024
#: Seconds a cached decision lives at most; a rule's expiry ends it earlier (R24).
DECISION_CACHE_SECONDS: Final = 5.0
#: Cached decisions; at the bound the expired ones go first, then `DECISION_CACHE_PURGE` oldest.
DECISION_CACHE_SIZE: Final = 65_536
DECISION_CACHE_PURGE: Final = 8_192
#: Characters of target and method of a cached decision: a caller may invent as many as it likes.
DECISION_CACHE_TEXT: Final = 320
#: Operators' requests (add, remove, list, reload) waiting; a further one is refused.
MAX_OPERATOR_REQUESTS: Final = 256

# Audit.

#: Decisions held for the store by default; above it the newest is dropped and counted as lost.
AUDIT_QUEUE: Final = 1024
#: Decisions written with one request, and how long the first one waits for company.
AUDIT_BATCH: Final = 256
AUDIT_LINGER_SECONDS: Final = 0.05
#: Attempts to store one batch before it is counted as lost; pauses double from the base.
AUDIT_ATTEMPTS: Final = 6
AUDIT_PAUSE_SECONDS: Final = 0.1
AUDIT_PAUSE_CAP_SECONDS: Final = 2.0
#: Seconds the last batches get when the daemon stops.
AUDIT_FLUSH_SECONDS: Final = 3.0
#: Records one audit query returns at most.
MAX_AUDIT_ROWS: Final = 10_000

# Store.

#: Seconds the control actors wait for an answer of the store.
STORE_TIMEOUT_SECONDS: Final = 5.0
#: Seconds SQLite waits for another process's lock.
BUSY_TIMEOUT_SECONDS: Final = 2.0
#: Requests handed to the database thread and not answered; a further one is refused.
MAX_STORE_REQUESTS: Final = 4_096
#: Requests the database thread commits with one transaction.
GROUP_COMMIT: Final = 256
#: Actors told about changed rules.
MAX_WATCHERS: Final = 64

#: Records appended until it is looked whether some must go; they also go with every sweep.
PRUNE_AFTER_RECORDS: Final = 1_000
#: Seconds between two portions of records removed, and between two sweeps for what is too old.
PRUNE_PAUSE_SECONDS: Final = 0.02
SWEEP_SECONDS: Final = 3_600.0
#: Seconds after which agents, relays, services of vanished relays and expired rules are forgotten.
FORGET_SECONDS: Final = 30 * 86_400.0
#: Bytes the write-ahead log keeps on the disk once they were written back.
KEPT_LOG_BYTES: Final = 16 * 1024 * 1024

# Link to a remote controller.

#: Seconds an RPC may take; below what the control actors wait for their backend.
RPC_SECONDS: Final = 4.0
#: Seconds a lookup may take: a stream is waiting for it.
LOOKUP_RPC_SECONDS: Final = 2.0
#: Seconds after which a watch is begun anew, so that it has a deadline too.
WATCH_SECONDS: Final = 3600.0
#: Pauses before a watch that ended begins again: the first, and what it doubles up to.
WATCH_PAUSE_SECONDS: Final = 0.1
WATCH_PAUSE_CAP_SECONDS: Final = 5.0
#: Deadlines missed in a row after which the connection is taken for dead and dialled again.
MISSED_DEADLINES: Final = 2
#: RPCs of one batch that are on their way at the same time.
RPC_WIDTH: Final = 16
#: Requests of the control actors on their way; a further one is refused.
MAX_LINK_REQUESTS: Final = 4_096
#: Services remembered for when the controller is away; the one unused for longest is forgotten.
MAX_KNOWN_SERVICES: Final = 65_536
#: Bytes of one message from or to a controller (a list of rules is the longest).
MAX_CONTROLLER_MESSAGE: Final = 32 * 1024 * 1024
#: Seconds an operator's change of the rules waits until the watch has told it back.
RULE_ECHO_SECONDS: Final = 2.0
