"""The simulated stock Antminer answers pyasic too (pyasic-rs: test_foreign_client), with its CGI behind digest."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from gridpivot.vocabulary import DeviceState, Mode
from sim.miners.antminer import SimAntminer

pytestmark = pytest.mark.system


@pytest.fixture
async def miner(met: Callable[..., Any]) -> SimAntminer:
    started = await met(SimAntminer, "Antminer S19 Pro", "127.21.4.1", (4028, 80, 0))
    assert isinstance(started, SimAntminer)
    return started


async def test_pyasic_reads_what_we_read(miner: SimAntminer, python_library: Any, own: Any) -> None:
    foreign = await python_library(miner)
    ours, theirs = await own(miner), await foreign.get_data()
    assert foreign.raw_model == "S19 Pro" and theirs.is_mining and ours.state is DeviceState.HASHING
    assert float(theirs.hashrate.rate) * 1e12 == pytest.approx(ours.hashrate_hs, rel=1e-4)
    assert theirs.wattage is None and ours.power_w is None
    assert theirs.mac == ours.mac
    assert [error.error_message for error in theirs.errors] == list(ours.fault_codes) == []


async def test_pyasic_reads_the_same_trouble(miner: SimAntminer, python_library: Any, own: Any) -> None:
    miner.trouble = [("fans", "fan 3 lost")]
    foreign = await python_library(miner)
    theirs = await foreign.get_errors()
    assert [error.error_message for error in theirs] == ["fan 3 lost"]
    assert (await own(miner)).fault_codes == ("fans: fan 3 lost",)


async def test_pyasic_stops_and_resumes_it(miner: SimAntminer, python_library: Any) -> None:
    foreign = await python_library(miner)
    assert await foreign.stop_mining()
    assert miner.machine.mode is Mode.SLEEP
    assert await foreign.resume_mining()
    assert miner.machine.mode is Mode.NORMAL


async def test_pyasic_rs_sees_no_watts_of_a_newer_model_whose_page_we_read(
    met: Any, rust_library: Any, own: Any
) -> None:
    class Newer(SimAntminer):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            self.newer_model = True

    newer = await met(Newer, "Antminer S21", "127.21.4.2", (4028, 80, 6060))
    ours = await own(newer)
    theirs = await (await rust_library(newer)).get_data()
    assert theirs.wattage is None  # it knows nothing of the page
    assert ours.power_w is not None and ours.power_w > 3000 * 0.8
    assert theirs.hashrate.value * 1e12 == pytest.approx(ours.hashrate_hs, rel=1e-4)
