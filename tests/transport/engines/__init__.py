"""One suite for every QUIC engine, in memory: two engines, a virtual link, a virtual clock."""
