"""How long deferrable work has waited: first in, first done; nobody's silence makes it younger."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.markets.ai_backlog import Piece, due, waited

pytestmark = pytest.mark.unit

DAY_S = 86_400.0


def test_the_oldest_is_done_first_and_what_comes_is_young() -> None:
    pieces = waited((), 100.0, 0.0, DAY_S)
    pieces = waited(pieces, 150.0, 7_200.0, DAY_S)
    assert pieces == (Piece(0.0, 100.0), Piece(7_200.0, 50.0))
    assert waited(pieces, 30.0, 9_000.0, DAY_S) == (Piece(7_200.0, 30.0),)
    assert waited(pieces, 150.0, 9_000.0, DAY_S) == pieces
    assert waited(pieces, 0.0, 9_000.0, DAY_S) == ()


def test_what_comes_in_the_same_quarter_is_one_piece() -> None:
    assert waited((Piece(0.0, 100.0),), 110.0, 600.0, DAY_S) == (Piece(0.0, 110.0),)


def test_first_look_finds_work_of_half_its_time_and_silence_changes_nothing() -> None:
    assert waited(None, 80.0, DAY_S, DAY_S) == (Piece(DAY_S / 2, 80.0),)
    assert waited(None, None, DAY_S, DAY_S) is None
    for nonsense in (None, float("nan"), -1.0):
        assert waited((Piece(0.0, 80.0),), nonsense, DAY_S, DAY_S) == (Piece(0.0, 80.0),)


def test_late_work_is_due_in_the_past_and_time_is_compressed() -> None:
    pieces = (Piece(-2 * DAY_S, 5.0), Piece(0.0, 7.0))
    assert [(d.due_in_s, d.gpu_h) for d in due(pieces, DAY_S, 0.0, 24.0)] == [(-3600.0, 5.0), (3600.0, 7.0)]


@given(st.lists(st.none() | st.floats(0.0, 1e6), max_size=20))
def test_pieces_make_up_what_waits_whatever_was_told(told: list[float | None]) -> None:
    pieces, last = None, None
    for look, gpu_h in enumerate(told):
        pieces, last = waited(pieces, gpu_h, 600.0 * look, DAY_S), last if gpu_h is None else gpu_h
    if last is not None:
        assert pieces is not None
        assert sum(p.gpu_h for p in pieces) == pytest.approx(last, rel=1e-6, abs=1e-6)
        assert all(p.gpu_h > 0.0 for p in pieces)
        assert [p.came_unix_s for p in pieces] == sorted(p.came_unix_s for p in pieces)
