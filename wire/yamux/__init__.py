"""yamux: many streams over one reliable byte stream, without I/O.

Read `frame` for the format, `session` for the rules. Source: protocol sheet rendezvous, section 2.
"""
