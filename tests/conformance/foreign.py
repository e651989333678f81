"""What the conformance tests share: machines on real ports of a loopback address, and two foreign libraries' handles."""

from __future__ import annotations

import asyncio
import os
import time
import warnings
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import pytest

from agent.asic.conversation import Line
from agent.asic.family import Login, Memory, Reading
from agent.asic.registry import FAMILIES
from agent.asic.transport import Endpoint
from gridpivot.curves import MinerClass
from sim.miners.machine import Machine
from sim.miners.wire import WireMiner

Miner = TypeVar("Miner", bound=WireMiner)


def absent(told: str) -> Any:
    """A missing component: a failure in CI, else a skip of one line."""
    return pytest.fail(told) if os.environ.get("CI") == "true" else pytest.skip(told)


@asynccontextmanager
async def machine_at(maker: type[Miner], kind: MinerClass, host: str) -> AsyncIterator[Miner]:
    """A machine on ports 4028 and 80 of a loopback address."""
    miner = maker(Machine(kind, 3, now_s=time.monotonic()), "02:00:00:00:00:0A")
    try:
        await miner.start(host, 4028, 80)
    except OSError as error:
        await miner.stop()
        absent(f"ports 4028 and 80 of {host} cannot be bound ({error})")
    try:
        async with asyncio.timeout(50):
            yield miner
    finally:
        await miner.stop()


async def own_reading(miner: WireMiner) -> Reading:
    """Ours, slow facts included, with the class's curve."""
    memory = Memory(mode_power_w={mode: point.power_w for mode, point in miner.kind.modes.items()})
    login = Login("", miner.password)
    line = Line(FAMILIES[miner.family], Endpoint(miner.host, 4028, 80), login, memory, 3.0, Counter())
    return await line.read(slow=True, now_s=time.monotonic())


async def pyasic_rs_of(host: str) -> Any:
    """pyasic-rs's handle on a machine, found over the network."""
    try:
        from pyasic_rs import MinerFactory
    except ImportError:
        absent("pyasic-rs is not installed; the simulated miners were not checked by a foreign client")
    return await MinerFactory().get_miner(host)


async def pyasic_of(host: str) -> Any:
    """pyasic's handle on a machine, found over the network."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it is written against an older pydantic
            import pyasic
    except ImportError:
        absent("pyasic is not installed; the simulated miners were not checked by a second foreign client")
    return await pyasic.get_miner(host)
