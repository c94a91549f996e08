"""The TURN door over real sockets."""
