"""Running simulated machines on loopback addresses of their own, and two foreign libraries' handles on them."""

from __future__ import annotations

import asyncio
import gc
import os
import time
import warnings
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest

from agent.asic.conversation import Line
from agent.asic.family import Login, Memory, Reading
from agent.asic.registry import FAMILIES
from agent.asic.transport import Endpoint
from gridpivot.curves import miner_class
from sim.miners.machine import Machine
from sim.miners.wire import WireMiner
from tests.conformance.foreign import absent

Met = Callable[..., Awaitable[WireMiner]]
Handle = Callable[[WireMiner], Awaitable[Any]]
Own = Callable[[WireMiner], Awaitable[Reading]]


def own_address(host: str) -> str:
    """The address moved by ten per parallel test worker, since ports are fixed and two workers may run one module."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    head, _, last = host.rpartition(".")
    return f"{head}.{int(last) + 10 * worker}"


@pytest.fixture(autouse=True)
def foreign_rubbish() -> Iterator[None]:
    """Sockets that a foreign library forgot to close are collected here, not as an error in a later test."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@pytest.fixture
async def met() -> AsyncIterator[Met]:
    """Start a simulated machine on the real ports of a loopback address; hashing steadily, seconds to sleep and wake."""
    started: list[WireMiner] = []

    async def start(
        maker: type[WireMiner],
        model: str,
        host: str,
        ports: tuple[int, int, int],
        nameplate: tuple[float, float] | None = None,
    ) -> WireMiner:
        kind = miner_class(maker.family, maker.family, model, shed_s=1, wake_s=2, nameplate=nameplate)
        host = own_address(host)
        miner = maker(Machine(kind, 3, now_s=time.monotonic()), "02:00:00:00:00:0A")
        started.append(miner)
        try:
            await miner.start(host, *ports)
        except OSError as error:
            absent(f"ports {ports} of {host} cannot be bound ({error}); a foreign client cannot reach the miner")
        return miner

    yield start
    for miner in started:
        await miner.stop()


@pytest.fixture
def rust_library() -> Handle:
    """pyasic-rs: its handle on a machine, found over the network."""
    try:
        from pyasic_rs import MinerFactory
    except ImportError:
        absent("pyasic-rs is not installed; the simulated miners were not checked by a foreign client")

    async def find(miner: WireMiner) -> Any:
        async with asyncio.timeout(30):
            found = await MinerFactory().get_miner(miner.host)
        assert found is not None
        return found

    return find


@pytest.fixture
def python_library() -> Handle:
    """pyasic: its handle on a machine, found over the network."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is written against an older pydantic
        try:
            import pyasic
        except ImportError:
            absent("pyasic is not installed; the simulated miners were not checked by a second foreign client")

    async def find(miner: WireMiner) -> Any:
        async with asyncio.timeout(30):
            found = await pyasic.get_miner(miner.host)
        assert found is not None
        return found

    return find


@pytest.fixture
def own() -> Own:
    """Our own reading, slow facts included."""

    async def read(miner: WireMiner) -> Reading:
        family = FAMILIES[miner.family]
        login = family.factory_login or Login("root", miner.password)
        endpoint = Endpoint(miner.host).or_else(family.ports)
        line = Line(family, endpoint, login, Memory(), 3.0, Counter())
        return await line.read(slow=True, now_s=time.monotonic())

    return read
