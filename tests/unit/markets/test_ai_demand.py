"""A pool's demand ahead: its habit by the hour, its present, and neither more than it can draw."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.markets.ai_demand import DemandSample, forecast_demand, remembered

pytestmark = pytest.mark.unit

DAY_S = 86_400.0
NOW = 20_000 * DAY_S
BUSY_AT_NIGHT = [DemandSample(NOW - 7 * DAY_S + q * 900.0, 3e6 if (q // 4) % 24 < 6 else 1e6) for q in range(7 * 96)]


def at(steps, hours):
    return [s.power_w for s in steps if s.starts_in_s <= hours * 3600.0][-1]


def test_habit_of_the_hour_is_expected_and_the_present_fades_into_it():
    steps = forecast_demand(BUSY_AT_NIGHT, 0.5e6, NOW)  # midnight, and it wants little today
    assert steps[0].power_w == 0.5e6
    assert 0.5e6 < at(steps, 1) < at(steps, 3) < 3e6
    assert at(steps, 12) == pytest.approx(1e6, rel=0.01) and at(steps, 27) == pytest.approx(3e6, rel=0.01)


def test_unknown_is_not_zero():
    assert forecast_demand((), None, NOW) == ()
    assert {s.power_w for s in forecast_demand((), 2e6, NOW)} == {2e6}
    assert forecast_demand(BUSY_AT_NIGHT, None, NOW)[0].power_w == 1e6  # the last quarter's, fifteen minutes old
    assert forecast_demand(BUSY_AT_NIGHT, None, NOW + 3600.0)[0].power_w == 3e6  # an hour old: the habit


def test_readings_of_a_quarter_are_averaged_and_old_ones_forgotten():
    history = remembered((), NOW, 1e6)
    history = remembered(history, NOW + 60.0, 2e6)
    history = remembered(history, NOW + 120.0, 6e6)
    assert history == (DemandSample(NOW, 3e6, 3),)
    assert remembered(history, NOW + 130.0, None) == history
    assert remembered(history, NOW + 20 * DAY_S, 1e6) == (DemandSample(NOW + 20 * DAY_S, 1e6),)


@given(st.lists(st.floats(0, 9e6), max_size=300), st.none() | st.floats(0, 9e6), st.floats(0, DAY_S))
def test_forecast_stays_within_what_was_ever_wanted_and_what_can_be_drawn(powers_w, present_w, offset_s):
    history = [DemandSample(NOW - (len(powers_w) - q) * 900.0, p) for q, p in enumerate(powers_w)]
    steps = forecast_demand(history, present_w, NOW + offset_s, most_w=5e6)
    known = [*powers_w, *([present_w] if present_w is not None else [])]
    for step in steps:
        assert min(5e6, min(known)) - 1 <= step.power_w <= min(5e6, max(known) + 1)
    assert [s.starts_in_s for s in steps] == sorted({s.starts_in_s for s in steps})
