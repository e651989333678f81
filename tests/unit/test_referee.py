"""The demo's referee: what it counts, and against which ceiling."""

from __future__ import annotations

import pytest

from sim.referee import Referee

pytestmark = pytest.mark.unit


def referee() -> Referee:
    return Referee("falcon-1", 100.0, 108.0, stock_only=False)


def test_time_and_height_above_the_ceiling_are_measured() -> None:
    judge = referee()
    for second, watts in enumerate([99.0, 101.0, 101.5, 101.0, 99.0]):
        judge.see(float(second), watts, 10.0)
    assert judge.findings.excess_max_ratio == pytest.approx(0.015)
    assert judge.findings.excess_max_s == pytest.approx(2.0)


def test_a_lowered_ceiling_has_a_grace_that_ends_when_it_is_first_reached() -> None:
    judge = referee()
    judge.order(0.0, 80.0)
    for second, watts in enumerate([95.0, 90.0, 79.0, 82.0]):
        judge.see(float(second), watts, 10.0)
    assert judge.findings.grace_s == [2.0]
    assert judge.findings.excess_max_ratio == pytest.approx(0.025)  # only after it was reached


def test_a_lowered_ceiling_that_is_never_reached_is_said() -> None:
    judge = referee()
    judge.order(0.0, 80.0)
    judge.see(1.0, 95.0, 10.0)
    judge.release()
    assert judge.findings.grace_open == 1


def test_the_protection_limit_is_counted_once_per_excursion() -> None:
    judge = referee()
    for second, watts in enumerate([108.0, 109.0, 99.0, 108.5]):
        judge.see(float(second), watts, 10.0)
    assert judge.findings.protection_limit_reached == 2


def test_a_reallocation_ends_at_95_percent_of_what_was_asked() -> None:
    judge = referee()
    judge.step(0.0, 20.0, 10.0)
    judge.see(3.0, 90.0, 18.9)
    judge.see(4.0, 90.0, 19.0)
    assert judge.findings.reallocations[0].took_s == 4.0


def test_a_step_down_is_no_reallocation_and_ends_the_one_before() -> None:
    judge = referee()
    judge.step(0.0, 20.0, 10.0)
    judge.step(5.0, 8.0, 12.0)
    assert [r.superseded for r in judge.findings.reallocations] == [True]
    assert judge.findings.reallocations[0].took_s is None


def test_a_step_that_an_order_crosses_is_marked() -> None:
    judge = referee()
    judge.step(0.0, 20.0, 10.0)
    judge.announce()
    assert judge.findings.reallocations[0].under_order
    judge.see(1.0, 90.0, 20.0)
    judge.step(2.0, 30.0, 20.0)
    judge.order(3.0, 80.0)
    assert judge.findings.reallocations[1].under_order
    judge.see(4.0, 79.0, 30.0)
    judge.step(5.0, 40.0, 30.0)
    assert not judge.findings.reallocations[2].under_order
