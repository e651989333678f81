"""The simulated LuxOS machine answers pyasic too (pyasic-rs meets it in test_foreign_client), and both see the same."""

from __future__ import annotations

from functools import partial

import pytest

from gridpivot.curves import miner_class
from gridpivot.vocabulary import Mode
from sim.miners.luxos import SimLuxOs
from tests.conformance.foreign import machine_at, own_reading, pyasic_of

pytestmark = pytest.mark.system
KIND = miner_class("s21", "luxos", "Antminer S21", shed_s=1, wake_s=2)
running = partial(machine_at, SimLuxOs, KIND)


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
