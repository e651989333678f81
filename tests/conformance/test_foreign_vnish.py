"""The simulated VNish machine answers pyasic-rs and pyasic, and both see what our reader sees (ports 4028 and 80)."""

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
from sim.miners.machine import Machine
from sim.miners.vnish import SimVNish

pytestmark = pytest.mark.system
KIND = miner_class("s21pro", "vnish", "Antminer S21 Pro", shed_s=1, wake_s=2)


def absent(told: str) -> Any:
    """A missing component: a failure in CI, else a skip of one line."""
    return pytest.fail(told) if os.environ.get("CI") == "true" else pytest.skip(told)


@asynccontextmanager
async def running(host: str) -> AsyncIterator[SimVNish]:
    miner = SimVNish(Machine(KIND, 3, now_s=time.monotonic()), "02:00:00:00:00:0A")
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


async def own_reading(miner: SimVNish) -> Reading:
    memory = Memory(mode_power_w={mode: point.power_w for mode, point in KIND.modes.items()})
    line = Line(FAMILIES["vnish"], Endpoint(miner.host, 4028, 80), Login("", miner.password), memory, 3.0, Counter())
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
    async with running("127.22.20.1") as miner:
        foreign = await pyasic_rs_of(miner.host)
        assert foreign is not None
        assert (foreign.model, foreign.firmware) == ("S21Pro", "VNish")
        theirs = await foreign.get_data()
        ours = await own_reading(miner)
        assert theirs.is_mining and ours.mode is Mode.NORMAL
        assert ours.hashrate_hs == pytest.approx(theirs.hashrate.value * 1e12, rel=0.01)
        assert theirs.wattage == ours.power_w
        assert str(theirs.mac).upper() == ours.mac == miner.mac
        # It takes the control board's uptime, in whole minutes; ours is how long the mining state has lasted.
        assert theirs.uptime.total_seconds() == pytest.approx(ours.uptime_s, abs=62)


async def test_pyasic_rs_stops_starts_and_sets_the_preset_below() -> None:
    async with running("127.22.20.2") as miner:
        foreign = await pyasic_rs_of(miner.host)
        assert await foreign.pause()
        assert miner.machine.mode is Mode.SLEEP
        assert (await own_reading(miner)).mode is Mode.SLEEP
        assert await foreign.resume()
        assert miner.machine.mode is Mode.NORMAL
        assert await foreign.set_power_limit(2200)
        assert (miner.preset, miner.machine.mode) == ("2106", Mode.LOW)
        assert (await own_reading(miner)).power_limit_w == 2106


async def test_pyasic_reads_what_we_read() -> None:
    async with running("127.22.20.3") as miner:
        foreign = await pyasic_of(miner.host)
        assert type(foreign).__name__ == "VNishS21Pro"
        theirs = await foreign.get_data(exclude=["config"])  # its settings of fans and pools are not simulated
        ours = await own_reading(miner)
        assert theirs.is_mining
        assert float(theirs.hashrate) * 1e12 == pytest.approx(ours.hashrate_hs, rel=0.01)
        assert (theirs.wattage, theirs.wattage_limit) == (ours.power_w, ours.power_limit_w)
        assert theirs.mac == miner.mac
        # It shows the chips' temperature (`temp2_N`) as the board's, and the board's (`tempN`) as the chips'.
        assert max(b.temp for b in theirs.hashboards if b.temp) == pytest.approx(ours.temp_c, abs=1)


async def test_pyasic_stops_and_resumes() -> None:
    async with running("127.22.20.4") as miner:
        foreign = await pyasic_of(miner.host)
        assert await foreign.stop_mining()
        assert miner.machine.mode is Mode.SLEEP
        assert await foreign.resume_mining()
        assert miner.machine.mode is Mode.NORMAL
