"""A site of every family behind shared ports: read, put to sleep and woken by the poller as one fleet."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import numpy as np
import pytest

from agent.asic.poller import AsicPoller
from agent.asic.registry import CAPABILITIES, FAMILIES
from agent.asic.settings import AsicSettings
from gridpivot.clock import SystemClock
from gridpivot.columns import DeviceTable
from gridpivot.vocabulary import DeviceState, Mode, Provenance, Reason
from sim.miners.fleet import CLASSES, EVERY_FAMILY, WireMiners

pytestmark = pytest.mark.unit
Until = Callable[..., Awaitable[None]]


def test_every_family_but_the_library_has_a_simulated_machine() -> None:
    assert {entry.family for entry in CLASSES.values()} == set(FAMILIES) - {"other"}


async def test_every_family_is_read_shed_and_seen_asleep(until: Until) -> None:
    clock = SystemClock()
    mix = dict.fromkeys(EVERY_FAMILY, 1.0)
    async with WireMiners(2 * len(mix), mix, speed=200.0, shared_ports=True) as fleet:
        settings = AsicSettings(beat_s=0.5, slow_beat_s=5.0, deadline_s=2.0)
        poller = AsicPoller(fleet.inventory(), settings, fleet.logins(), clock)
        running = asyncio.create_task(poller.run())
        table, polled_at_s = DeviceTable(len(fleet.miners)), np.full(len(fleet.miners), np.nan)

        def look() -> DeviceTable:
            poller.refresh(table, polled_at_s, clock.now())
            return table

        await until(lambda: bool((look()["state"] == DeviceState.HASHING.code).all()), 20.0)
        for row, miner in enumerate(fleet.miners):
            true_hs = miner.machine.hashrate_hs(miner.clock())
            assert table["hashrate_hs"][row] == pytest.approx(true_hs, rel=0.02), miner.family
            if CAPABILITIES[miner.family].has_power:
                assert table["power_w"][row] == pytest.approx(miner.machine.true_power_w(miner.clock()), rel=0.25)
                assert table["provenance"][row] in (Provenance.DEVICE.code, Provenance.MODELLED.code)
        rows = np.arange(len(fleet.miners))

        async def moved(which: np.ndarray, mode: Mode) -> None:
            poller.command(which, mode, clock.now())
            await until(lambda: all(fleet.miners[row].machine.mode is mode for row in which), 25.0)
            await until(lambda: all((order := poller.last_command(row)) and order.ended_s for row in which), 25.0)
            ended = {fleet.miners[row].family: poller.last_command(row) for row in which}
            assert {name: order for name, order in ended.items() if order and order.reason is not Reason.NONE} == {}

        await moved(rows, Mode.SLEEP)
        fast = np.array([CAPABILITIES[miner.family].shed_s <= 10.0 for miner in fleet.miners])
        await until(lambda: bool((look()["state"][fast] == DeviceState.SLEEPING.code).all()), 20.0)
        await moved(rows, Mode.NORMAL)
        with_low = np.array([row for row in rows if Mode.LOW in fleet.miners[row].kind.modes])
        assert len(with_low) > len(rows) // 2
        await moved(with_low, Mode.LOW)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
