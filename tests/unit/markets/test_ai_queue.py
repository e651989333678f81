"""A pool's demand as its queue tells it: what runs ends, what waits keeps it full, and unknown stays unknown."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.dispatch.terms import Queue
from controller.markets.ai_queue import forecast_from_queue, queue_of, queue_w
from gridpivot.curves import AiPool
from gridpivot.v1 import telemetry_pb2 as pb
from gridpivot.vocabulary import AiPriority

pytestmark = pytest.mark.unit

NOW = 20_000 * 86_400.0
POOL = AiPool("training", AiPriority.STANDARD, 100, 20e3, 40e3, 120e3, ((120e3, 1.0),))
FULL_W, HALF_W, IDLE_W = 120e3, 70e3, 20e3
LITTLE = [IDLE_W] * 24  # what it usually wants


def at(queue: Queue, hours: float, present_w: float = FULL_W, habit: list[float] | None = None) -> float:
    steps = forecast_from_queue(queue, POOL, present_w, NOW, LITTLE if habit is None else habit)
    return [s.power_w for s in steps if s.starts_in_s <= hours * 3600.0][-1]


def test_running_jobs_end_and_an_empty_queue_puts_nothing_in_their_place() -> None:
    short, long = Queue(100.0, 0.0, busy_gpus=100.0), Queue(600.0, 0.0, busy_gpus=100.0)
    assert at(short, 4.0) < IDLE_W + 0.05 * (FULL_W - IDLE_W)  # an hour left on every GPU
    assert at(long, 4.0) > IDLE_W + 0.4 * (FULL_W - IDLE_W)  # six hours left on every GPU


def test_what_waits_keeps_the_pool_full_until_it_is_worked_off() -> None:
    queue = Queue(100.0, 800.0, busy_gpus=100.0)  # eight hours for all GPUs, on top of one hour that runs
    assert at(queue, 7.0) == pytest.approx(FULL_W)
    assert at(queue, 20.0) < IDLE_W + 0.01 * FULL_W


def test_deferrable_work_is_no_demand_of_its_own() -> None:
    assert at(Queue(100.0, 800.0, 800.0, 100.0), 7.0) == at(Queue(100.0, 0.0, 0.0, 100.0), 7.0)


def test_work_behind_a_closed_door_or_before_idle_gpus_is_expected_to_start() -> None:
    closed = Queue(60.0, 5000.0, busy_gpus=60.0, admitting=False)
    assert at(closed, 0.0, 80e3) == 80e3
    assert at(closed, 2.0, 80e3) > 115e3
    assert at(Queue(0.0, 5000.0, busy_gpus=0.0), 2.0, IDLE_W) > 115e3
    # Most GPUs are busy: what waits is wider than what is free.
    assert at(Queue(90.0, 5000.0, busy_gpus=90.0), 2.0, 110e3) == pytest.approx(110e3)


def test_the_first_quarter_of_an_hour_is_the_present() -> None:
    queue = Queue(25.0, 0.0, busy_gpus=100.0)
    assert at(queue, 0.2) == FULL_W
    assert at(queue, 0.25) < FULL_W


def test_new_work_comes_as_it_usually_does() -> None:
    assert at(Queue(50.0, 0.0, busy_gpus=50.0), 12.0, HALF_W, [HALF_W] * 24) == pytest.approx(HALF_W)
    never_seen = queue_w(Queue(50.0, 0.0, busy_gpus=50.0), POOL, HALF_W, lambda _: None)
    assert never_seen(12 * 3600.0) == pytest.approx(HALF_W)


@pytest.mark.parametrize("missing", ["running_gpu_h", "pending_gpu_h"])
def test_a_queue_that_is_known_in_part_is_unknown(missing: str) -> None:
    work = pb.WorkRollup(priority="spot", running_gpu_h=10.0, pending_gpu_h=20.0, deferrable_gpu_h=5.0)
    known = pb.WorkRollup(priority="standard", running_gpu_h=1.0, pending_gpu_h=2.0)
    rollup = pb.PoolRollup(name="training", work=[known, work], busy_gpus=7, admitting=False)
    assert queue_of(rollup) == Queue(11.0, 22.0, 5.0, 7.0, False)
    rollup.work[1].ClearField(missing)
    assert queue_of(rollup) is None
    assert queue_of(pb.PoolRollup(name="training")) is None


@pytest.mark.parametrize("hours", [math.nan, math.inf, -1.0])
def test_a_figure_that_is_no_number_of_hours_makes_a_queue_unknown(hours: float) -> None:
    work = pb.WorkRollup(priority="spot", running_gpu_h=hours, pending_gpu_h=20.0)
    assert queue_of(pb.PoolRollup(work=[work])) is None


HOURS = st.floats(0.0, 1e6)


@given(HOURS, HOURS, HOURS, st.none() | st.floats(0.0, 200.0), st.floats(0.0, 2 * FULL_W), st.booleans())
def test_no_queue_takes_the_forecast_out_of_what_the_pool_can_draw(
    running: float, pending: float, deferrable: float, busy: float | None, present_w: float, admitting: bool
) -> None:
    steps = forecast_from_queue(Queue(running, pending, deferrable, busy, admitting), POOL, present_w, NOW, LITTLE)
    assert [s.starts_in_s for s in steps] == sorted({s.starts_in_s for s in steps})
    assert steps[-1].starts_in_s >= 47 * 3600.0
    assert all(0.0 <= s.power_w <= POOL.max_w + 1e-6 for s in steps)
    assert all(s.power_w >= POOL.baseline_w for s in steps[1:])


@given(HOURS, HOURS, st.floats(0.0, 100.0), st.floats(IDLE_W, FULL_W), st.floats(0.25, 48.0))
def test_more_that_waits_never_lowers_the_forecast(
    pending: float, more: float, busy: float, present_w: float, hours: float
) -> None:
    little = queue_w(Queue(50.0, pending, 0.0, busy), POOL, present_w, lambda _: IDLE_W)
    much = queue_w(Queue(50.0, pending + more, 0.0, busy), POOL, present_w, lambda _: IDLE_W)
    assert much(hours * 3600.0) >= little(hours * 3600.0) - 1e-6
