"""Whatever arrives at the forward plane: counters move, allocations and their agents do not."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from actors.edge.forward.messages import Addresses
from actors.edge.forward.route_table import Route, RouteTable, runs_of_one_prefix
from actors.transport.udp import Address

ID, OTHER = 0xA1B2C3D4, 0x00000007
STRANGER: Address = ("192.0.2.1", 4000)

prefixes = st.sampled_from(
    [b"", b"\0", b"\0\0\0\0", ID.to_bytes(4, "big"), OTHER.to_bytes(4, "big")]
)
registrations = st.sampled_from([ID, OTHER, 0, 5]).map(lambda i: bytes(4) + i.to_bytes(4, "big"))
datagrams = st.one_of(
    st.tuples(prefixes, st.binary(max_size=24)).map(b"".join), registrations, st.binary(max_size=40)
)


class Taken:
    """A route that remembers what it was given, datagram by datagram."""

    def __init__(self, table: RouteTable, allocation_id: int) -> None:
        self.data: list[bytes] = []
        self.registered = 0
        self.route = Route(
            table,
            allocation_id,
            deliver=self._deliver,
            register=self._register,
            moved=lambda _: None,
            expect=lambda _: None,
            addresses=Addresses(),
            heard=[0.0, 0.0],
            partner=1,
            clock=lambda: 7.0,
        )

    def _deliver(self, buffer: memoryview, segment_size: int, source: Address) -> None:
        assert source == STRANGER
        for start in range(0, len(buffer), segment_size):
            self.data.append(bytes(buffer[start : start + segment_size]))

    def _register(self, source: Address) -> None:
        assert source == STRANGER
        self.registered += 1


def _run_of(parts: list[bytes], size: int, last: int) -> list[bytes]:
    """Datagrams of one size, the last possibly shorter, as UDP_GRO puts them together."""
    filled = [part.ljust(size, b"x")[:size] for part in parts]
    filled[-1] = filled[-1][: max(1, min(last, size))]
    return filled


@given(
    st.lists(datagrams, min_size=1, max_size=12),
    st.integers(1, 40),
    st.integers(1, 40),
    st.booleans(),
)
def test_a_run_does_what_its_datagrams_do_one_by_one(
    parts: list[bytes], size: int, last: int, invented: bool
) -> None:
    run = _run_of(parts, size, last)
    together, single = RouteTable(invented_ids=invented), RouteTable(invented_ids=invented)
    routes = [(Taken(table, ID), Taken(table, OTHER)) for table in (together, single)]
    together.receive(memoryview(b"".join(run)), size, STRANGER)
    for datagram in run:
        single.receive(memoryview(datagram), len(datagram) or 1, STRANGER)
    for one, other in zip(*routes, strict=True):
        assert one.data == other.data
        assert one.registered == other.registered
        assert all(
            datagram[:4] == one.route.allocation_id.to_bytes(4, "big") for datagram in one.data
        )
    del together.counters["mixed_runs"], single.counters["mixed_runs"]
    assert together.counters == single.counters
    assert set(together.routes) == {ID, OTHER}


@given(st.binary(max_size=200), st.integers(1, 80))
def test_any_bytes_are_taken_without_failure(data: bytes, size: int) -> None:
    table = RouteTable()
    taken = Taken(table, ID)
    table.receive(memoryview(data), size, STRANGER)
    assert all(datagram[:4] == ID.to_bytes(4, "big") for datagram in taken.data)


@given(st.lists(st.sampled_from([b"aaaa", b"bbbb", b"\0\0\0\0"]), min_size=1, max_size=20))
def test_cuts_cover_the_run_and_keep_its_order(heads: list[bytes]) -> None:
    run = b"".join(head + b"payload" for head in heads)
    cuts = runs_of_one_prefix(memoryview(run), 11)
    assert b"".join(run[start:end] for start, end in cuts) == run
    for start, end in cuts:
        assert len({run[at : at + 4] for at in range(start, end, 11)}) == 1


def test_an_aborted_route_does_not_take_out_its_successor() -> None:
    table = RouteTable()
    first = Taken(table, ID)
    second = Taken(table, ID)
    first.route.abort()
    table.receive(memoryview(ID.to_bytes(4, "big") + b"x"), 5, STRANGER)
    assert len(second.data) == 1
    second.route.abort()
    second.route.abort()
    assert table.routes == {}
