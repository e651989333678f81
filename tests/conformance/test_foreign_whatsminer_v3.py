"""The simulated Whatsminer V3 answers pyasic-rs and pyasic, which sign and frame by their own code."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from gridpivot.vocabulary import DeviceState, Mode
from sim.miners.whatsminer_v3 import SimWhatsminerV3

pytestmark = pytest.mark.system
PORTS = (4433, 0, 4028)  # it answers the old dialect on 4028, by which both libraries find it


@pytest.fixture
async def miner(met: Callable[..., Any]) -> SimWhatsminerV3:
    started = await met(SimWhatsminerV3, "Whatsminer M60", "127.21.1.1", PORTS)
    assert isinstance(started, SimWhatsminerV3)
    return started


async def test_pyasic_rs_reads_what_we_read(miner: SimWhatsminerV3, rust_library: Any, own: Any) -> None:
    foreign = await rust_library(miner)
    assert (foreign.make, foreign.model, foreign.firmware) == ("Whatsminer", "M60VK40", "WhatsMiner Stock")
    theirs, ours = await foreign.get_data(), await own(miner)
    assert theirs.is_mining and ours.state is DeviceState.HASHING
    assert theirs.hashrate.value * 1e12 == pytest.approx(ours.hashrate_hs)
    assert (theirs.wattage, str(theirs.mac)) == (ours.power_w, ours.mac)
    assert max(board.outlet_chip_temperature for board in theirs.hashboards) == pytest.approx(ours.temp_c)
    assert theirs.tuning_target.watts == ours.power_limit_w
    assert theirs.firmware_version == ours.firmware
    assert theirs.uptime.total_seconds() == pytest.approx(ours.uptime_s, abs=2)
    assert str(theirs.pools[0].pools[0].url) == ours.pool_url


async def test_pyasic_rs_stops_resumes_and_limits_it(miner: SimWhatsminerV3, rust_library: Any, own: Any) -> None:
    foreign = await rust_library(miner)
    assert await foreign.pause()
    assert miner.machine.mode is Mode.SLEEP and (await own(miner)).mode is Mode.SLEEP
    assert not (await foreign.get_data()).is_mining
    assert await foreign.resume()
    assert miner.machine.mode is Mode.NORMAL
    assert await foreign.set_power_limit(2500.0)
    assert (await own(miner)).power_limit_w == 2500.0


async def test_pyasic_reads_what_we_read(miner: SimWhatsminerV3, python_library: Any, own: Any) -> None:
    foreign = await python_library(miner)
    ours = await own(miner)
    assert "M60" in foreign.model
    assert float((await foreign.get_hashrate()).rate) * 1e12 == pytest.approx(ours.hashrate_hs)
    assert await foreign.get_wattage() == ours.power_w
    assert await foreign.get_wattage_limit() == ours.power_limit_w
    assert (await foreign.get_mac()).upper() == ours.mac
    assert await foreign.get_fw_ver() is None  # pyasic asks for the version of V3 under another name than it stores it
    boards = await foreign.get_hashboards()
    assert max(board.outlet_temp for board in boards) == pytest.approx(ours.temp_c)


async def test_pyasic_stops_resumes_and_limits_it(miner: SimWhatsminerV3, python_library: Any) -> None:
    foreign = await python_library(miner)
    assert await foreign.stop_mining()
    assert miner.machine.mode is Mode.SLEEP
    assert await foreign.resume_mining()
    assert miner.machine.mode is Mode.NORMAL
    assert await foreign.set_power_limit(2600)
    assert miner.limit_w == 2600
