"""The rendezvous door: services register for a port, users come to it."""
