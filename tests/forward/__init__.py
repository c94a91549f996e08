"""The forwarder of the rendezvous door."""
