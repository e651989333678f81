"""Presets at or below, and modes by watts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.asic.families.watts import at_or_below, mode_of_watts
from gridpivot.vocabulary import Mode

pytestmark = pytest.mark.unit
CURVE = {Mode.SLEEP: 30.0, Mode.LOW: 2100.0, Mode.NORMAL: 3500.0, Mode.TURBO: 4375.0}
presets = st.dictionaries(st.text(max_size=4), st.floats(0, 9000), max_size=8)


@given(presets, st.floats(0, 9000))
def test_chosen_preset_is_within_the_limit_and_none_within_is_higher(known: dict[str, float], limit_w: float) -> None:
    name = at_or_below(known, limit_w)
    within = [watts for watts in known.values() if watts <= limit_w]
    assert (name is None) == (not within)
    assert name is None or known[name] == max(within)


@pytest.mark.parametrize(
    ("set_w", "mode"),
    [
        (900, Mode.LOW),
        (2100, Mode.LOW),
        (2120, Mode.LOW),
        (2800, Mode.NORMAL),
        (3500, Mode.NORMAL),
        (3600, Mode.TURBO),
        (9000, Mode.TURBO),
    ],
)
def test_a_setting_stands_for_the_lowest_mode_that_covers_it(set_w: float, mode: Mode) -> None:
    assert mode_of_watts(set_w, CURVE) is mode


def test_without_a_setting_or_a_curve_the_mode_is_unknown() -> None:
    assert mode_of_watts(None, CURVE) is Mode.UNKNOWN
    assert mode_of_watts(2100.0, {}) is Mode.UNKNOWN
    assert mode_of_watts(2100.0, {Mode.SLEEP: 30.0}) is Mode.UNKNOWN
