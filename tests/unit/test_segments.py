"""The merit order: worked examples in $/MWh, who gives way to whom, and what must always hold."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gridpivot.curves import AiPool, MinerClass, ModePoint, gpu_pool, miner_class
from gridpivot.segments import Segment, class_hull, class_segments, machines_by_mode, merit_order, pool_segments
from gridpivot.vocabulary import AiPriority, Load, Mode

pytestmark = pytest.mark.unit

S21 = miner_class("s21", "virtual", "Antminer S21", shed_s=3, wake_s=120)
S19 = miner_class("s19", "virtual", "Antminer S19", shed_s=3, wake_s=120)


def test_segment_values_of_a_class_follow_from_its_curve_by_hand():
    # 48 $/PH/day is 2 $/PH/h. From sleep (30 W) to low (2,100 W, 144 TH/s): 2,070 W / 144 TH/s = 14.375 J/TH,
    # and a MWh feeds 1000 / 14.375 PH/s for an hour: 2 x 69.565 = 139.13 $. Low to normal: 1,400 W / 56 TH/s = 25 J/TH.
    values = [s.value_usd_per_mwh for s in class_segments(S21, 10, 48.0, 0.0, 0.0)]
    assert values == pytest.approx([2000 / 14.375, 2000 / 25.0, 2000 / (875 / 34)])
    assert [s.width_w for s in class_segments(S21, 10, 48.0, 0.0, 0.0)] == pytest.approx([20_700, 14_000, 8_750])


def test_overhead_and_pool_fee_lower_what_a_megawatt_hour_earns():
    plain = class_segments(S21, 1, 48.0, 0.0, 0.0)[0].value_usd_per_mwh
    assert class_segments(S21, 1, 48.0, 0.02, 0.25)[0].value_usd_per_mwh == pytest.approx(plain * 0.98 / 1.25)


def test_pool_values_by_hand():
    # One GPU: baseline 500 W, 700 W gives half the throughput, 1,000 W all of it, at 2 $/GPU-h:
    # 1 $/h over 200 W is 5,000 $/MWh, then 1 $/h over 300 W is 3,333.33 $/MWh.
    pool = AiPool("p", AiPriority.STANDARD, 1, 500, 700, 1000, ((700, 0.5), (1000, 1.0)))
    first, second = pool_segments(pool, 2.0, None, 0.0)
    assert (first.value_usd_per_mwh, second.value_usd_per_mwh) == pytest.approx((5000.0, 10000.0 / 3))
    assert [s.width_w for s in pool_segments(pool, 2.0, 800.0, 0.0)] == [200.0, 100.0]
    assert [s.width_w for s in pool_segments(pool, 2.0, 400.0, 0.0)] == [0.0, 0.0]


def test_default_pool_earns_ten_to_forty_times_what_mining_earns():
    ai = pool_segments(gpu_pool("p", AiPriority.STANDARD, 100), 2.0, None, 0.05)
    mining = class_segments(S21, 1, 45.0, 0.01, 0.05)
    assert 8 < ai[-1].value_usd_per_mwh / mining[-1].value_usd_per_mwh < 40


def test_mode_under_the_hull_is_not_traded():
    modes = {
        Mode.SLEEP: ModePoint(30, 0), Mode.LOW: ModePoint(2000, 50e12),
        Mode.NORMAL: ModePoint(3000, 100e12), Mode.TURBO: ModePoint(3600, 90e12),
    }  # fmt: skip
    odd = MinerClass("odd", "virtual", "odd", modes, 3, 120)
    assert [mode for mode, _ in class_hull(odd)] == [Mode.SLEEP, Mode.NORMAL]


def test_cheapest_mining_gives_way_first_under_a_ceiling():
    segments = [*class_segments(S19, 100, 48.0, 0, 0), *class_segments(S21, 100, 48.0, 0, 0)]
    order = merit_order(segments, 300_000, 6_000, 0.0, 20.0)
    s19, s21 = machines_by_mode(S19, 100, order), machines_by_mode(S21, 100, order)
    assert s21[Mode.SLEEP] == pytest.approx(0) and s19[Mode.SLEEP] > 50
    assert order.import_w == pytest.approx(300_000)
    assert order.marginal_usd_per_mwh > 0
    assert "binds" in order.sentences()[0]


def test_price_above_every_value_leaves_all_mining_asleep_and_guaranteed_ai_running():
    pool = gpu_pool("inference", AiPriority.GUARANTEED, 10)
    segments = [*class_segments(S21, 100, 48.0, 0, 0), *pool_segments(pool, 2.5, None, 0)]
    order = merit_order(segments, 1e6, 10_000, 0.0, 9_000.0)
    assert machines_by_mode(S21, 100, order)[Mode.SLEEP] == pytest.approx(100)
    assert order.guaranteed_short_w == pytest.approx(0)
    assert order.marginal_usd_per_mwh == 0


def test_guaranteed_ai_goes_before_dearer_standard_ai():
    segments = [Segment("std", Load.AI, 100, 5000.0), Segment("gua", Load.AI, 100, 10.0, guaranteed=True)]
    assert merit_order(segments, 150, 0, 0.0, 20.0).watts == (50.0, 100.0)


def test_import_that_nothing_can_shed_is_said():
    order = merit_order(class_segments(S21, 10, 48.0, 0, 0), 1000, 5000, 0.0, 20.0)
    assert order.over_w == 4000 and order.import_w == 5000
    assert "over the ceiling" in order.sentences()[0]


any_segment = st.builds(
    Segment, st.just("x"), st.just(Load.MINING), st.floats(0, 1e7), st.floats(-100, 5000), st.booleans()
)


@settings(derandomize=True, max_examples=60, deadline=None)
@given(
    st.lists(any_segment, max_size=12), st.floats(0, 5e7), st.floats(0, 1e7), st.floats(0, 0.5), st.floats(-250, 9000)
)
def test_filling_keeps_the_ceiling_and_never_leaves_the_dearer_for_the_cheaper(
    segments, ceiling, fixed, overhead, price
):
    order = merit_order(segments, ceiling, fixed, overhead, price)
    assert order.import_w <= max(ceiling, fixed) + 1e-3
    for (one, w1), (two, w2) in itertools.permutations(zip(segments, order.watts, strict=True), 2):
        if one.guaranteed == two.guaranteed and one.value_usd_per_mwh > two.value_usd_per_mwh and w2 > 0:
            assert w1 == one.width_w
    for segment, watts in zip(segments, order.watts, strict=True):
        assert 0 <= watts <= segment.width_w
        assert segment.guaranteed or watts == 0 or segment.value_usd_per_mwh > price


@settings(derandomize=True, max_examples=40, deadline=None)
@given(st.integers(0, 5000), st.floats(0, 3e7), st.floats(-50, 400))
def test_machines_by_mode_add_up_and_draw_what_was_filled(machines, ceiling, price):
    order = merit_order(class_segments(S21, machines, 48.0, 0, 0), ceiling, 0.0, 0.0, price)
    counts = machines_by_mode(S21, machines, order)
    assert sum(counts.values()) == pytest.approx(machines)
    assert min(counts.values()) >= -1e-6
    above_sleep = sum(n * (S21.modes[m].power_w - S21.modes[Mode.SLEEP].power_w) for m, n in counts.items())
    assert above_sleep == pytest.approx(sum(order.watts), abs=1e-3)
