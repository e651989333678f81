"""The simulated ePIC machine answers pyasic-rs and pyasic, and both see what our reader sees (ports 4028 and 80,
both HTTP)."""

from __future__ import annotations

from functools import partial

import pytest

from gridpivot.curves import miner_class
from gridpivot.vocabulary import Mode
from sim.miners.epic import SimEpic
from tests.conformance.foreign import machine_at, own_reading, pyasic_of, pyasic_rs_of

pytestmark = pytest.mark.system
KIND = miner_class("s19xp", "epic", "Antminer S19 XP", shed_s=1, wake_s=2)
running = partial(machine_at, SimEpic, KIND)


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
