"""A site's terms from the settings: what dispatch sees of them at a moment, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest
from pydantic import ValidationError

from controller.connection import BacklogSettings, ConnectionSettings, backlogs_now
from controller.dispatch.inputs import FleetState, PriceStep, SiteState
from controller.dispatch.solve import Planner
from controller.dispatch.terms import RampStep

pytestmark = pytest.mark.unit

NOON = 1_735_732_800.0  # 2025-01-01T12:00Z


def terms(**fields):
    return ConnectionSettings.model_validate(fields)


def test_sold_capacity_counts_from_the_moment_and_ends_with_its_contract():
    sold = [
        {"product": "ECRS", "mw": 5, "notice_s": 600, "starts_at": "2025-01-01T13:00Z", "ends_at": "2025-01-01T08:00-06:00"},
        {"product": "ERS", "mw": 2, "notice_s": 1800, "ends_at": "2025-01-01T11:00Z"},
    ]  # fmt: skip
    (one,) = terms(sold=sold).state(NOON, speed=60.0)["sold"]
    assert (one.product, one.power_w, one.starts_in_s, one.ends_in_s) == ("ECRS", 5e6, 60.0, 120.0)


def test_terms_are_a_site_that_dispatch_solves():
    own = terms(
        feeders=[{"name": "north", "limit_mw": 4, "classes": ["s21"], "pools": ["train"]}],
        drop_ramp=[{"mw_per_min": 1}, {"from_mw": 10, "mw_per_min": 2}],
        contract={"block_mw": 3, "usd_per_mwh": 41},
        supplies=[{"name": "gas", "available_mw": 2, "usd_per_mwh": 70, "min_mw": 0.5}],
        ai_reserve_mw=0.25,
    )
    assert (own.feeder_of("classes", "s21"), own.feeder_of("pools", "other")) == ("north", "")
    site = SiteState(
        "a", "r", 9e6, (), (), (), 0.05, 1e6, (PriceStep(0.0, 40.0),), 0.0, 0.0, 0.0, True, None, **own.state(NOON)
    )
    assert site.drop_ramp == (RampStep(0.0, 1e6), RampStep(10e6, 2e6))
    decided = Planner().solve(FleetState((site,), 50.0)).sites[0]
    assert decided.expected_power_w == pytest.approx(0.5e6)  # the generator's minimum carries half of the fixed load


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"drop_ramp": [{"from_mw": 1, "mw_per_min": 1}]}, "begin at from_mw = 0"),
        ({"pick_up_ramp": [{"mw_per_min": 1}, {"mw_per_min": 2}]}, "ascend"),
        ({"feeders": [{"name": "n", "limit_mw": 1}] * 2}, "share a name"),
        (
            {"feeders": [{"name": n, "limit_mw": 1, "pools": ["train"]} for n in "ab"]},
            "pool train hangs on two of them",
        ),
        (
            {"sold": [{"product": "X", "mw": 1, "notice_s": 9, "starts_at": "2025-01-02T00:00Z", "ends_at": "2025-01-01T00:00Z"}]},
            "ends_at must be after",
        ),
        ({"sold": [{"product": "X", "mw": 1, "notice_s": 9, "ends_at": "2025-01-01T00:00"}]}, "timezone"),
    ],
)  # fmt: skip
def test_terms_that_cannot_be_are_refused(fields, said):
    with pytest.raises(ValidationError, match=said):
        terms(**fields)


def test_backlog_of_which_nothing_is_told_is_not_planned():
    own = BacklogSettings(name="batch", region="r", deadline_h=8, usd_per_gpu_hour=1.5, arrivals_gpu_h_per_h=20)
    assert backlogs_now([own], {}, 1.0) == ()
    (known,) = backlogs_now([own], {"batch": 300.0}, 2.0)
    assert (known.work_gpu_h, known.deadline_s, known.due_in_s) == (300.0, 14_400.0, 7_200.0)
    assert replace(known, name="x").arrivals[0].gpu_h_per_h == 20
