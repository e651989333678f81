"""The simulated ePIC machine answers pyasic-rs and pyasic, and both see what our reader sees (ports 4028 and 80,
both HTTP)."""

from __future__ import annotations

import asyncio
import os
import time
import warnings
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from agent.asic.conversation import Line
from agent.asic.family import Login, Memory, Reading
from agent.asic.registry import FAMILIES
from agent.asic.transport import Endpoint
from gridpivot.curves import miner_class
from gridpivot.vocabulary import Mode
from sim.miners.epic import SimEpic
from sim.miners.machine import Machine

pytestmark = pytest.mark.system
KIND = miner_class("s19xp", "epic", "Antminer S19 XP", shed_s=1, wake_s=2)


def absent(told: str) -> Any:
    """A missing component: a failure in CI, else a skip of one line."""
    return pytest.fail(told) if os.environ.get("CI") == "true" else pytest.skip(told)


@asynccontextmanager
async def running(host: str) -> AsyncIterator[SimEpic]:
    miner = SimEpic(Machine(KIND, 3, now_s=time.monotonic()), "02:00:00:00:00:0A")
    try:
        await miner.start(host, 4028, 80)
    except OSError as error:
        await miner.stop()
        absent(f"ports 4028 and 80 of {host} cannot be bound ({error})")
    try:
        async with asyncio.timeout(50):
            yield miner
    finally:
        await miner.stop()


async def own_reading(miner: SimEpic) -> Reading:
    memory = Memory(mode_power_w={mode: point.power_w for mode, point in KIND.modes.items()})
    line = Line(FAMILIES["epic"], Endpoint(miner.host, 4028, 80), Login("", miner.password), memory, 3.0, Counter())
    return await line.read(slow=True, now_s=time.monotonic())


async def pyasic_rs_of(host: str) -> Any:
    try:
        from pyasic_rs import MinerFactory
    except ImportError:
        absent("pyasic-rs is not installed; the simulated miners were not checked by a foreign client")
    return await MinerFactory().get_miner(host)


async def pyasic_of(host: str) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import pyasic
    except ImportError:
        absent("pyasic is not installed; the simulated miners were not checked by a foreign client")
    return await pyasic.get_miner(host)


async def test_pyasic_rs_reads_what_we_read() -> None:
    async with running("127.22.30.1") as miner:
        foreign = await pyasic_rs_of(miner.host)
        assert foreign is not None
        assert (foreign.model, foreign.firmware) == ("S19XP", "UMC OS")
        theirs = await foreign.get_data()
        ours = await own_reading(miner)
        assert theirs.is_mining and ours.mode is Mode.NORMAL
        assert ours.hashrate_hs == pytest.approx(theirs.hashrate.value * 1e12, rel=0.01)
        assert theirs.wattage == ours.power_w
        assert str(theirs.mac).upper() == ours.mac == miner.mac
        assert theirs.uptime.total_seconds() == pytest.approx(ours.uptime_s, abs=2)


async def test_pyasic_rs_stops_and_starts_and_has_no_power_limit_for_epic() -> None:
    async with running("127.22.30.2") as miner:
        foreign = await pyasic_rs_of(miner.host)
        assert await foreign.pause()
        assert miner.machine.mode is Mode.SLEEP
        assert (await own_reading(miner)).mode is Mode.SLEEP
        assert await foreign.resume()
        assert miner.machine.mode is Mode.NORMAL
        assert not foreign.supports_set_power_limit


async def test_pyasic_reads_what_we_read() -> None:
    async with running("127.22.30.3") as miner:
        foreign = await pyasic_of(miner.host)
        assert type(foreign).__name__ == "ePICS19XP"
        theirs = await foreign.get_data(exclude=["config"])
        ours = await own_reading(miner)
        assert theirs.is_mining
        assert float(theirs.hashrate) * 1e12 == pytest.approx(ours.hashrate_hs, rel=0.01)
        assert theirs.wattage == ours.power_w
        assert theirs.mac == miner.mac
        assert theirs.uptime == pytest.approx(ours.uptime_s, abs=2)
        assert max(b.temp for b in theirs.hashboards) == pytest.approx(ours.temp_c, abs=1)


async def test_pyasic_moves_the_machine_but_looks_for_an_answer_that_epic_does_not_give() -> None:
    """It wants `success` where the firmware documents `result`, so it says no to what it did."""
    async with running("127.22.30.4") as miner:
        foreign = await pyasic_of(miner.host)
        assert not await foreign.stop_mining()
        assert miner.machine.mode is Mode.SLEEP
        assert not await foreign.resume_mining()
        assert miner.machine.mode is Mode.NORMAL
