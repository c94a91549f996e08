"""TURN without I/O: `dispatcher` answers requests, `allocation` is one client's relayed address.

Sockets, randomness and both clocks are arguments. Data does not pass the dispatcher: `allocation`
says where it goes.

Source: RFC 8656, RFC 8016; protocol sheet TURN 3.
"""
