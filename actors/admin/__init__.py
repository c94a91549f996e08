"""The control socket: the live tree for operators, and what they may do to it."""
