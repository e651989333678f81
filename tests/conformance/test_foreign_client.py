"""The wire-level miners answer a client that somebody else wrote: pyasic-rs identifies, reads and commands them.

Its ports are fixed (4028 and 80), so each simulated machine gets a loopback address of its own. What it reads must be
what our own poller reads.
"""

from __future__ import annotations

import asyncio
import os
import time
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
from sim.miners.antminer import SimAntminer
from sim.miners.luxos import SimLuxOs
from sim.miners.machine import Machine
from sim.miners.whatsminer import SimWhatsminer
from sim.miners.wire import WireMiner

pytestmark = pytest.mark.system

MINERS: dict[str, tuple[type[WireMiner], str, str, str, str]] = {
    "whatsminer": (SimWhatsminer, "127.20.0.1", "Whatsminer M60", "M60", "WhatsMiner Stock"),
    "luxos": (SimLuxOs, "127.20.0.2", "Antminer S21", "S21", "LuxOS"),
    "antminer": (SimAntminer, "127.20.0.3", "Antminer S19 Pro", "S19Pro", "AntMiner Stock"),
}


def absent(told: str) -> Any:
    """A missing component: a failure in CI, else a skip of one line."""
    return pytest.fail(told) if os.environ.get("CI") == "true" else pytest.skip(told)


@asynccontextmanager
async def met(family: str) -> AsyncIterator[tuple[WireMiner, Any]]:
    """A running simulated machine and the foreign client's handle on it."""
    try:
        from pyasic_rs import MinerFactory
    except ImportError:
        absent("pyasic-rs is not installed; the simulated miners were not checked by a foreign client")
    maker, host, model, _, _ = MINERS[family]
    kind = miner_class(family, family, model, shed_s=1, wake_s=2)
    miner = maker(Machine(kind, 3, now_s=time.monotonic()), "02:00:00:00:00:0A")
    try:
        await miner.start(host, 4028, 80)
    except OSError as error:
        await miner.stop()
        absent(f"ports 4028 and 80 of {host} cannot be bound ({error}); a foreign client cannot reach the miner")
    try:
        async with asyncio.timeout(30):
            yield miner, await MinerFactory().get_miner(host)
    finally:
        await miner.stop()


async def own_reading(miner: WireMiner) -> Reading:
    login = Login("super" if miner.family == "whatsminer" else "root", miner.password)
    endpoint = Endpoint(miner.host, 4028, 80)
    return await Line(FAMILIES[miner.family], endpoint, login, Memory(), 3.0, Counter()).read(slow=True)


@pytest.mark.parametrize("family", list(MINERS))
async def test_foreign_client_identifies_and_reads_what_we_read(family: str) -> None:
    async with met(family) as (miner, foreign):
        assert foreign is not None
        assert (foreign.model, foreign.firmware) == MINERS[family][3:]
        theirs = await foreign.get_data()
        ours = await own_reading(miner)
        assert theirs.is_mining
        assert ours.hashrate_hs == pytest.approx(theirs.hashrate.value * 1e12, rel=0.01)
        assert theirs.wattage == ours.power_w  # None on a stock S19, for both
        assert str(theirs.mac).upper() == miner.mac
        assert theirs.uptime.total_seconds() == pytest.approx(ours.uptime_s, abs=2)


@pytest.mark.parametrize("family", ["luxos", "antminer", "whatsminer"])
async def test_foreign_client_puts_the_machine_to_sleep_and_wakes_it(family: str) -> None:
    async with met(family) as (miner, foreign):
        assert await foreign.pause()
        assert miner.machine.mode is Mode.SLEEP
        assert await foreign.resume()
        assert miner.machine.mode is Mode.NORMAL
