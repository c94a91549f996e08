"""The PROXY protocol: who a connection is from, said in front of its bytes.

Sans-IO: `header` has the value and both written forms, `parser` reads them from any pieces.

Source: the PROXY protocol, versions 1 and 2 (HAProxy Technologies, 2020-03-05).
"""
