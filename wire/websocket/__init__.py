"""WebSocket, the server's side, for protocols of short binary messages. Sans-IO.

`handshake` answers the HTTP request, `frames` reads what a client sends and writes what it gets. A
message is one frame: fragments are an error, and no extension is ever agreed upon.

Source: RFC 6455; protocol sheet peer 1.2.
"""
