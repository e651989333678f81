"""Guaranteed decode at its lowest limits: an order by hand locks its clocks through a real GPU guard, and no process's death
lets them go; over the NVML stand-in with the real bindings."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import psutil
import pytest

from agent.local_control import ask
from gridpivot.errors import GridpivotError
from sim import staging
from sim.children import Child, wait_for_log
from sim.gpus import HOST_W_PER_GPU, SimGpus
from sim.meter import POWER_ADDRESS, SimMeter
from sim.nvml.state import STATE_VARIABLE
from tests.conftest import missing

pytestmark = pytest.mark.system

GPUS = 8
LOAD = 0.25  # 231 W of 200-700 W boards: limits can take 31 W of it
LOCK_MHZ = 1200
SETTINGS = """site = "t-1"
state_dir = "{place}/state"
[circuit]
ceiling_w = 12000
[governor]
stage = "full"
overhead_ratio = 0.01
ai_release_after_s = 2
[meter]
host = "127.0.0.1"
port = {port}
power_address = {power}
power_type = "int32"
[gpu]
guard_socket = "{place}/guard.sock"
guard_lease_s = 5
[[gpu.pools]]
name = "chat"
priority = "guaranteed"
host_w_per_gpu = 400.0
decode_clock_mhz = {mhz}
[http]
port = 0
"""


class Decode:
    """A guard, an agent and eight GPUs that decode."""

    def __init__(self, place: Path, gpus: SimGpus) -> None:
        self.place, self.gpus, self.power_w = place, gpus, 0.0
        self.meter = SimMeter(lambda: (self.power_w, 0.0), delay_s=0.5)
        self.guard, self.agent = Child("guard", place / "guard.log"), Child("agent", place / "agent.log")
        self.environ = os.environ | {"LD_LIBRARY_PATH": str(gpus.library_dir), STATE_VARIABLE: str(gpus.state_path)}

    async def physics(self) -> None:
        while True:
            self.power_w = self.gpus.state.power_w() + GPUS * HOST_W_PER_GPU
            await asyncio.sleep(0.1)

    async def start_agent(self) -> None:
        self.agent = Child("agent", self.place / "agent.log")
        command = staging.entry("agent.cli", "run", "--config", str(self.place / "agent.toml"))
        await self.agent.start(command, self.environ)
        await wait_for_log(self.agent, "agent up", 30.0)

    def locked_mhz(self) -> set[int]:
        with self.gpus.state.settled() as devices:
            return set(devices["lock_mhz"].tolist())

    def pool(self) -> dict[str, object]:
        with contextlib.suppress(GridpivotError):
            return dict(ask(self.place / "state", {"op": "ai"})["pools"][0])
        return {}

    def lever(self) -> dict[str, object]:
        found = [one for one in self.pool().get("levers", []) if one["lever"] == "clock_lock"]  # type: ignore[attr-defined]
        return dict(found[0]) if found else {}

    async def until(self, true: Callable[[], object], what: str, limit_s: float = 30.0) -> None:
        began_s = time.monotonic()
        while not await asyncio.to_thread(true):
            self.agent.check()
            assert time.monotonic() - began_s < limit_s, f"{what}: {self.agent.log.read_text()[-3000:]}"
            await asyncio.sleep(0.05)


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Decode]:
    tmp_path.chmod(0o755)
    gpus = SimGpus.open(tmp_path, GPUS)
    if gpus is None:
        missing("a C compiler (cc or the package ziglang)")
    assert gpus is not None
    gpus.state.set_load(LOAD)
    made = Decode(tmp_path, gpus)
    await made.meter.start()
    task = asyncio.create_task(made.physics())
    text = SETTINGS.format(place=tmp_path, port=made.meter.port, power=POWER_ADDRESS, mhz=LOCK_MHZ)
    (tmp_path / "agent.toml").write_text(text)
    words = ("gpu-guard", "--socket", str(tmp_path / "guard.sock"), "--state-dir", str(tmp_path / "guard"))
    try:
        await made.guard.start(staging.entry("agent.cli", *words), made.environ)
        await wait_for_log(made.guard, "gpu guard up", 30.0)
        await made.start_agent()
        yield made
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await made.agent.stop()
        await made.guard.stop()
        await made.meter.stop()
        gpus.close()


async def test_guaranteed_decode_is_locked_only_in_need_and_its_lock_outlives_the_agent(site: Decode) -> None:
    # Its limits hold nothing: 8 x (400 + 231) W, and 8 x (400 + 200) W with every limit at its lowest.
    await site.until(lambda: (site.pool().get("power_w") or 0.0) > 4_900.0, "decode at work")  # type: ignore[operator]
    assert site.locked_mhz() == {0}
    await asyncio.to_thread(ask, site.place / "state", {"op": "shed", "to_w": 4_400.0, "for_s": 600.0, "reason": "hot"})
    await site.until(lambda: site.locked_mhz() == {LOCK_MHZ}, "clocks locked through the guard")
    await site.until(lambda: site.power_w <= 4_400.0, "the meter shows it")
    await site.until(lambda: site.lever().get("state") == "kept", "promised, delivered, and verified by the clock")
    lever = site.lever()
    assert 0 < float(str(lever["promised_w"])) <= float(str(lever["delivered_w"])) * 1.05, lever
    assert site.agent.process is not None
    os.kill(psutil.Process(site.agent.process.pid).pid, signal.SIGKILL)
    await site.agent.process.wait()
    until_s = time.monotonic() + 7.0  # longer than the guard's lease
    while time.monotonic() < until_s:
        assert site.locked_mhz() == {LOCK_MHZ}
        await asyncio.sleep(0.2)
    kept = json.loads((site.place / "state" / "ai-pulls.json").read_text())
    assert "clock_lock" in {pull["lever"] for pull in kept["pools"]["chat"]}
    await site.start_agent()
    await site.until(lambda: site.lever() and site.power_w <= 4_450.0, "the next agent knows of it")
    assert site.locked_mhz() == {LOCK_MHZ}
