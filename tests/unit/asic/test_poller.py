"""The poller against simulated miners over real sockets: columns, evidence, silence, bad input, commands."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from agent.asic.inventory import AsicInventory
from agent.asic.poller import AsicPoller
from agent.asic.settings import AsicSettings
from gridpivot.clock import SystemClock
from gridpivot.columns import DeviceTable
from gridpivot.vocabulary import DeviceState, Mode, Provenance, Reason
from sim.miners.fault import WireFault
from sim.miners.fleet import WireMiners
from sim.miners.luxos import SimLuxOs
from sim.miners.machine import FAILOVER_S, IDLE_AFTER_S, POOLS

pytestmark = pytest.mark.unit
Until = Callable[..., Awaitable[None]]
QUICK = AsicSettings(beat_s=0.2, deadline_s=0.5, command_backoff_s=0.1, slow_beat_s=5)


class Watched:
    """A running poller and its newest table."""

    def __init__(self, poller: AsicPoller) -> None:
        self.poller = poller
        count = poller.inventory.site.device_count
        self.table, self.polled_at_s = DeviceTable(count), np.full(count, np.nan)

    def look(self) -> DeviceTable:
        self.poller.refresh(self.table, self.polled_at_s, SystemClock().now())
        return self.table

    def states(self) -> list[DeviceState]:
        return [DeviceState.of(code) for code in self.look()["state"].tolist()]  # type: ignore[misc]

    def reason(self, row: int) -> Reason:
        return Reason.of(int(self.look()["reason"][row]))  # type: ignore[return-value]

    def command(self, rows: list[int], mode: Mode) -> float:
        now = SystemClock().now()
        self.poller.command(np.array(rows, dtype=np.int64), mode, now)
        return now.monotonic_s

    def ended(self, *rows: int) -> bool:
        lasts = [self.poller.last_command(row) for row in rows]
        return all(last is not None and last.ended_s is not None for last in lasts)


@asynccontextmanager
async def polled(
    fleet: WireMiners, settings: AsicSettings = QUICK, inventory: AsicInventory | None = None, **changes: Any
) -> AsyncIterator[Watched]:
    poller = AsicPoller(inventory or fleet.inventory(), settings.model_copy(update=changes), fleet.logins())
    task = asyncio.create_task(poller.run())
    try:
        yield Watched(poller)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_all_families_fill_the_table_and_only_stock_antminers_lack_watts(until: Until) -> None:
    async with WireMiners(10) as fleet, polled(fleet) as site:
        await until(lambda: set(site.states()) == {DeviceState.HASHING})
        table = site.look()
        stock = np.array([miner.family == "antminer" for miner in fleet.miners])
        assert np.isnan(table["power_w"]).tolist() == stock.tolist()
        assert (table["provenance"][~stock] == Provenance.DEVICE.code).all()
        assert np.isfinite(table["hashrate_hs"]).all() and np.isfinite(site.polled_at_s).all()
        assert (table["age_s"] < 5).all()
        await until(lambda: (site.look()["mode"] == Mode.NORMAL.code).all())
        facts = site.poller.facts(0)
        assert facts is not None and facts.model == fleet.miners[0].kind.model


async def test_the_governors_column_is_left_alone(until: Until) -> None:
    async with WireMiners(3) as fleet, polled(fleet) as site:
        site.table["desired_mode"][:] = Mode.LOW.code
        await until(lambda: site.states()[0] is DeviceState.HASHING)
        assert (site.table["desired_mode"] == Mode.LOW.code).all()


async def test_sleep_is_confirmed_only_by_a_poll_that_began_after_the_command(until: Until) -> None:
    async with WireMiners(10) as fleet, polled(fleet, slow_beat_s=600.0) as site:
        await until(lambda: set(site.states()) == {DeviceState.HASHING})
        commanded_s = site.command(list(range(10)), Mode.SLEEP)
        await until(lambda: site.ended(*range(10)))
        assert {site.poller.last_command(row).reason for row in range(10)} == {Reason.NONE}  # type: ignore[union-attr]
        await until(lambda: (site.look()["mode"] == Mode.SLEEP.code).all())
        assert (site.polled_at_s > commanded_s).all()
        assert all(miner.machine.mode is Mode.SLEEP for miner in fleet.miners)
        assert site.poller.counters["commands"] == {"accepted": 10}


async def test_silent_device_is_unreachable_with_unknown_power_and_the_sweep_goes_on(until: Until) -> None:
    async with WireMiners(5) as fleet, polled(fleet) as site:
        await until(lambda: set(site.states()) == {DeviceState.HASHING})
        fleet.miners[0].fault = WireFault.SILENT
        await fleet.miners[1].stop()
        await until(lambda: site.states()[:2] == [DeviceState.UNREACHABLE] * 2)
        seen_s = site.polled_at_s[0]
        assert np.isnan(site.table["power_w"][:2]).all() and np.isnan(site.table["hashrate_hs"][:2]).all()
        assert [site.reason(0), site.reason(1)] == [Reason.SLOW, Reason.REFUSED]
        polls = site.polled_at_s[2]
        await until(lambda: bool(site.look() and site.polled_at_s[2] > polls))
        assert site.polled_at_s[0] == seen_s and site.table["age_s"][0] > 0
        fleet.miners[0].fault = WireFault.NONE
        await until(lambda: site.states()[0] is DeviceState.HASHING)


@pytest.mark.parametrize(
    ("fault", "state", "reason"),
    [
        (WireFault.HUGE, DeviceState.UNKNOWN, Reason.GARBLED),
        (WireFault.ENDLESS, DeviceState.UNKNOWN, Reason.GARBLED),
        (WireFault.GARBAGE, DeviceState.UNKNOWN, Reason.GARBLED),
        (WireFault.TRUNCATED, DeviceState.UNKNOWN, Reason.GARBLED),
        (WireFault.SILENT, DeviceState.UNREACHABLE, Reason.SLOW),
    ],
)
async def test_bad_replies_cost_that_device_alone(
    fault: WireFault, state: DeviceState, reason: Reason, until: Until
) -> None:
    async with WireMiners(4) as fleet, polled(fleet, deadline_s=1.5) as site:
        await until(lambda: set(site.states()) == {DeviceState.HASHING})
        fleet.miners[0].fault = fault
        await until(lambda: site.states()[0] is state)
        assert site.reason(0) is reason
        assert np.isnan(site.table["power_w"][0])
        assert site.states()[1:] == [DeviceState.HASHING] * 3
        assert site.poller.counters["failures"][reason] >= 1


async def test_hashing_without_accepted_shares_becomes_no_pool(until: Until) -> None:
    async with WireMiners(3, {"s21-luxos": 1}) as fleet, polled(fleet, no_pool_after_s=1.0) as site:
        fleet.miners[0].machine.pool_alive = False
        await until(lambda: site.reason(0) is Reason.NO_POOL)
        assert site.states()[0] is DeviceState.HASHING


async def test_a_pool_failover_is_seen_as_another_pool_and_not_as_a_site_without_one(until: Until) -> None:
    now_s = [1e6]
    options = {"slow_beat_s": 1.0, "no_pool_after_s": 60.0}
    async with (
        WireMiners(4, {"s21-luxos": 1}, clock=lambda: now_s[0]) as fleet,
        polled(fleet, **options) as site,
    ):

        def pools() -> set[str | None]:
            return {None if (facts := site.poller.facts(row)) is None else facts.pool_url for row in range(4)}

        await until(lambda: pools() == {POOLS[0]})
        for miner in fleet.miners:
            miner.machine.pools_up[0] = False
            miner.machine.accepted_shares(now_s[0] + 1.0)
        now_s[0] += 1.0 + FAILOVER_S
        await until(lambda: pools() == {POOLS[1]})
        assert {site.reason(row) for row in range(4)} == {Reason.NONE}


async def test_a_site_without_pools_idles_and_a_reconnect_storm_brings_everybody_back(until: Until) -> None:
    now_s = [1e6]
    async with WireMiners(6, {"s21-luxos": 1}, clock=lambda: now_s[0]) as fleet, polled(fleet) as site:
        await until(lambda: set(site.states()) == {DeviceState.HASHING})
        for miner in fleet.miners:
            miner.machine.pool_alive = False
            miner.machine.accepted_shares(now_s[0] + 1.0)
        now_s[0] += 1.0 + IDLE_AFTER_S
        await until(lambda: set(site.states()) == {DeviceState.IDLE})
        drawn_w = float(np.nansum(site.look()["power_w"]))
        for miner in fleet.miners:
            miner.machine.pool_alive = True
        now_s[0] += 1.0
        await until(lambda: set(site.states()) == {DeviceState.HASHING})
        assert float(np.nansum(site.look()["power_w"])) > 2.0 * drawn_w


async def test_maintenance_lock_refuses_commands_and_shows(until: Until) -> None:
    async with WireMiners(2, {"s21-luxos": 1}) as fleet:
        inventory = replace(fleet.inventory(), maintenance=np.array([True, False]))
        async with polled(fleet, inventory=inventory) as site:
            await until(lambda: set(site.states()) == {DeviceState.HASHING})
            site.command([0, 1], Mode.SLEEP)
            await until(lambda: site.ended(0, 1))
            last = site.poller.last_command(0)
            assert last is not None and last.reason is Reason.MAINTENANCE
            assert fleet.miners[0].machine.mode is Mode.NORMAL
            assert fleet.miners[1].machine.mode is Mode.SLEEP
            assert site.reason(0) is Reason.MAINTENANCE


async def test_unsupported_mode_is_an_outcome(until: Until) -> None:
    async with WireMiners(1, {"m60-whatsminer": 1}) as fleet, polled(fleet) as site:
        site.command([0], Mode.TURBO)
        await until(lambda: site.ended(0))
        last = site.poller.last_command(0)
        assert last is not None and last.reason is Reason.UNSUPPORTED and last.attempts == 1


async def test_command_to_a_dead_device_is_tried_again_then_given_up_with_a_word(until: Until) -> None:
    async with WireMiners(2, {"s21-luxos": 1}) as fleet, polled(fleet, command_attempts=3) as site:
        await fleet.miners[0].stop()
        site.command([0, 1], Mode.SLEEP)
        await until(lambda: site.ended(0, 1))
        dead, alive = site.poller.last_command(0), site.poller.last_command(1)
        assert dead is not None and (dead.reason, dead.attempts) == (Reason.REFUSED, 3)
        assert alive is not None and alive.reason is Reason.NONE


async def test_command_goes_through_once_a_device_answers_again(until: Until) -> None:
    async with WireMiners(1, {"s21-luxos": 1}) as fleet, polled(fleet, command_attempts=10) as site:
        fleet.miners[0].fault = WireFault.SILENT
        site.command([0], Mode.SLEEP)
        await until(lambda: site.poller.last_command(0).attempts >= 1)  # type: ignore[union-attr]
        fleet.miners[0].fault = WireFault.NONE
        await until(lambda: site.ended(0))
        assert fleet.miners[0].machine.mode is Mode.SLEEP


async def test_newest_order_wins(until: Until) -> None:
    async with WireMiners(6) as fleet, polled(fleet) as site:
        rows = list(range(6))
        site.command(rows, Mode.SLEEP)
        site.command(rows, Mode.LOW)
        await until(lambda: site.ended(*rows))
        await until(lambda: all(miner.machine.mode is Mode.LOW for miner in fleet.miners))


async def test_newer_order_does_not_wait_out_the_back_off_of_the_older(until: Until) -> None:
    async with WireMiners(1, {"s21-luxos": 1}) as fleet, polled(fleet, command_backoff_s=60.0) as site:
        miner = fleet.miners[0]
        assert isinstance(miner, SimLuxOs)
        miner.open_foreign_session()
        site.command([0], Mode.LOW)
        await until(lambda: site.poller.last_command(0).attempts == 1)  # type: ignore[union-attr]
        miner.close_foreign_session()
        site.command([0], Mode.SLEEP)
        await until(lambda: miner.machine.mode is Mode.SLEEP, deadline_s=5.0)


async def test_sheds_overtake_wake_ups_that_wait(until: Until) -> None:
    async with WireMiners(12, {"s21-luxos": 1}) as fleet, polled(fleet, command_concurrency=1) as site:
        site.command(list(range(6)), Mode.LOW)
        site.command(list(range(6, 12)), Mode.SLEEP)
        await until(lambda: site.ended(*range(12)))
        ends = [site.poller.last_command(row).ended_s for row in range(12)]  # type: ignore[union-attr]
        assert sorted(ends[1:6])[0] > max(ends[6:])  # type: ignore[type-var, operator]


async def test_a_defect_in_a_parser_blinds_one_device_not_the_site(until: Until) -> None:
    async with WireMiners(3, {"s21-luxos": 1}) as fleet, polled(fleet) as site:

        class Broken:
            def __getattr__(self, name: str) -> Any:
                raise RuntimeError("a defect")

        site.poller._lines[0].family = Broken()  # type: ignore[assignment]
        await until(lambda: site.reason(0) is Reason.FAILED and site.states()[1] is DeviceState.HASHING)
        assert site.states()[0] is DeviceState.UNKNOWN


async def test_cancelling_ends_every_task() -> None:
    async with WireMiners(3) as fleet:
        before = asyncio.all_tasks()
        async with polled(fleet):
            await asyncio.sleep(0)
        left = [task for task in asyncio.all_tasks() - before if task.get_name().startswith("asic-")]
        assert left == []


async def test_refresh_and_command_return_at_once_for_a_whole_site() -> None:
    """Neither face may block the governor's tick."""
    async with WireMiners(200) as fleet:
        site = Watched(AsicPoller(fleet.inventory(), QUICK, fleet.logins()))
        started_s = time.perf_counter()
        site.look()
        site.command(list(range(200)), Mode.SLEEP)
        assert time.perf_counter() - started_s < 0.05


async def test_written_inventory_finds_the_same_miners(tmp_path: Any) -> None:
    from agent.asic.inventory import load_inventory

    async with WireMiners(7) as fleet:
        loaded, built = load_inventory(fleet.write_inventory(tmp_path)), fleet.inventory()
        assert loaded.endpoints == built.endpoints
        assert loaded.site.classes == built.site.classes
        assert loaded.site.mac_addresses == built.site.mac_addresses
        assert loaded.profiles == built.profiles
