"""What every workload manager must pass: idempotent, owned, expiring, honest, and guaranteed work never touched.

A manager's test makes a `World` (two pool nodes with a job each, a third that another admin holds, a guaranteed job) and calls
`passes`. Nothing here knows which manager it is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from agent.ai.workload import Order, Workload
from gridpivot.vocabulary import AiPriority, LeverOutcome


@dataclass(frozen=True)
class World:
    """A pool as the kit wants it. `pass_time` lets an order's end go by; `settle` lets what was asked come true."""

    workload: Workload
    free_node: str  # takes work, held by nobody
    foreign_node: str  # held by another admin
    spot_job: str
    guaranteed_job: str
    unix_s: Callable[[], float]
    pass_time: Callable[[float], Awaitable[None]]
    settle: Callable[[], Awaitable[None]]


def order(world: World, name: str, seconds: float = 600.0) -> Order:
    return Order(name, "workload kit", world.unix_s() + seconds)


async def passes(world: World) -> None:
    """Every rule, one after the other; the world is left as it was found."""
    await holds_are_owned_and_done_once(world)
    await release_gives_back_what_is_ours_alone(world)
    await what_is_past_its_end_is_given_back(world)
    await requeue_is_done_once_and_read_back(world)
    await what_waits_can_be_made_to_wait_for_longer(world)
    await guaranteed_work_is_never_taken_off(world)
    await admission_is_closed_and_opened(world)
    await what_is_gone_is_told(world)


async def holds_are_owned_and_done_once(world: World) -> None:
    first = await world.workload.hold([world.free_node, world.foreign_node], order(world, "k1"))
    again = await world.workload.hold([world.free_node, world.foreign_node], order(world, "k1"))
    for steps in (first, again):
        outcomes = {step.subject: step.outcome for step in steps}
        assert outcomes == {world.free_node: LeverOutcome.DONE, world.foreign_node: LeverOutcome.NOT_OURS}
    nodes = {node.name: node for node in (await world.workload.observe(0.0)).nodes}
    assert nodes[world.free_node].ours and nodes[world.foreign_node].held and not nodes[world.foreign_node].ours


async def release_gives_back_what_is_ours_alone(world: World) -> None:
    before = {n.name: n.held_by for n in (await world.workload.observe(0.0)).nodes}
    await world.workload.release("another-order")
    assert {n.name: n.held_by for n in (await world.workload.observe(0.0)).nodes} == before
    await world.workload.release("k1")
    await world.workload.release("k1")
    nodes = {node.name: node for node in (await world.workload.observe(0.0)).nodes}
    assert not nodes[world.free_node].held
    assert nodes[world.foreign_node].held_by == before[world.foreign_node]


async def what_is_past_its_end_is_given_back(world: World) -> None:
    await world.workload.hold([world.free_node], order(world, "k2", 2.0))
    await world.pass_time(3.0)
    await world.workload.observe(0.0)
    nodes = {node.name: node for node in (await world.workload.observe(0.0)).nodes}
    if nodes[world.free_node].held:  # a manager without an end of its own: the next agent gives it back
        await world.workload.release(None)
        nodes = {node.name: node for node in (await world.workload.observe(0.0)).nodes}
    assert not nodes[world.free_node].held and nodes[world.foreign_node].held


async def requeue_is_done_once_and_read_back(world: World) -> None:
    for _ in range(2):
        steps = await world.workload.requeue([world.spot_job], order(world, "k3"))
        assert all(s.outcome in (LeverOutcome.DONE, LeverOutcome.UNDER_WAY, LeverOutcome.GONE) for s in steps)
    await world.settle()
    assert world.spot_job not in {job.job_id for job in (await world.workload.observe(0.0)).jobs}
    await world.workload.release("k3")
    await world.settle()
    assert world.spot_job in {job.job_id for job in (await world.workload.observe(0.0)).jobs}


async def what_waits_can_be_made_to_wait_for_longer(world: World) -> None:
    await world.workload.requeue([world.spot_job], order(world, "k7", 20.0))
    await world.settle()
    assert world.spot_job in (await world.workload.observe(0.0)).suspended
    await world.workload.requeue([world.spot_job], order(world, "k7", 600.0))
    await world.pass_time(25.0)
    work = await world.workload.observe(0.0)
    assert world.spot_job in work.suspended and world.spot_job not in {job.job_id for job in work.jobs}
    await world.workload.release("k7")
    await world.settle()
    assert world.spot_job in {job.job_id for job in (await world.workload.observe(0.0)).jobs}


async def guaranteed_work_is_never_taken_off(world: World) -> None:
    jobs = {job.job_id: job for job in (await world.workload.observe(0.0)).jobs}
    assert jobs[world.guaranteed_job].priority is AiPriority.GUARANTEED
    steps = await world.workload.requeue([world.guaranteed_job], order(world, "k4"))
    assert all(s.outcome in (LeverOutcome.UNSUPPORTED, LeverOutcome.BLOCKED) for s in steps) and steps
    await world.settle()
    assert world.guaranteed_job in {job.job_id for job in (await world.workload.observe(0.0)).jobs}
    await world.workload.release("k4")


async def admission_is_closed_and_opened(world: World) -> None:
    for _ in range(2):
        steps = await world.workload.close_admission(order(world, "k5"))
        assert [s.outcome for s in steps] == [LeverOutcome.DONE]
    work = await world.workload.observe(0.0)
    assert not work.admitting and work.admission_ours
    await world.workload.release("k5")
    assert (await world.workload.observe(0.0)).admitting


async def what_is_gone_is_told(world: World) -> None:
    steps = await world.workload.hold(["no-such-node"], order(world, "k6"))
    assert all(s.outcome in (LeverOutcome.GONE, LeverOutcome.FAILED) for s in steps)
    steps = await world.workload.requeue(["no-such-job"], order(world, "k6"))
    assert all(s.outcome in (LeverOutcome.GONE, LeverOutcome.FAILED) for s in steps)
    await world.workload.release("k6")


async def nothing() -> None:
    """For managers that settle at once."""
    await asyncio.sleep(0)
