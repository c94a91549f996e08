"""The native engine: qh3's compiled packet core under aioquic's TLS.

The core (`qh3._hazmat.QuicConnectionCore`) does packets, loss, congestion, streams and paths;
this package feeds it and turns its events into the seam's. Every private part of the two libraries
that it needs is used in this package only; `tests/transport/test_native_shape.py` fails when one of
them changes.

Flow control follows consumption, per stream and per connection:

* per stream it is ours (`flow`): the core believes in endless stream windows, the peer was
  told of finite ones, and packets of our own (`packets`) announce what consumption frees. A
  stalled reader stops its own writer after one `stream_window` and nobody else;
* per connection it is the core's, which grants credit as data is taken out of it; nothing is taken
  out once more than `connection_window` and a sixteenth of it is delivered and not consumed, until
  it is no more than `connection_window`. Then every stream of the connection waits, as flow control
  wants it, and so do RESET and STOP_SENDING. A connection holds at most two `connection_window`s,
  that sixteenth and one event (64 KiB);
* more than a stream's limit closes the connection with FLOW_CONTROL_ERROR;
* what is written waits in `send` until the core can send it.

What differs from the aioquic engine:

* `Drained` and `backlog` count bytes that were not sent for the first time yet, not bytes that were
  not acknowledged: the core does not tell per stream what was acknowledged. Bytes in flight are
  held by the core in addition, at most the congestion window and the peer's limits;
* a new address of the peer is used once it answered a PATH_CHALLENGE (see `challenge`), not at
  once; three changes of address per connection (see `paths`);
* connection ids after the first, and their stateless reset tokens, are the core's random ones;
* a server ignores what comes before an Initial packet with CRYPTO that opens (`first_flight`);
* a client's core searches for the path's datagram size; a server searches once, before its streams
  begin (`path_search`);
* keys are updated after `KEY_UPDATE_PACKETS`.
"""

from __future__ import annotations

from actors.transport.quic.native_engine.engine import NativeEngine
from actors.transport.quic.native_engine.without_id import NativeClientWithoutId

__all__ = ["NativeClientWithoutId", "NativeEngine"]
