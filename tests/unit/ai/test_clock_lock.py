"""Clock locks: promised from a wide prior, learned from what each lock left, never confused with the work of a cap."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from agent.ai.lever import PoolPower
from agent.ai.levers.clocks import PRIOR_MEAN, ClockLock
from agent.ai.workload import Order
from agent.backends import ClockState
from gridpivot.vocabulary import AiPriority, LeverName, LeverOutcome
from sim.ai_desk import VirtualDesk
from tests.unit.ai.test_desk import cluster, run

pytestmark = pytest.mark.unit

ORDER = Order("o1", "test", 2e9)


def power(watts: float, at_s: float) -> PoolPower:
    return PoolPower(at_s, watts, 9_000.0, 2_000.0, 1_000.0, 8)


class Board:
    """What the pool's GPUs show."""

    def __init__(self, mhz: float | None = 1980.0) -> None:
        self.state = ClockState(None if mhz is None else mhz * 1e6)
        self.asked: list[int | None] = []

    def lever(self) -> ClockLock:
        return ClockLock("chat", 1200, self.asked.append, lambda: self.state, host_w=1_000.0)


def test_first_promise_is_the_prior_and_later_ones_what_was_seen() -> None:
    board = Board()
    lever = board.lever()
    lever.observe(None, power(3_000.0, 0.0))
    promise = lever.promise(None, power(3_000.0, 0.0), 1_000.0)
    assert promise.promised_w == pytest.approx(2_000.0 * (1 - PRIOR_MEAN))
    asyncio.run(lever.act(ORDER, promise))
    board.state = ClockState(1.2e9)
    lever.observe(None, power(2_960.0, 2.0))  # the meter has not caught up yet
    assert lever.share.samples == 0
    lever.observe(None, power(2_200.0, 7.0))
    lever.observe(None, power(2_900.0, 30.0))  # other work by now: one lock teaches once
    assert lever.share.samples == 1
    asyncio.run(lever.restore(ORDER))
    board.state = ClockState(1.98e9)
    again = lever.promise(None, power(3_000.0, 60.0), 1_000.0)
    assert again.promised_w == pytest.approx(2_000.0 * 0.4, rel=0.12)


@pytest.mark.parametrize(
    ("state", "watts", "why"),
    [
        (ClockState(None), 3_000.0, "no GPU works"),
        (ClockState(1.1e9), 3_000.0, "low already"),
        (ClockState(1.98e9), None, "unknown"),
    ],
)
def test_nothing_is_promised_where_a_lock_could_bring_nothing(state: ClockState, watts: float | None, why: str) -> None:
    board = Board()
    board.state = state
    reading = PoolPower(0.0, watts, 9_000.0, 2_000.0, 1_000.0, 8)
    promise = board.lever().promise(None, reading, 1_000.0)
    assert promise.promised_w == 0.0 and not promise.subjects and why in promise.why_not


@pytest.mark.parametrize(
    ("refused", "outcome"),
    [
        ("no_permission", LeverOutcome.NO_PERMISSION),
        ("unsupported", LeverOutcome.UNSUPPORTED),
        ("no_guard", LeverOutcome.FAILED),
    ],
)
def test_refusals_have_their_word(refused: str, outcome: LeverOutcome) -> None:
    board = Board()
    lever = board.lever()
    asyncio.run(lever.act(ORDER, lever.promise(None, power(3_000.0, 0.0), 500.0)))
    board.state = ClockState(1.98e9, refused, "2 of 8 GPUs: root is needed")
    report = asyncio.run(lever.verify(ORDER, lever.promise(None, power(3_000.0, 0.0), 500.0)))
    assert (report.outcome, report.steps[0].detail) == (outcome, "2 of 8 GPUs: root is needed")


def test_lock_is_kept_when_another_order_is_given_back() -> None:
    board = Board()
    lever = board.lever()
    asyncio.run(lever.act(ORDER, lever.promise(None, power(3_000.0, 0.0), 500.0)))
    asyncio.run(lever.restore(Order("o2", "test", 2e9)))
    assert board.asked == [1200] and lever.locked
    asyncio.run(lever.restore(ORDER))
    assert board.asked == [1200, None] and not lever.locked


def stands(desk: VirtualDesk) -> Callable[[LeverName], int]:
    levers = [act.lever for _, act in desk.log if not act.restore]
    return lambda lever: levers.index(lever)


def test_memory_bound_pool_whose_limits_hold_nothing_gives_power_by_its_clocks_before_any_job() -> None:
    own = cluster(AiPriority.SPOT, wants_w=110.0, min_w=120.0)  # limits hold nothing of this
    desk = VirtualDesk("chat", own, decode_clock_mhz=1200)
    full_w = run(desk, 30)[-1]
    desk.target_w = 0.9 * full_w
    run(desk, 200)
    first = stands(desk)
    assert own.lock_mhz == 1200 and LeverName.REQUEUE not in {act.lever for _, act in desk.log}
    assert first(LeverName.CLOCK_LOCK) >= 0
    desk.target_w = None
    run(desk, 400)
    assert own.lock_mhz is None


def test_guaranteed_pool_is_locked_only_when_physics_forces_it() -> None:
    own = cluster(AiPriority.GUARANTEED, wants_w=110.0, min_w=120.0)
    desk = VirtualDesk("chat", own, decode_clock_mhz=1200)
    full_w = run(desk, 30)[-1]
    desk.target_w = 0.9 * full_w
    run(desk, 120)
    assert own.lock_mhz is None
    desk.forced = True
    run(desk, 120)
    assert own.lock_mhz == 1200 and all(job.running for job in own.jobs)
