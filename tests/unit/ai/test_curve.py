"""Curves begin from published sweeps, learn from settled samples, stay inside their bounds, and say how sure they are."""

from __future__ import annotations

import csv
import math
import os
from collections import defaultdict
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.ai.curve import PRIOR, HeldFactor, LearnedCurve, Sample
from tests.conftest import missing

pytestmark = pytest.mark.unit

SHARED = Path(os.environ.get("GRIDPIVOT_SHARED", Path(__file__).parents[3].parent / "shared"))


def taught(truth: dict[float, float], rounds: int = 30, work: str = "job7") -> LearnedCurve:
    """A curve after samples of work that keeps truth[power ratio] of its throughput."""
    curve, now_s = LearnedCurve(), 0.0
    for _ in range(6):
        now_s += 15.0
        curve.learn(Sample(now_s, work, 1e6, 5000.0, False, -100.0))
    for _ in range(rounds):
        for power, kept in truth.items():
            now_s += 15.0
            assert curve.learn(Sample(now_s, work, power * 1e6, kept * 5000.0, True, now_s - 90.0))
    return curve


def test_prior_is_what_the_published_sweep_says() -> None:
    path = SHARED / "data" / "ai_traces" / "emerald_2025_dvfs_sweep.csv"
    if not path.exists():
        missing("the shared data (GRIDPIVOT_SHARED)")
    by_cap = defaultdict(list)
    top = {}
    with path.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        if row["GPU power cap"] == "400":
            top[row["Workload"]] = float(row["power per GPU"])
    for row in rows:
        power = float(row["power per GPU"]) / top[row["Workload"]]
        by_cap[row["GPU power cap"]].append((power, float(row["normalized throughput"])))
    for samples in by_cap.values():
        power, kept = (sum(column) / len(samples) for column in zip(*samples, strict=True))
        assert LearnedCurve().throughput_at(power) == pytest.approx(kept, abs=0.02)


def test_light_work_is_learned_to_lose_less() -> None:
    curve = taught({0.53: 0.95, 0.66: 0.97, 0.79: 0.99})
    assert curve.throughput_at(0.53) == pytest.approx(0.95, abs=0.02)
    points = {p.power_ratio: p.sd for p in curve.points()}
    assert points[0.53] < 0.03 < points[0.40]


def test_what_was_learned_fades_to_the_prior() -> None:
    curve = taught({0.53: 0.95})
    before = curve.throughput_at(0.53)
    month_s = 30 * 86_400.0
    for n in range(6):
        curve.learn(Sample(month_s + 15.0 * n, "job7", 1e6, 5000.0, False, 0.0))
    curve.learn(Sample(month_s + 200.0, "job7", 0.9e6, 4800.0, True, 0.0))
    assert curve.throughput_at(0.53) < before - 0.1


def test_other_work_is_not_measured_by_the_last_ones_reference() -> None:
    curve = taught({0.79: 0.93})
    assert not curve.learn(Sample(1e5, "job8", 5e5, 70_000.0, True, 0.0))
    assert curve.reference() is None


def test_sample_soon_after_a_change_teaches_nothing() -> None:
    curve = taught({0.79: 0.93}, rounds=1)
    assert not curve.learn(Sample(1e4, "job7", 5e5, 4000.0, True, 1e4 - 10.0))


@pytest.mark.parametrize("throughput", [0.0, -1.0, math.nan, math.inf, 5e9])
def test_nonsense_teaches_nothing_and_is_counted(throughput: float) -> None:
    curve = taught({0.79: 0.93}, rounds=1)
    before, refused = curve.points(), curve.refused
    assert not curve.learn(Sample(1e4, "job7", 5e5, throughput, True, 0.0))
    assert curve.points() == before and curve.refused == refused + 1


samples = st.tuples(st.floats(0.2, 1.1), st.floats(0.0, 1.3))


@given(st.lists(samples, max_size=60))
def test_curve_keeps_rising_and_stays_inside_its_bounds(seen: list[tuple[float, float]]) -> None:
    curve, now_s = LearnedCurve(), 0.0
    for _ in range(6):
        curve.learn(Sample(0.0, "w", 1e6, 100.0, False, -100.0))
    for power, kept in seen:
        now_s += 15.0
        curve.learn(Sample(now_s, "w", power * 1e6, kept * 100.0, True, now_s - 90.0))
    points = [(0.0, 0.0), *((p.power_ratio, p.throughput_ratio) for p in curve.points())]
    assert all(b[1] >= a[1] for a, b in pairwise(points)) and all(0.0 <= kept <= 1.0 for _, kept in points)
    assert points[-1][1] == pytest.approx(1.0)
    assert all(p.sd > 0.0 for p in curve.points())
    corners = curve.wall_corners(1e5, 3e5, 1.1e6)
    assert all(a[0] < b[0] and a[1] <= b[1] + 1e-9 for a, b in pairwise(corners))
    assert corners[0][0] == 3e5 and corners[-1][0] == pytest.approx(1.1e6)


def test_boards_that_draw_more_than_they_are_allowed_are_learned() -> None:
    held = HeldFactor()
    for _ in range(20):
        held.learn(121.0, 100.0)  # an A40 at its lowest limit
    assert held.remains_w(200.0, 100.0) == pytest.approx(121.0, rel=0.03)
    held.learn(1e6, 100.0)
    assert held.remains_w(90.0, 100.0) == 90.0


def test_prior_ascends() -> None:
    assert all(a[0] < b[0] and a[1] < b[1] for a, b in pairwise(PRIOR))
