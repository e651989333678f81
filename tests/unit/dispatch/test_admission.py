"""Who lets new work in: guaranteed pools always, unknown queues as their site likes, the others as the plan has room."""

from __future__ import annotations

from dataclasses import replace

import pytest

from controller.dispatch.admission import admits
from controller.dispatch.terms import Queue
from gridpivot.vocabulary import AiPriority

pytestmark = pytest.mark.unit

WANTED_W = 800e3  # of 1,100 kW


@pytest.fixture
def pool(make):
    """A standard pool of 1,000 GPUs, with deferrable work alone waiting."""
    return replace(make.pool(demand_w=WANTED_W), queue=Queue(500.0, 300.0, 300.0, 700.0))


def test_work_that_the_plan_keeps_back_is_not_let_in(pool):
    assert admits(pool, WANTED_W, held_back=True) is False
    assert admits(pool, WANTED_W, held_back=False) is True


def test_a_pool_that_is_to_draw_more_or_has_work_that_cannot_wait_is_open(pool):
    assert admits(pool, 1.1 * WANTED_W, held_back=True) is True
    urgent = replace(pool, queue=Queue(500.0, 300.0, 200.0, 700.0))
    assert admits(urgent, WANTED_W, held_back=True) is True
    full = replace(pool, demand_w=pool.pool.max_w)  # all it can draw: what ends is to be replaced
    assert admits(full, pool.pool.max_w, held_back=True) is True


def test_a_pool_that_is_to_draw_less_than_what_runs_is_closed(pool):
    assert admits(pool, 0.9 * WANTED_W, held_back=False) is False


def test_guaranteed_is_never_closed_and_of_the_unknown_nothing_is_said(make, pool):
    assert admits(make.pool(priority=AiPriority.GUARANTEED, demand_w=WANTED_W), 0.0, held_back=True) is True
    assert admits(replace(pool, queue=None), 0.0, held_back=True) is None
    assert admits(replace(pool, demand_w=None), 0.0, held_back=True) is None
