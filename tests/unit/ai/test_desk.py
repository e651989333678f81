"""The desk over a simulated cluster: promises are kept, shortfalls are told, guaranteed work lives, all is given back."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from agent.ai.desk import PoolNeed, PullState, decide
from gridpivot.clock import Instant
from gridpivot.vocabulary import AiPriority, LeverName
from sim.ai_cluster import SimCluster, SimJob, SimNode
from sim.ai_desk import VirtualDesk

pytestmark = pytest.mark.unit

UNIX_S = 1.8e9


def cluster(priority: AiPriority, *, wants_w: float = 345.0, **more: object) -> SimCluster:
    """Eight nodes of eight GPUs, one job on each pair of nodes."""
    nodes = [SimNode(f"gpu{n}", 8) for n in range(8)]
    jobs = [SimJob(f"job{n}", priority, (f"gpu{2 * n}", f"gpu{2 * n + 1}"), 16, wants_w) for n in range(4)]
    return SimCluster(priority, nodes, jobs, now=Instant(0.0, UNIX_S), **more)  # type: ignore[arg-type]


def run(desk: VirtualDesk, seconds: int) -> list[float]:
    """Let seconds pass; true power of each."""

    async def story() -> list[float]:
        began_s = desk.clock.now().monotonic_s
        return [await desk.step(Instant(began_s + n, UNIX_S + began_s + n)) for n in range(1, seconds + 1)]

    return asyncio.run(story())


@pytest.mark.parametrize("share", [0.9, 0.75, 0.6, 0.45, 0.3])
def test_spot_pool_comes_down_to_its_target_by_levers_that_keep_their_promises(share: float) -> None:
    desk = VirtualDesk("train", cluster(AiPriority.SPOT, noise_sd=0.01))
    full_w = run(desk, 30)[-1]
    desk.target_w = share * full_w
    power_w = run(desk, 300)
    assert sum(power_w[-60:]) / 60 <= 1.02 * desk.target_w
    assert desk.ended and all(pull.state is PullState.KEPT for pull in desk.ended)
    for pull in desk.ended:
        assert pull.delivered_w >= 0.95 * pull.promise.promised_w - 0.005 * full_w


def test_gentle_levers_go_before_hard_ones() -> None:
    desk = VirtualDesk("train", cluster(AiPriority.SPOT))
    full_w = run(desk, 30)[-1]
    desk.target_w = 0.25 * full_w
    run(desk, 200)
    levers = [act.lever for _, act in desk.log if not act.restore]
    assert levers.index(LeverName.POWER_LIMIT) < levers.index(LeverName.REQUEUE)
    assert levers.index(LeverName.ADMISSION) < levers.index(LeverName.REQUEUE)


def test_small_ask_needs_no_job_taken_off() -> None:
    desk = VirtualDesk("train", cluster(AiPriority.STANDARD))
    full_w = run(desk, 30)[-1]
    desk.target_w = 0.8 * full_w
    run(desk, 200)
    assert LeverName.REQUEUE not in {act.lever for _, act in desk.log}
    assert all(job.running for job in desk.cluster.jobs)


def test_guaranteed_pool_is_left_alone_unless_physics_forces_it_and_never_loses_a_job() -> None:
    desk = VirtualDesk("inference", cluster(AiPriority.GUARANTEED))
    full_w = run(desk, 30)[-1]
    desk.target_w = 0.2 * full_w
    run(desk, 120)
    assert not desk.log
    desk.forced = True
    run(desk, 300)
    assert {act.lever for _, act in desk.log} == {LeverName.POWER_LIMIT}
    assert all(job.running for job in desk.cluster.jobs)


def test_boards_that_ignore_their_limit_are_told_as_short_and_the_next_lever_takes_over() -> None:
    desk = VirtualDesk("train", cluster(AiPriority.SPOT, held_ratio=1.5))
    full_w = run(desk, 30)[-1]
    desk.target_w = 0.6 * full_w
    run(desk, 400)
    first = next(pull for pull in desk.ended if pull.lever is LeverName.POWER_LIMIT)
    assert first.state is PullState.SHORT and first.short_w > 0.0
    assert first.ended_s is not None and first.ended_s <= first.due_s + 10.0
    assert desk.power().power_w is not None and desk.power().power_w <= 1.02 * desk.target_w  # type: ignore[operator]


def test_jobs_that_will_not_save_themselves_are_taken_off_all_the_same() -> None:
    own = cluster(AiPriority.SPOT)
    for job in own.jobs:
        job.deaf = True
    desk = VirtualDesk("train", own)
    full_w = run(desk, 30)[-1]
    desk.target_w = 0.3 * full_w
    run(desk, 300)
    assert desk.power().power_w is not None and desk.power().power_w <= 1.02 * desk.target_w  # type: ignore[operator]


def test_all_of_it_is_given_back_when_there_is_room_and_not_before() -> None:
    desk = VirtualDesk("train", cluster(AiPriority.SPOT))
    full_w = run(desk, 30)[-1]
    desk.target_w = 0.4 * full_w
    run(desk, 300)
    desk.target_w = 0.45 * full_w
    run(desk, 300)
    assert not any(act.restore for _, act in desk.log)
    desk.target_w = None
    power_w = run(desk, 900)
    assert not desk.desk.pulls
    assert power_w[-1] == pytest.approx(full_w, rel=0.01)
    assert not desk.cluster.orders and not any(node.held_by for node in desk.cluster.nodes)


def need(desk: VirtualDesk, **more: Any) -> PoolNeed:
    """The pool as it stands, with nothing asked of it."""
    return PoolNeed("train", AiPriority.SPOT, None, desk.power(), **more)


@pytest.mark.parametrize("why", [{"may_raise": False}, {"cover_w": 1.0}])
def test_nothing_is_given_back_while_nothing_may_rise_or_mining_could_not_cover_it(why: dict[str, Any]) -> None:
    desk = VirtualDesk("train", cluster(AiPriority.SPOT))
    full_w = run(desk, 30)[-1]
    desk.target_w = 0.3 * full_w
    run(desk, 300)
    desks, now_s = {"train": desk.desk}, desk.clock.now().monotonic_s
    for second in range(200):
        assert not decide(desks, [need(desk, **why)], now_s + second, "x")
    acts = [decide(desks, [need(desk, cover_w=1e9)], now_s + 200 + second, "x") for second in range(100)]
    assert any(act and act[0].restore for act in acts)


def test_restores_come_one_after_the_other() -> None:
    desk = VirtualDesk("train", cluster(AiPriority.SPOT))
    full_w = run(desk, 30)[-1]
    desk.target_w = 0.2 * full_w
    run(desk, 400)
    desk.target_w = None
    run(desk, 900)
    at_s = [moment for moment, act in desk.log if act.restore]
    assert len(at_s) >= 3
    assert min(b - a for a, b in pairwise(at_s)) >= 30.0


def test_another_admins_hold_is_left_when_ours_goes() -> None:
    own = cluster(AiPriority.SPOT)
    own.nodes[7].held_by = "alice: bad fan"
    desk = VirtualDesk("train", own)
    full_w = run(desk, 30)[-1]
    desk.target_w = 0.2 * full_w
    run(desk, 400)
    desk.target_w = None
    run(desk, 900)
    assert own.nodes[7].held_by == "alice: bad fan"


def test_unknown_power_promises_nothing() -> None:
    desk = VirtualDesk("train", cluster(AiPriority.SPOT))
    run(desk, 30)
    power = replace(desk.power(), power_w=None)
    work = asyncio.run(desk.cluster.observe(30.0))
    for lever in desk.levers.values():
        promise = lever.promise(work, power, 1e4)
        assert promise.promised_w == 0.0


def test_unknown_work_promises_nothing_but_limits() -> None:
    desk = VirtualDesk("train", cluster(AiPriority.SPOT))
    run(desk, 30)
    for name, lever in desk.levers.items():
        promise = lever.promise(None, desk.power(), 1e4)
        assert (promise.promised_w > 0.0) == (name is LeverName.POWER_LIMIT)
        assert name is LeverName.POWER_LIMIT or promise.why_not


def test_door_that_the_plan_closes_is_closed_alone_and_opened_when_the_plan_lets_work_in() -> None:
    desk = VirtualDesk("train", cluster(AiPriority.STANDARD))
    full_w = run(desk, 30)[-1]
    desk.target_w, desk.admits = 2.0 * full_w, False
    run(desk, 300)
    assert [(act.lever, act.restore) for _, act in desk.log] == [(LeverName.ADMISSION, False)]
    assert desk.cluster.closed_by.startswith("gridpivot")
    assert run(desk, 10)[-1] == pytest.approx(full_w, rel=0.05)
    desk.admits = None
    run(desk, 120)
    assert desk.log[-1][1].restore and not desk.cluster.closed_by


def test_guaranteed_pool_is_never_closed_whatever_a_plan_says() -> None:
    desk = VirtualDesk("inference", cluster(AiPriority.GUARANTEED))
    full_w = run(desk, 30)[-1]
    desk.target_w, desk.admits = full_w, False
    run(desk, 100)
    assert not desk.cluster.closed_by and not desk.log
    promise = desk.levers[LeverName.ADMISSION].promise(desk._work, desk.power(), 0.0)
    forced = PoolNeed(
        "g", AiPriority.GUARANTEED, full_w, desk.power(), False, {LeverName.ADMISSION: promise}, admits=False
    )
    assert promise.subjects and not decide({}, [forced], 1e6, "x")


def test_what_was_closed_for_a_shed_stays_closed_while_the_plan_wants_that() -> None:
    desk = VirtualDesk("train", cluster(AiPriority.SPOT))
    full_w = run(desk, 30)[-1]
    desk.target_w, desk.admits = 0.4 * full_w, False
    run(desk, 300)
    desk.target_w = None
    run(desk, 600)
    assert desk.cluster.closed_by.startswith("gridpivot")
    desk.admits = True
    run(desk, 600)
    assert not desk.desk.pulls and not desk.cluster.closed_by
