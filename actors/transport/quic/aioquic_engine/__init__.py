"""The aioquic engine. Every private part of aioquic that it needs is used in this package only.

What is changed, and why (aioquic 1.7):

* client certificates are requested from every client, where the door asks for them; an absent one
  passes here and is refused by our verification (aioquic checks neither presence nor chain);
* credit follows consumption: aioquic doubles its limits on receipt, so a slow consumer would make
  the relay buffer without bound; here limits only move in `consume`;
* the loops over all streams, for every packet, visit only those that have something to say
  (`streams`);
* the congestion window grows only while it is used, and bursts are worth a system call
  (`congestion`);
* out-of-order pieces of a stream are limited in number, since each costs as much as there are;
* acknowledgements of packets that were not sent end the connection;
* larger datagrams are tried and used where the path and the peer take them (`datagram_size`);
* more concurrent streams than the library's 128 are advertised.

`tests/transport/test_aioquic_shape.py` fails when the library changes any part used here.
"""

from __future__ import annotations

from actors.transport.quic.aioquic_engine.engine import AioquicEngine, configuration

__all__ = ["AioquicEngine", "configuration"]
