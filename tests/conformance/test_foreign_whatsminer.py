"""The simulated Whatsminer V2 answers pyasic too (pyasic-rs: test_foreign_client), which signs and encrypts by itself.

pyasic joins reads (`summary+devs`) and takes an error for no data, so its `get_data` is empty where joins are refused, as
this simulated firmware refuses them; its single reads work.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from gridpivot.vocabulary import Mode
from sim.miners.whatsminer import SimWhatsminer

pytestmark = [
    pytest.mark.system,
    pytest.mark.filterwarnings("ignore:passing settings to md5_crypt:DeprecationWarning"),  # pyasic's own
]


@pytest.fixture
async def miner(met: Callable[..., Any]) -> SimWhatsminer:
    started = await met(SimWhatsminer, "Whatsminer M60_VK40", "127.21.5.1", (4028, 0, 0), (172.0, 3422.0))
    assert isinstance(started, SimWhatsminer)
    return started


async def test_pyasic_reads_what_we_read(miner: SimWhatsminer, python_library: Any, own: Any) -> None:
    miner.errors = [{"218": "2024-06-15 10:30:00"}]
    foreign = await python_library(miner)
    ours = await own(miner)
    assert float((await foreign.get_hashrate()).rate) * 1e12 == pytest.approx(ours.hashrate_hs, rel=1e-4)
    assert await foreign.get_wattage() == ours.power_w
    assert await foreign.get_wattage_limit() == ours.power_limit_w
    assert await foreign.get_mac() == ours.mac
    assert [str(error.error_code) for error in await foreign.get_errors()] == list(ours.fault_codes) == ["218"]


async def test_pyasic_stops_resumes_and_limits_it(miner: SimWhatsminer, python_library: Any, own: Any) -> None:
    foreign = await python_library(miner)
    assert await foreign.stop_mining()
    assert miner.machine.mode is Mode.SLEEP
    assert await foreign.resume_mining()
    assert miner.machine.mode is Mode.NORMAL
    assert await foreign.set_power_limit(2500)
    assert (await own(miner)).power_limit_w == 2500.0
