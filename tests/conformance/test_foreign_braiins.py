"""Simulated Braiins machines of three generations answer pyasic-rs and pyasic, and both see what our reader sees.

Ports are fixed in both libraries (4028, 80, 50051): each machine has a loopback address of its own.
"""

from __future__ import annotations

import asyncio
import time
import warnings
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from agent.asic.conversation import Line
from agent.asic.family import Login, Memory, Reading
from agent.asic.registry import FAMILIES
from agent.asic.transport import Endpoint
from gridpivot.curves import miner_class
from gridpivot.vocabulary import Mode
from sim.miners.braiins import SimBraiins, SimBraiins2109, SimBraiins2505, SimBraiins2511
from sim.miners.machine import Machine
from tests.conformance.foreign import absent, pyasic_of, pyasic_rs_of

pytestmark = pytest.mark.system

MINERS: dict[str, tuple[type[SimBraiins], str]] = {
    "22.08": (SimBraiins2109, "127.22.1.1"),
    "25.05": (SimBraiins2505, "127.22.1.2"),
    "25.11": (SimBraiins2511, "127.22.1.3"),
}
KIND = miner_class("s19xp", "braiins", "Antminer S19 XP", shed_s=1, wake_s=2)


@asynccontextmanager
async def running(generation: str, shift: int) -> AsyncIterator[SimBraiins]:
    maker, host = MINERS[generation]
    miner = maker(Machine(KIND, 3, now_s=time.monotonic()), "02:00:00:00:00:0A")
    try:
        await miner.start(f"127.22.{shift}.{host[-1]}", 4028, 80, 50051)
    except (OSError, RuntimeError) as error:
        await miner.stop()
        absent(f"ports 4028, 80 and 50051 of {host} cannot be bound ({error})")
    try:
        async with asyncio.timeout(50):
            yield miner
    finally:
        await miner.stop()


async def own_reading(miner: SimBraiins, memory: Memory) -> Reading:
    end = Endpoint(miner.host, 4028, 80, 50051)
    line = Line(FAMILIES["braiins"], end, Login("root", miner.password), memory, 3.0, Counter())
    return await line.read(slow=True, now_s=time.monotonic())


def own_memory() -> Memory:
    return Memory(mode_power_w={mode: point.power_w for mode, point in KIND.modes.items()})


# pyasic-rs logs in to GraphQL releases with an empty password, so those machines have none.
PASSWORDS = {"22.08": "", "25.05": "", "25.11": "root"}


@pytest.mark.parametrize("generation", list(MINERS))
async def test_pyasic_rs_reads_what_we_read(generation: str) -> None:
    async with running(generation, 0) as miner:
        miner.password = PASSWORDS[generation]
        foreign = await pyasic_rs_of(miner.host)
        assert foreign is not None
        assert (foreign.model, foreign.firmware) == ("S19XP", "Braiins")
        theirs = await foreign.get_data()
        ours = await own_reading(miner, own_memory())
        assert ours.mode is Mode.NORMAL and theirs.is_mining
        assert ours.hashrate_hs == pytest.approx(theirs.hashrate.value * 1e12, rel=0.01)
        assert theirs.wattage == ours.power_w
        assert str(theirs.mac).upper() == miner.mac
        assert theirs.uptime.total_seconds() == pytest.approx(ours.uptime_s, abs=2)
        boards = [board.inlet_chip_temperature or board.board_temperature for board in theirs.hashboards]
        assert max(t for t in boards if t is not None) == pytest.approx(ours.temp_c, abs=11)


@pytest.mark.parametrize("generation", list(MINERS))
async def test_pyasic_rs_pauses_resumes_and_limits(generation: str) -> None:
    async with running(generation, 3) as miner:
        miner.password = PASSWORDS[generation]
        foreign = await pyasic_rs_of(miner.host)
        assert await foreign.pause()
        assert miner.machine.mode is Mode.SLEEP
        assert (await own_reading(miner, own_memory())).mode is Mode.SLEEP
        assert await foreign.resume()
        assert miner.machine.mode is Mode.NORMAL
        assert await foreign.set_power_limit(1806)
        assert (miner.target_w, miner.machine.mode) == (1806, Mode.LOW)
        assert (await own_reading(miner, own_memory())).power_limit_w == 1806


@pytest.mark.parametrize("generation", ["25.05", "25.11"])
async def test_pyasic_reads_what_we_read_over_grpc(generation: str) -> None:
    async with running(generation, 6) as miner:
        foreign = await pyasic_of(miner.host)
        assert type(foreign).__name__ == "BOSMinerS19XP"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # deprecated fields of its own generated classes
            theirs = await foreign.get_data(exclude=["config"])  # pool and fan settings are not simulated over gRPC
        ours = await own_reading(miner, own_memory())
        assert theirs.is_mining
        assert float(theirs.hashrate) * 1e12 == pytest.approx(ours.hashrate_hs, rel=0.01)
        assert (theirs.wattage, theirs.wattage_limit) == (ours.power_w, ours.power_limit_w)
        assert theirs.mac == miner.mac
        assert theirs.uptime == pytest.approx(ours.uptime_s, abs=2)
        assert max(b.chip_temp for b in theirs.hashboards) == pytest.approx(ours.temp_c, abs=1)
        assert theirs.fw_ver == {"25.05": "25.05.1", "25.11": "25.11"}[generation]


@pytest.mark.parametrize("generation", ["25.05", "25.11"])
async def test_pyasic_pauses_resumes_and_limits_over_grpc(generation: str) -> None:
    async with running(generation, 9) as miner:
        foreign = await pyasic_of(miner.host)
        assert await foreign.stop_mining()
        assert miner.machine.mode is Mode.SLEEP
        assert (await own_reading(miner, own_memory())).mode is Mode.SLEEP
        assert await foreign.resume_mining()
        assert miner.machine.mode is Mode.NORMAL
        assert await foreign.set_power_limit(1806)
        assert (miner.target_w, miner.machine.mode) == (1806, Mode.LOW)
        assert not await foreign.set_power_limit(100)
        assert miner.target_w == 1806
