"""Records in parts: put together in order, bounded, refused when they contradict each other."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.uplink.session import _Cut
from controller.link import assembly
from controller.link.assembly import Assembly
from gridpivot.errors import BadReport
from gridpivot.link.lanes import Pending
from gridpivot.v1 import session_pb2 as wire

pytestmark = pytest.mark.unit


def parts_of(payload: bytes, piece_bytes: int, seq: int = 7) -> list[wire.LaneRecord]:
    cut = _Cut(Pending(3, seq, len(payload)), wire.LaneRecord(seq=seq, kind=3, payload=payload, thinned=True))
    pieces = [cut.next(piece_bytes)]
    while not cut.done:
        pieces.append(cut.next(10 * piece_bytes))  # the first piece decides
    return pieces


@given(st.binary(max_size=2_000), st.integers(1, 700))
def test_what_was_cut_comes_out_whole(payload: bytes, piece_bytes: int) -> None:
    pieces = parts_of(payload, piece_bytes)
    assert all(len(piece.payload) <= piece_bytes for piece in pieces)
    together = Assembly()
    *first, last = [together.add(3, piece) for piece in pieces]
    assert first == [None] * (len(pieces) - 1)
    assert last is not None
    assert (last.payload, last.seq, last.kind, last.thinned) == (payload, 7, 3, True)


def test_lanes_do_not_disturb_each_other() -> None:
    together, pieces = Assembly(), parts_of(b"x" * 100, 40)
    assert together.add(3, pieces[0]) is None
    whole = wire.LaneRecord(seq=1, payload=b"event")
    assert together.add(1, whole) == whole
    assert together.add(3, pieces[1]) is None
    assert together.add(3, pieces[2]).payload == b"x" * 100


@pytest.mark.parametrize("change", [{"part": 2}, {"seq": 8}, {"parts": 9}, {"part": 3}, {"parts": 100_000}])
def test_part_that_does_not_follow_is_refused(change: dict[str, int]) -> None:
    together, pieces = Assembly(), parts_of(b"x" * 100, 40)
    together.add(3, pieces[0])
    second = pieces[1]
    for name, value in change.items():
        setattr(second, name, value)
    with pytest.raises(BadReport):
        together.add(3, second)


def test_record_without_end_is_refused_before_it_fills_the_memory(monkeypatch) -> None:
    monkeypatch.setattr(assembly, "MOST_RECORD_BYTES", 1_000)
    together, taken = Assembly(), 0
    with pytest.raises(BadReport):
        for part in range(60_000):
            together.add(3, wire.LaneRecord(seq=1, payload=b"y" * 100, part=part, parts=65_000))
            taken += 1
    assert taken == 10
