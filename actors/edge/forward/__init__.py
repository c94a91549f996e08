"""The forward plane: datagrams between two agents, addressed by allocation (sheet ORP 3.5)."""
