"""Our session says what the reference was recorded to say, but where the sheet wants it otherwise.

Everywhere DATA may be cut as one likes, a PING of ours may follow a stream, and a GO_AWAY may come
before the end. `DIFFERENT` has the rest.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.wire.yamux.frame_vectors import FRAMES
from tests.wire.yamux.peer import ACK, DATA, GO_AWAY, INITIAL, PING, SYN, WINDOW, Frame, frames_of
from tests.wire.yamux.session_vectors import SESSIONS
from wire.yamux.events import DataReceived, Event, FinReceived, StreamOpened
from wire.yamux.frame import FrameType, header
from wire.yamux.limits import Limits
from wire.yamux.session import Session

KINDS = {"DATA": DATA, "WINDOW": WINDOW, "PING": PING}
FLAGS = {"-": 0, "SYN": 1, "ACK": 2, "FIN": 4, "RST": 8}

#: By recording, what ours says instead; and why.
DIFFERENT: dict[str, tuple[str, ...]] = {
    # It acknowledges a stream although the FIN came first: nobody counts it for ever (2.4 row 29).
    "open_data_fin": ("> WINDOW ACK 1 0",),
    "open_data_fin_echo": ("> WINDOW ACK 1 0", "> DATA - 1 3 616263", "> WINDOW FIN 1 0"),
    "open_separate_fin_echo": ("> WINDOW ACK 1 0", "> DATA - 1 3 616263", "> WINDOW FIN 1 0"),
    "bytewise": ("> WINDOW ACK 1 0", "> DATA - 1 3 616263", "> WINDOW FIN 1 0"),
    "id_reuse_after_end": ("> WINDOW ACK 1 0", "> WINDOW FIN 1 0", "> WINDOW ACK 1 0"),
    # Nobody legal does this (2.4 rows 20, 21).
    "syn_id_0": ("end",),
    "credit_overflow": ("end",),
    # Credit for what was read goes with the ACK; so it did in the reference of 2016.
    "open_on_data": ("> WINDOW ACK 1 3",),
    # One update for all that was read.
    "window_exact": ("> WINDOW ACK 1 0", "> WINDOW - 1 262144"),
    # We keep no time for the peer's FIN; nor did the reference in 2016.
    "close_timeout": ("> WINDOW ACK 1 0", "> WINDOW FIN 1 0", "> PING ACK 0 1"),
    # As many answers are owed as are kept.
    "ping_100": tuple(f"> PING ACK 0 {n}" for n in range(64)),
}


def spoken(step: str) -> Frame:
    kind, flags, stream_id, length, *payload = step.removeprefix("> ").split()
    bits = sum(FLAGS[flag] for flag in flags.split("|"))
    data = bytes.fromhex(payload[0]) if payload else b""
    if kind == "GO_AWAY":
        return Frame(GO_AWAY, bits, int(stream_id), int(length))
    return Frame(KINDS[kind], bits, int(stream_id), int(length), data)


def heard(step: str) -> bytes:
    data, _, zeros = step.removeprefix("< ").partition(" +")
    return bytes.fromhex(data) + bytes(int(zeros or 0))


class Owner:
    """The applications of the recordings, on a session of ours."""

    def __init__(self, role: str, application: str, limits: Limits) -> None:
        self.now = 0.0
        self.session = Session(client=role == "client", now=0.0, limits=limits)
        self.application = application
        self.held: dict[int, bytes] = {}

    def hear(self, data: bytes) -> None:
        events = self.session.receive(data, self.now)
        while self.session.more:
            events += self.session.receive(b"", self.now)
        for event in events:
            self._act(event)

    def _act(self, event: Event) -> None:
        session, application = self.session, self.application
        if isinstance(event, StreamOpened) and application != "noaccept":
            session.accept(event.stream_id)
            if application == "source":
                session.write(event.stream_id, bytes(1 << 20))
            if application in ("source", "closeread"):
                session.finish(event.stream_id)
        elif isinstance(event, DataReceived):
            if application not in ("hold", "noaccept"):
                session.consume(event.stream_id, len(event.data))
            if application == "echo":
                session.write(event.stream_id, event.data)
        elif isinstance(event, FinReceived) and application == "echo":
            session.finish(event.stream_id)

    def say(self, *, pings: bool) -> list[Frame]:
        """What it sends now."""
        buffers, _ = self.session.data_to_send(1 << 30, self.now)
        frames, rest = frames_of(b"".join(buffers))
        assert rest == b""
        return [
            frame
            for frame in frames
            if (pings or (frame.kind, frame.flags) != (PING, SYN))
            and (frame.kind != GO_AWAY or not self.session.dead)
        ]


def joined(frames: list[Frame]) -> list[Frame]:
    """DATA of one stream as one frame."""
    out: list[Frame] = []
    for frame in frames:
        last = out[-1] if out else None
        if frame.kind == DATA and last is not None and last.kind == DATA:
            assert frame.stream_id == last.stream_id
            length, payload = last.length + frame.length, last.payload + frame.payload
            out[-1] = Frame(DATA, 0, frame.stream_id, length, payload)
        else:
            out.append(frame)
    return out


@pytest.mark.parametrize("name", SESSIONS)
def test_a_session_answers_as_recorded(name: str) -> None:
    recording = SESSIONS[name]
    keepalive = name == "keepalive"
    owner = Owner(
        recording.role,
        recording.application,
        Limits(window=INITIAL, keepalive=0.3 if keepalive else 0.0, ping_timeout=1.0),
    )
    wanted = [step for step in recording.steps if step[0] in ">e"]
    said: list[Frame] = []
    spoken_before = 0
    for step in recording.steps:
        if step.startswith("< "):
            owner.hear(heard(step))
        elif step == "! open":
            owner.session.open()
        elif step == "! goaway":
            owner.session.go_away()
        elif step == "! close":
            owner.session.close(0)
        elif step == "quiet":
            owner.now += 0.3
        if keepalive and (until := owner.session.next_timer()) is not None:
            owner.now = until
            owner.session.handle_timer(owner.now)
        said += owner.say(pings=keepalive)
        if step == "quiet" and name not in DIFFERENT:
            assert len(said) == spoken_before
        spoken_before = len(said)
    if name in DIFFERENT:
        wanted = list(DIFFERENT[name])
    assert owner.session.dead == ("end" in wanted)
    if recording.application == "source":  # what it writes is its own affair
        said = [replace(frame, payload=b"") for frame in said]
    assert joined(said) == joined([spoken(step) for step in wanted if step != "end"])


@pytest.mark.parametrize("name", FRAMES)
def test_a_frame_is_written_and_judged_as_recorded(name: str) -> None:
    vector = FRAMES[name]
    data = bytes.fromhex(vector.data)
    if vector.version == 0 and vector.kind in list(FrameType):
        kind = FrameType(vector.kind)
        assert header(kind, vector.flags, vector.stream_id, vector.length) == data[:12]
    session = Session(client=False, now=0.0)
    if "session ends" not in name and vector.length > 1 << 30 and vector.kind in (DATA, WINDOW):
        # What is said about credit is about a stream.
        session.receive(Frame(WINDOW, SYN, vector.stream_id).encode(), 0.0)
    session.receive(data, 0.0)
    # Nobody legal does these two, and the reference lets them pass (2.4 rows 20, 21).
    survived = vector.survived and name not in ("id 0", "credit beyond 2^32-1")
    assert session.dead != survived
    if not session.dead and vector.kind == PING and vector.flags & SYN:
        buffers, _ = session.data_to_send(0, 0.0)
        assert frames_of(b"".join(buffers))[0] == [Frame(PING, ACK, 0, vector.length)]
