"""The rendezvous protocol: a service asks a relay for a port, users come to that port.

Sans-IO. `handshake` is the relay's side of the first lines, `registration` the service's; `pool`
and `event` decide which connection of the service serves which user. Multiplexed services speak
yamux (`wire.yamux`) behind their line.

Source: protocol sheet rendezvous 1.
"""
