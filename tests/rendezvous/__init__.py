"""The rendezvous door over real sockets: what services and users see."""
