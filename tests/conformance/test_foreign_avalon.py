"""The simulated Avalon answers pyasic-rs and pyasic, which unpack its figures by their own code.

Power differs by design: where firmware gives both figures, pyasic reads the wall's (WALLPOWER), as we do, and pyasic-rs
on the A series the supply's output (fifth of PS).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from gridpivot.vocabulary import DeviceState, Mode
from sim.miners.avalon import DELIVERED, SimAvalon

pytestmark = pytest.mark.system
PORTS = (4028, 0, 0)
PLATE = (90.0, 3420.0)


@pytest.fixture
async def miner(met: Callable[..., Any]) -> SimAvalon:
    started = await met(SimAvalon, "AvalonMiner 1246", "127.21.2.1", PORTS, PLATE)
    assert isinstance(started, SimAvalon)
    return started


def pass_time(miner: SimAvalon, seconds: float) -> None:
    """Move the device's own clock ahead for a moment, so that a switch dated ahead is carried out now."""
    wall_s = miner.wall_s
    miner.wall_s = lambda: wall_s() + seconds
    miner.settle()
    miner.wall_s = wall_s


async def test_pyasic_rs_reads_what_we_read(miner: SimAvalon, rust_library: Any, own: Any) -> None:
    foreign = await rust_library(miner)
    assert (foreign.model, foreign.firmware) == ("Avalon1246", "AvalonMiner Stock")
    theirs, ours = await foreign.get_data(), await own(miner)
    assert theirs.is_mining and ours.state is DeviceState.HASHING
    assert theirs.hashrate.value * 1e12 == pytest.approx(ours.hashrate_hs, rel=1e-4)
    assert theirs.wattage == pytest.approx(ours.power_w * DELIVERED, abs=1)
    assert max(board.outlet_chip_temperature for board in theirs.hashboards) == ours.temp_c
    assert theirs.tuning_target.watts == pytest.approx(ours.power_w, abs=1)  # it takes the seventh of PS for the limit
    assert (str(theirs.mac), theirs.serial_number) == (ours.mac, ours.serial)
    assert theirs.uptime.total_seconds() == pytest.approx(ours.uptime_s, abs=2)


async def test_pyasic_rs_calls_a_taken_switch_refused_since_it_expects_other_words(
    miner: SimAvalon, rust_library: Any
) -> None:
    foreign = await rust_library(miner)
    assert not await foreign.pause()  # real firmware answers "success softoff:..." with status I (recorded)
    pass_time(miner, 6)
    assert miner.machine.mode is Mode.SLEEP
    assert not await foreign.resume()
    pass_time(miner, 6)
    assert miner.machine.mode is Mode.NORMAL


async def test_pyasic_rs_sends_its_power_limit_in_words_that_no_avalon_takes(
    miner: SimAvalon, rust_library: Any
) -> None:
    foreign = await rust_library(miner)
    with pytest.raises(RuntimeError, match="Invalid parameter"):
        await foreign.set_power_limit(2500.0)
    assert miner.orders[-1].startswith("0,worklevel,set,2.5")  # kilowatts, with the unit


async def test_pyasic_reads_what_we_read(miner: SimAvalon, python_library: Any, own: Any) -> None:
    foreign = await python_library(miner)
    ours, theirs = await own(miner), await foreign.get_data()
    assert "1246" in foreign.model
    assert float(theirs.hashrate.rate) * 1e12 == pytest.approx(ours.hashrate_hs, rel=1e-4)
    assert theirs.wattage == ours.power_w
    assert theirs.wattage_limit == ours.power_limit_w
    assert theirs.mac == ours.mac
    assert max(board.chip_temp for board in theirs.hashboards) == ours.temp_c


async def test_pyasic_stops_and_resumes_it(miner: SimAvalon, python_library: Any, own: Any) -> None:
    foreign = await python_library(miner)
    assert await foreign.stop_mining()
    pass_time(miner, 6)
    assert miner.machine.mode is Mode.SLEEP and (await own(miner)).mode is Mode.SLEEP
    assert await foreign.resume_mining()
    pass_time(miner, 6)
    assert miner.machine.mode is Mode.NORMAL


async def test_pyasic_takes_watts_for_a_work_level_which_a_q_accepts_and_an_a1246_refuses(
    miner: SimAvalon, met: Any, python_library: Any
) -> None:
    assert not await (await python_library(miner)).set_power_limit(2500)
    small = await met(SimAvalon, "Avalon Q", "127.21.2.2", PORTS, PLATE)
    assert await (await python_library(small)).set_power_limit(800)
    assert small.orders == ["0,worklevel,set,2"]  # the highest level for any figure above 100
