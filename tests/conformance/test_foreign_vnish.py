"""The simulated VNish machine answers pyasic-rs and pyasic, and both see what our reader sees (ports 4028 and 80)."""

from __future__ import annotations

from functools import partial

import pytest

from gridpivot.curves import miner_class
from gridpivot.vocabulary import Mode
from sim.miners.vnish import SimVNish
from tests.conformance.foreign import machine_at, own_reading, pyasic_of, pyasic_rs_of

pytestmark = pytest.mark.system
KIND = miner_class("s21pro", "vnish", "Antminer S21 Pro", shed_s=1, wake_s=2)
running = partial(machine_at, SimVNish, KIND)


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
