"""Miners that lie, dribble or are somebody else: each has its outcome, counted; its value is not believed, nobody waits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

import numpy as np
import pytest

from agent.asic.poller import AsicPoller
from agent.asic.settings import AsicSettings
from agent.governor.decide import decide
from agent.governor.meter_watch import MeterWatch
from agent.governor.state import GovernorState, Orders, Policy, Sensed
from gridpivot.clock import SystemClock
from gridpivot.columns import DeviceTable
from gridpivot.vocabulary import DeviceState, Mode, Reason, Rung
from sim.miners.fault import WireFault
from sim.miners.fleet import WireMiners
from sim.miners.wire import WireMiner

pytestmark = pytest.mark.unit
Until = Callable[..., Awaitable[None]]
SETTINGS = AsicSettings(beat_s=0.2, deadline_s=0.6, slow_beat_s=1.0, command_backoff_s=0.1, command_attempts=2)


class Site:
    """Four LuxOS machines and a running poller; machine 0 is the one that lies."""

    def __init__(self, fleet: WireMiners) -> None:
        self.fleet = fleet
        self.poller = AsicPoller(fleet.inventory(), SETTINGS, fleet.logins())
        count = len(fleet.miners)
        self.table, self.polled_at_s = DeviceTable(count), np.full(count, np.nan)

    def look(self) -> DeviceTable:
        self.poller.refresh(self.table, self.polled_at_s, SystemClock().now())
        return self.table

    def state(self, row: int = 0) -> DeviceState:
        return DeviceState.of(int(self.look()["state"][row]))

    def reason(self, row: int = 0) -> Reason:
        return Reason.of(int(self.look()["reason"][row]))


@asynccontextmanager
async def running(until: Until) -> AsyncIterator[Site]:
    async with WireMiners(4, {"s21-luxos": 1.0}) as fleet:
        site = Site(fleet)
        task = asyncio.create_task(site.poller.run())
        await until(lambda: all(site.state(row) is DeviceState.HASHING for row in range(4)))
        try:
            yield site
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def neighbours_are_read(site: Site, until: Until) -> None:
    site.look()
    before = site.polled_at_s[1:].copy()
    await until(lambda: bool(site.look() and (site.polled_at_s[1:] > before).all()))
    assert all(site.state(row) is DeviceState.HASHING for row in (1, 2, 3))
    assert np.isfinite(site.table["power_w"][1:]).all()


def ten_petahash(miner: WireMiner) -> None:
    miner.machine.hashrate_hs = lambda now_s: 1e16  # type: ignore[method-assign]


def one_megawatt(miner: WireMiner) -> None:
    miner.machine.reported_power_w = lambda now_s: 1e6  # type: ignore[method-assign]


def minus_watts(miner: WireMiner) -> None:
    miner.machine.reported_power_w = lambda now_s: -3500.0  # type: ignore[method-assign]


def nine_hundred_degrees(miner: WireMiner) -> None:
    miner.machine.temp_c = lambda now_s: 900.0  # type: ignore[method-assign]


@pytest.mark.parametrize(
    ("lie", "column", "word"),
    [
        (ten_petahash, "hashrate_hs", "hashrate"),
        (one_megawatt, "power_w", "power"),
        (minus_watts, "power_w", "power"),
        (nine_hundred_degrees, "temp_c", "temperature"),
    ],
)
async def test_an_absurd_figure_is_not_believed_and_counted(
    lie: Callable[[WireMiner], None], column: str, word: str, until: Until
) -> None:
    async with running(until) as site:
        assert np.isfinite(site.look()[column][0])
        lie(site.fleet.miners[0])
        await until(lambda: bool(np.isnan(site.look()[column][0])))
        assert site.reason() is Reason.IMPLAUSIBLE
        assert site.poller.counters["doubts"][word] >= 1
        await neighbours_are_read(site, until)


async def test_a_machine_with_another_mac_is_not_the_one_of_the_inventory(until: Until) -> None:
    async with running(until) as site:
        site.fleet.miners[0].mac = "02:99:99:99:99:99"
        await until(lambda: site.reason() is Reason.WRONG_DEVICE)
        assert site.state() is DeviceState.UNKNOWN and np.isnan(site.table["power_w"][0])
        assert site.poller.counters["doubts"]["other_mac"] >= 1
        seen_s = float(site.polled_at_s[0])
        await neighbours_are_read(site, until)
        assert site.polled_at_s[0] == seen_s  # of the machine in the inventory nothing has been heard since


async def test_a_machine_of_another_model_is_not_believed(until: Until) -> None:
    async with running(until) as site:
        machine = site.fleet.miners[0].machine
        machine.kind = replace(machine.kind, model="Antminer S19 Pro")
        await until(lambda: site.reason() is Reason.WRONG_DEVICE)
        assert np.isnan(site.table["power_w"][0]) and np.isnan(site.table["hashrate_hs"][0])
        assert site.poller.counters["doubts"]["other_model"] >= 1
        await neighbours_are_read(site, until)


@pytest.mark.parametrize(
    ("fault", "state", "reason"),
    [
        (WireFault.TRICKLE, DeviceState.UNREACHABLE, Reason.SLOW),
        (WireFault.SILENT, DeviceState.UNREACHABLE, Reason.SLOW),
        (WireFault.TRUNCATED, DeviceState.UNKNOWN, Reason.GARBLED),
    ],
)
async def test_a_machine_that_dribbles_or_breaks_off_delays_nobody(
    fault: WireFault, state: DeviceState, reason: Reason, until: Until
) -> None:
    async with running(until) as site:
        site.fleet.miners[0].fault = fault
        await until(lambda: site.state() is state)
        assert site.reason() is reason and np.isnan(site.table["power_w"][0])
        assert site.poller.counters["failures"][reason] >= 1
        await neighbours_are_read(site, until)


async def test_a_command_to_a_machine_that_left_is_unreachable_and_its_power_stays_charged(until: Until) -> None:
    async with running(until) as site:
        inventory = site.poller.inventory.site
        state, orders = GovernorState(inventory), Orders(1e6, Rung.MERIT_ORDER, None, [])
        policy = Policy(ceiling_w=1e6, protection_w=1.1e6)

        def mining_w() -> float:
            now_s = SystemClock().now().monotonic_s
            sensed = Sensed(site.look(), site.polled_at_s, None, ())
            return decide(state, MeterWatch(5.0, 6.0, 2e4), sensed, orders, policy, now_s).picture.mining_w

        before_w = mining_w()
        await site.fleet.miners[0].stop()
        await until(lambda: site.state() is DeviceState.UNREACHABLE)
        site.poller.command(np.array([0]), Mode.SLEEP, SystemClock().now())
        await until(lambda: (order := site.poller.last_command(0)) is not None and order.ended_s is not None)
        order = site.poller.last_command(0)
        assert order is not None and order.reason in (Reason.UNREACHABLE, Reason.REFUSED)
        assert order.attempts == 2
        assert mining_w() == pytest.approx(before_w, rel=0.01)
