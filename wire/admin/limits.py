"""Every limit of the control protocol: what it protects, and what happens at it."""

from __future__ import annotations

VERSION = 1

#: Bytes of one line without its newline. A longer one ends the connection (`too_large`): its end
#: cannot be found without reading it all.
MAX_LINE_BYTES = 1024 * 1024
#: Rows in one part: the work between two turns of the event loop. More rows make more parts.
MAX_PART_ROWS = 200
#: Rows in one `children` page; a larger `limit` is refused.
MAX_PAGE_ROWS = 500
#: Rows in one snapshot of `watch`; a larger `max_rows` is refused.
MAX_WATCH_ROWS = 500
#: Expanded places in one `watch`; more are refused.
MAX_OPEN_PATHS = 200
#: Seconds between two snapshots of `watch`, at least.
MIN_WATCH_INTERVAL = 0.5
MAX_WATCH_INTERVAL = 3600.0
#: Requests in flight on one connection; one more is answered `busy`.
MAX_IN_FLIGHT = 32
#: The same on the link between two processes of one node, which carries many clients' requests.
MAX_IN_FLIGHT_LINK = 512
#: Connections of one control socket; one more is answered `busy` and closed.
MAX_CLIENTS = 16
#: Past events one `events` request may replay; the node keeps no more.
MAX_REPLAY = 2048
#: Records, records per second and seconds one `trace` may ask for.
MAX_TRACE_RECORDS = 100_000
MAX_TRACE_RATE = 10_000
MAX_TRACE_SECONDS = 3600.0
#: Largest window a request may name.
MAX_WINDOW = 1024

MAX_PATH_CHARACTERS = 4096
MAX_FILTER_CHARACTERS = 256
MAX_REASON_CHARACTERS = 256
MAX_OP_CHARACTERS = 64
#: Characters of an error message; longer ones are cut.
MAX_MESSAGE_CHARACTERS = 1000
#: Largest request id: what every JSON reader keeps exactly.
MAX_ID = 2**53 - 1
