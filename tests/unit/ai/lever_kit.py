"""What every lever must pass: idempotent, owned, expiring, honest. Nothing here knows which lever it is.

A lever's test makes a `LeverWorld` over a pool that really draws what it says, and calls `passes`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

from agent.ai.lever import Lever, PoolPower, Promise
from agent.ai.work import PoolWork
from agent.ai.workload import Order
from gridpivot.vocabulary import LeverOutcome


@dataclass(frozen=True)
class LeverWorld:
    """A pool at work. `pass_time` lets seconds go by; `held` names all that is held in the pool now, by whomever."""

    lever: Callable[[], Lever]  # a new one over the same pool: another process of the agent
    power: Callable[[], PoolPower]
    work: Callable[[], Awaitable[PoolWork]]
    unix_s: Callable[[], float]
    pass_time: Callable[[float], Awaitable[None]]
    held: Callable[[], frozenset[str]]
    ends_alone: bool  # what it holds has an end that works without us
    tolerance_w: float  # of the pool's meter


def order(world: LeverWorld, name: str, seconds: float = 600.0) -> Order:
    return Order(name, "lever kit", world.unix_s() + seconds)


async def passes(world: LeverWorld) -> None:
    """Every rule, one after the other; the pool is left as it was found."""
    await unknown_power_promises_nothing(world)
    await two_calls_do_what_one_does_and_the_promise_is_kept(world)
    await what_is_held_ends_or_is_given_back_by_who_comes_after(world)


async def _promise(world: LeverWorld, lever: Lever, share: float = 0.2) -> Promise:
    power, work = world.power(), await world.work()
    lever.observe(work, power)
    assert power.power_w is not None
    return lever.promise(work, power, share * power.power_w)


async def unknown_power_promises_nothing(world: LeverWorld) -> None:
    lever, power = world.lever(), replace(world.power(), power_w=None)
    assert lever.promise(await world.work(), power, 1e6).promised_w == 0.0
    assert lever.promise(None, power, 1e6).promised_w == 0.0


async def two_calls_do_what_one_does_and_the_promise_is_kept(world: LeverWorld) -> None:
    before_w, before = world.power().power_w, world.held()
    lever = world.lever()
    promise = await _promise(world, lever)
    assert promise.subjects, promise.why_not
    assert 0.0 <= promise.promised_w <= (before_w or 0.0)
    mine = order(world, "k1")
    first = await lever.act(mine, promise)
    taken = world.held()
    again = await lever.act(mine, promise)
    assert (world.held(), again.outcome) == (taken, first.outcome) and taken > before
    await world.pass_time(promise.seconds)
    assert (await lever.verify(mine, promise)).outcome is LeverOutcome.DONE
    after_w = world.power().power_w
    assert before_w is not None and after_w is not None
    assert before_w - after_w >= 0.95 * promise.promised_w - world.tolerance_w, "it promised more than it brought"
    await lever.restore(order(world, "another"))
    assert world.held() == taken, "it gave back what another order holds"
    await lever.restore(mine)
    await lever.restore(mine)
    await world.pass_time(120.0)
    assert world.held() == before
    again_w = world.power().power_w
    assert again_w is not None and abs(again_w - before_w) <= 0.01 * before_w + world.tolerance_w


async def what_is_held_ends_or_is_given_back_by_who_comes_after(world: LeverWorld) -> None:
    before, lever = world.held(), world.lever()
    promise = await _promise(world, lever)
    mine = order(world, "k2", 300.0)
    await lever.act(mine, promise)
    await world.pass_time(promise.seconds)
    if world.ends_alone:
        await world.pass_time(400.0)
        assert world.held() == before, "it outlived its order"
        return
    successor = world.lever()  # the agent was killed; the next one knows the order from its disk
    await successor.restore(mine)
    await world.pass_time(120.0)
    assert world.held() == before
