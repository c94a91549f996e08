"""STUN without I/O: messages, integrity, nonces.

`message` reads and builds, `attribute` names the numbers, `address` writes addresses, `integrity`
has keys and digests, `nonce` the challenges of the long-term credential mechanism.

Source: RFC 8489; protocol sheet TURN 3.1 to 3.3.
"""
