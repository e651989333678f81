"""The simulated Auradine answers pyasic-rs and pyasic, which fetch tokens and read pages by their own code."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from gridpivot.vocabulary import DeviceState, Mode
from sim.miners.auradine import SimAuradine

pytestmark = pytest.mark.system


@pytest.fixture
async def miner(met: Callable[..., Any]) -> SimAuradine:
    started = await met(SimAuradine, "Auradine AT1500", "127.21.3.1", (4028, 8080, 0), (150.0, 3400.0))
    assert isinstance(started, SimAuradine)
    return started


async def test_pyasic_rs_reads_what_we_read(miner: SimAuradine, rust_library: Any, own: Any) -> None:
    foreign = await rust_library(miner)
    assert (foreign.make, foreign.model, foreign.firmware) == ("Auradine", "AT1500", "Auradine Stock")
    theirs, ours = await foreign.get_data(), await own(miner)
    assert theirs.is_mining and ours.state is DeviceState.HASHING
    assert theirs.hashrate.value * 1e12 == pytest.approx(ours.hashrate_hs)
    assert theirs.wattage == ours.power_w
    assert (str(theirs.mac), theirs.serial_number) == (ours.mac, ours.serial)
    assert str(theirs.tuning_target.target_mode) == "Normal" and ours.mode is Mode.NORMAL
    assert theirs.uptime.total_seconds() == pytest.approx(ours.uptime_s, abs=2)
    assert theirs.firmware_version == ours.firmware


async def test_pyasic_rs_stops_resumes_and_limits_it(miner: SimAuradine, rust_library: Any, own: Any) -> None:
    foreign = await rust_library(miner)
    assert await foreign.pause()
    assert miner.machine.mode is Mode.SLEEP and (await own(miner)).mode is Mode.SLEEP
    assert await foreign.resume()
    assert miner.machine.mode is Mode.NORMAL
    assert await foreign.set_power_limit(2500.0)
    assert (await own(miner)).power_limit_w == 2500.0


async def test_pyasic_reads_what_we_read(miner: SimAuradine, python_library: Any, own: Any) -> None:
    foreign = await python_library(miner)
    ours, theirs = await own(miner), await foreign.get_data()
    assert foreign.raw_model == "AT1500" and theirs.is_mining
    assert float(theirs.hashrate.rate) * 1e12 == pytest.approx(ours.hashrate_hs)
    assert theirs.wattage == ours.power_w
    assert (theirs.mac, theirs.fw_ver) == (ours.mac, ours.firmware)
    assert max(board.temp for board in theirs.hashboards) == pytest.approx(ours.temp_c, abs=0.51)


async def test_pyasic_stops_resumes_and_limits_it(miner: SimAuradine, python_library: Any, own: Any) -> None:
    foreign = await python_library(miner)
    assert await foreign.stop_mining()
    assert miner.machine.mode is Mode.SLEEP
    assert not (await foreign.get_data()).is_mining
    assert await foreign.resume_mining()
    assert miner.machine.mode is Mode.NORMAL
    assert await foreign.set_power_limit(2600)
    assert (await own(miner)).power_limit_w == 2600.0
