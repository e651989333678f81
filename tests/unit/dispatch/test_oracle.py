"""A second, slow, obviously-right model of dispatch must find the same cost, on hundreds of random small fleets."""

from __future__ import annotations

import random

import pytest

from controller.dispatch.parameters import Parameters
from controller.dispatch.solve import Planner
from tests.unit.dispatch.fleets import PERIODS, random_fleet
from tests.unit.dispatch.oracle import Oracle

pytestmark = pytest.mark.unit

SEEDS = 200


@pytest.mark.parametrize("seed", range(SEEDS))
def test_both_models_find_the_same_cost(make, seed):
    fleet = random_fleet(make, random.Random(seed))
    parameters = Parameters(move_usd_per_mw=0.0)
    decision = Planner(parameters, period_s=PERIODS).solve(fleet)
    expected = Oracle(fleet, parameters, PERIODS).cost_usd()
    assert decision.objective_usd == pytest.approx(expected, rel=1e-6, abs=1e-4)
