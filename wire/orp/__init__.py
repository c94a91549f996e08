"""The OutRelay protocol, version orp/1: frames, messages, identities, ctrl-stream sessions.

Reading order: frame.py, messages.py, control_session.py (relay side), agent_session.py.
"""
