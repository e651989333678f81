"""The simulated LuxOS machine answers pyasic too (pyasic-rs meets it in test_foreign_client), and both see the same."""

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
from sim.miners.luxos import SimLuxOs
from sim.miners.machine import Machine

pytestmark = pytest.mark.system
KIND = miner_class("s21", "luxos", "Antminer S21", shed_s=1, wake_s=2)


def absent(told: str) -> Any:
    """A missing component: a failure in CI, else a skip of one line."""
    return pytest.fail(told) if os.environ.get("CI") == "true" else pytest.skip(told)


@asynccontextmanager
async def running(host: str) -> AsyncIterator[SimLuxOs]:
    miner = SimLuxOs(Machine(KIND, 3, now_s=time.monotonic()), "02:00:00:00:00:0A")
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


async def own_reading(miner: SimLuxOs) -> Reading:
    memory = Memory(mode_power_w={mode: point.power_w for mode, point in KIND.modes.items()})
    line = Line(FAMILIES["luxos"], Endpoint(miner.host, 4028, 80), Login("", miner.password), memory, 3.0, Counter())
    return await line.read(slow=True, now_s=time.monotonic())


async def pyasic_of(host: str) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import pyasic
    except ImportError:
        absent("pyasic is not installed; the simulated miners were not checked by a foreign client")
    return await pyasic.get_miner(host)


async def test_pyasic_reads_what_we_read_but_never_returns_a_hashrate_or_a_mac() -> None:
    async with running("127.22.40.1") as miner:
        foreign = await pyasic_of(miner.host)
        assert type(foreign).__name__ == "LUXMinerS21"
        theirs = await foreign.get_data(exclude=["config"])
        ours = await own_reading(miner)
        assert theirs.is_mining
        # 0.79 returns before it has read the replies that it fetched for these two.
        assert (theirs.hashrate, theirs.mac) == (None, None)
        assert (theirs.wattage, theirs.wattage_limit) == (ours.power_w, ours.power_limit_w)


async def test_pyasic_sleeps_and_wakes_and_leaves_no_session_of_ours_in_its_way() -> None:
    async with running("127.22.40.2") as miner:
        foreign = await pyasic_of(miner.host)
        assert await foreign.stop_mining()
        assert miner.machine.mode is Mode.SLEEP
        assert (await own_reading(miner)).mode is Mode.SLEEP
        assert await foreign.resume_mining()
        assert miner.machine.mode is Mode.NORMAL


async def test_pyasic_sets_the_profile_at_or_below_and_puts_thermal_management_back() -> None:
    async with running("127.22.40.3") as miner:
        foreign = await pyasic_of(miner.host)
        assert await foreign.set_power_limit(2200)
        assert miner.machine.mode is Mode.LOW
        assert miner.atm_enabled
        assert (await own_reading(miner)).power_limit_w == 2100
