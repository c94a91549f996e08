"""Hypothesis strategies: every message within its limits, and ways to cut a byte stream."""

from __future__ import annotations

from itertools import pairwise
from typing import Final

from hypothesis import strategies as st

from wire.orp import limits
from wire.orp.messages import (
    AllocGranted,
    Candidate,
    CandidateAnswer,
    CandidateOffer,
    ForwardStream,
    Goaway,
    Hello,
    HelloAck,
    IncomingStream,
    Message,
    MigrateToP2P,
    MigrateToRelay,
    ObservedAddrQuery,
    ObservedAddrResp,
    OpenStream,
    Ping,
    Pong,
    Register,
    RegisterAck,
    StreamAccept,
    StreamCheckpoint,
    StreamReady,
    StreamReject,
    StreamResume,
    StreamTerms,
)

uint32: Final = st.integers(0, 2**32 - 1)
uint64: Final = st.integers(0, 2**64 - 1)
int64: Final = st.integers(-(2**63), 2**63 - 1)
port: Final = st.integers(0, 65535)


def text(max_bytes: int, min_size: int = 0) -> st.SearchStrategy[str]:
    """Any text of at most `max_bytes` in UTF-8 (so without surrogates)."""
    characters = st.characters(codec="utf-8")
    short = st.text(characters, min_size=min_size, max_size=20)
    return short.filter(lambda value: len(value.encode()) <= max_bytes)


token: Final = text(limits.MAX_TOKEN_BYTES)
uri: Final = text(limits.MAX_URI_BYTES)
service: Final = text(limits.MAX_SERVICE_NAME_BYTES)
method: Final = text(limits.MAX_METHOD_BYTES)
ip: Final = text(limits.MAX_IP_BYTES)
reason: Final = text(limits.MAX_REASON_BYTES)
tokens: Final = st.lists(token, max_size=3).map(tuple)
endpoint: Final = text(limits.MAX_ENDPOINT_BYTES)
candidate: Final = st.builds(Candidate, token, ip, port, uint32)
candidates: Final = st.lists(candidate, max_size=3).map(tuple)

messages: Final[st.SearchStrategy[Message]] = st.one_of(
    st.builds(Hello, uri, token, tokens),
    st.builds(HelloAck, token, int64, tokens),
    st.builds(Register, text(limits.MAX_SERVICE_NAME_BYTES, min_size=1), endpoint),
    st.builds(RegisterAck, text(limits.MAX_SERVICE_ID_BYTES)),
    st.just(Ping()),
    st.just(Pong()),
    st.just(Goaway()),
    st.builds(StreamCheckpoint, uint64, uint64, uint64, st.booleans()),
    st.builds(ObservedAddrQuery, uint64),
    st.builds(ObservedAddrResp, uint64, ip, port),
    st.builds(CandidateOffer, uint64, candidates),
    st.builds(CandidateAnswer, uint64, candidates),
    st.builds(MigrateToP2P, uint64, uint64, uint64, st.none() | candidate),
    st.builds(
        AllocGranted,
        uint64,
        st.integers(1, 2**32 - 1),
        st.integers(1, 2**32 - 1),
        text(limits.MAX_ENDPOINT_BYTES, min_size=1),
        uri,
    ),
    st.builds(StreamReady, uint64, uri),
    st.builds(OpenStream, service, method, uint64),
    st.builds(IncomingStream, service, method, uri, uint64),
    st.builds(
        ForwardStream,
        service,
        method,
        uri,
        uint64,
        st.none() | st.builds(StreamTerms, uri, uri, service, method),
        st.lists(service, max_size=3).map(tuple),
    ),
    st.just(StreamAccept()),
    st.builds(StreamReject, uint32, reason),
    st.builds(
        StreamResume,
        uint64,
        uint64,
        uint64,
        st.none() | st.builds(StreamTerms, uri, uri, service, method),
    ),
    st.builds(MigrateToRelay, uint64, uint64, uint64, reason),
)

#: Arbitrary bytes, and bytes that look enough like frames to get past the header.
wild_bytes: Final[st.SearchStrategy[bytes]] = st.lists(
    st.one_of(
        st.binary(max_size=40),
        messages.map(lambda message: message.encode()),
        st.builds(
            lambda kind, size, payload: (
                (0x2000 | kind).to_bytes(2, "big") + b"\0\0" + size.to_bytes(4, "big") + payload
            ),
            st.integers(0, 0x7FF),
            st.sampled_from([0, 1, 5, 20, 4096, 65536, 65537, 2**24, 2**32 - 1]),
            st.binary(max_size=30),
        ),
    ),
    max_size=6,
).map(b"".join)


def cut(data: bytes, borders: list[int]) -> list[bytes]:
    """`data` in pieces, cut at `borders` (any order, any range)."""
    edges = [0, *sorted(border % (len(data) + 1) for border in borders), len(data)]
    return [data[begin:end] for begin, end in pairwise(edges)]


borders: Final = st.lists(st.integers(0, 2**16), max_size=8)
