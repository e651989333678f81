"""How far a lane is committed, against a plain set of numbers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridpivot.link.cursors import ALSO_MAX, LaneCursor

pytestmark = pytest.mark.unit

steps = st.lists(
    st.one_of(
        st.lists(st.integers(1, 60), max_size=8).map(lambda s: ("commit", s)),
        st.integers(1, 60).map(lambda n: ("let_go", n)),
    ),
    max_size=12,
)


@given(steps)
def test_cursor_agrees_with_a_set_of_numbers(story: list) -> None:
    cursor, known, lost = LaneCursor(), set(), 0
    for what, value in story:
        if what == "commit":
            cursor = cursor.after(value)
            known |= set(value)
        else:
            cursor, gone = cursor.let_go_below(value)
            missing = set(range(1, value)) - known
            assert gone == len(missing)
            lost += gone
            known |= missing
        assert {seq for seq in range(1, 70) if cursor.holds(seq)} == known
        assert cursor.through_seq + 1 not in known
        assert list(cursor.also_seqs) == sorted(cursor.also_seqs)
    assert lost <= 59


@given(st.lists(st.integers(1, 60), max_size=30))
def test_order_and_repetition_of_commits_do_not_matter(seqs: list[int]) -> None:
    one_by_one = LaneCursor()
    for seq in seqs:
        one_by_one = one_by_one.after([seq])
    assert one_by_one == LaneCursor().after(seqs) == LaneCursor().after([*reversed(seqs), *seqs])


def test_gap_that_never_closes_does_not_hold_the_lane_for_ever() -> None:
    cursor = LaneCursor()
    for seq in range(2, 2 * ALSO_MAX + 4, 2):
        cursor = cursor.after([seq], may_let_go=True)
    assert len(cursor.also_seqs) <= ALSO_MAX
    assert cursor.through_seq > 0
    assert cursor.holds(2 * ALSO_MAX + 2)


def test_backlog_that_still_waits_at_a_site_is_never_acknowledged_unsent() -> None:
    cursor = LaneCursor()
    for seq in range(1_000, 1_000 + 3 * ALSO_MAX):  # live records, while 1..999 wait at the site
        cursor = cursor.after([seq])
    assert cursor.through_seq == 0
    assert not cursor.holds(1)
    assert cursor.holds(1_000 + 3 * ALSO_MAX - 1)
