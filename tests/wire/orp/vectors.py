"""Golden vectors of sheet section 2.4: the bytes other implementations put on the wire."""

from __future__ import annotations

from typing import Final

from wire.orp.messages import (
    AllocGranted,
    Candidate,
    CandidateOffer,
    ForwardStream,
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
)

AGENT: Final = "outrelay://acme/agent/00000000-0000-0000-0000-000000000002"
STREAM_ID: Final = 0x1122334455667788
SRFLX: Final = Candidate("srflx", "203.0.113.5", 30002, 20)

GOLDEN: Final[dict[str, tuple[Message, str]]] = {
    "HELLO": (
        Hello(AGENT),
        "20010000000000430a056f72702f31123a6f757472656c61793a2f2f61636d652f6167656e742f"
        "30303030303030302d303030302d303030302d303030302d303030303030303030303032",
    ),
    "HELLO_ACK": (HelloAck(), "2002000000000000"),
    "REGISTER": (
        Register("svc-echo", "127.0.0.1:8080"),
        "200300000000001a0a087376632d6563686f120e3132372e302e302e313a38303830",
    ),
    "REGISTER_ACK": (
        RegisterAck("acme/svc-echo"),
        "200400000000000f0a0d61636d652f7376632d6563686f",
    ),
    "OPEN_STREAM": (
        OpenStream("svc-echo", stream_id=STREAM_ID),
        "20100000000000140a087376632d6563686f1888ef99abc5e88c9111",
    ),
    "STREAM_ACCEPT": (StreamAccept(), "2012000000000000"),
    "STREAM_REJECT": (
        StreamReject(404, "service not found"),
        "2013000000000016089403121173657276696365206e6f7420666f756e64",
    ),
    "STREAM_READY": (StreamReady(STREAM_ID), "215200000000000a0888ef99abc5e88c9111"),
    "ALLOC_GRANTED": (
        AllocGranted(STREAM_ID, 1, 2, "198.51.100.7:9443"),
        "21510000000000210888ef99abc5e88c91111001180222113139382e35312e3130302e373a39343433",
    ),
    "STREAM_RESUME": (
        StreamResume(STREAM_ID, 100, 50),
        "211100000000000e0888ef99abc5e88c911110641832",
    ),
    "STREAM_CHECKPOINT": (
        StreamCheckpoint(STREAM_ID, 4096, 1024),
        "21100000000000100888ef99abc5e88c9111108020188008",
    ),
    "OBSERVED_ADDR_QUERY": (ObservedAddrQuery(42), "2120000000000002082a"),
    "OBSERVED_ADDR_RESP": (
        ObservedAddrResp(42, "203.0.113.5", 30002),
        "2121000000000013082a120b3230332e302e3131332e3518b2ea01",
    ),
    "CANDIDATE_OFFER": (
        CandidateOffer(STREAM_ID, (SRFLX,)),
        "21220000000000260888ef99abc5e88c9111121a0a057372666c78120b3230332e302e3131332e35"
        "18b2ea012014",
    ),
    "PING": (Ping(), "2020000000000000"),
    "PONG": (Pong(), "2021000000000000"),
    "INCOMING_STREAM": (
        IncomingStream("svc-echo", source_agent_uri=AGENT, stream_id=STREAM_ID),
        "20110000000000500a087376632d6563686f1a3a6f757472656c61793a2f2f61636d652f6167656e742f"
        "30303030303030302d303030302d303030302d303030302d3030303030303030303030322088ef99abc5"
        "e88c9111",
    ),
    "FORWARD_STREAM": (
        ForwardStream("svc-echo", source_agent_uri=AGENT),
        "21400000000000460a087376632d6563686f1a3a6f757472656c61793a2f2f61636d652f6167656e742f"
        "30303030303030302d303030302d303030302d303030302d303030303030303030303032",
    ),
    "MIGRATE_TO_P2P": (
        MigrateToP2P(STREAM_ID, selected=SRFLX),
        "21240000000000260888ef99abc5e88c9111221a0a057372666c78120b3230332e302e3131332e35"
        "18b2ea012014",
    ),
    "MIGRATE_TO_RELAY": (
        MigrateToRelay(STREAM_ID, 100, 80, "rtt_timeout"),
        "212500000000001b0888ef99abc5e88c911110641850220b7274745f74696d656f7574",
    ),
}
