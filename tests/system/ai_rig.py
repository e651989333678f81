"""An agent as a real process over GPUs behind the NVML stand-in and a Modbus meter: what tests of the AI half share."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import time
import urllib.request
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TypeVar

import psutil

from agent.local_control import ask
from gridpivot.errors import GridpivotError
from sim import staging
from sim.children import Child, wait_for_log
from sim.gpus import HOST_W_PER_GPU, SimGpus
from sim.meter import ENERGY_ADDRESS, POWER_ADDRESS, SimMeter
from sim.nvml.state import STATE_VARIABLE
from tests.conftest import missing

# To be filled with `place` and `port`; pools and what else a test needs come after it.
HEAD = f"""site = "t-1"
state_dir = "{{place}}/state"
[circuit]
ceiling_w = 12000
[governor]
stage = "full"
overhead_ratio = 0.01
[http]
port = 0
[meter]
host = "127.0.0.1"
port = {{port}}
power_address = {POWER_ADDRESS}
power_type = "int32"
energy_address = {ENERGY_ADDRESS}
energy_type = "uint64"
energy_unit_j = 3600.0
"""


class AiRig:
    """One site of GPUs. `loads` is called ten times a second and sets what they do."""

    def __init__(self, place: Path, gpus: SimGpus) -> None:
        self.place, self.gpus = place, gpus
        self.power_w = self._energy_j = 0.0
        self.meter = SimMeter(lambda: (self.power_w, self._energy_j), delay_s=0.5)
        self.agent = Child("agent", place / "agent.log")
        self.environ = os.environ | {"LD_LIBRARY_PATH": str(gpus.library_dir), STATE_VARIABLE: str(gpus.state_path)}
        self.loads: Callable[[], None] = lambda: None

    async def physics(self) -> None:
        """GPUs do as `loads` says; the meter shows boards and hosts."""
        while True:
            with contextlib.suppress(ValueError):  # a file that is being written
                self.loads()
            self.power_w = self.gpus.state.power_w() + len(self.gpus.state.devices) * HOST_W_PER_GPU
            self._energy_j += 0.1 * self.power_w
            await asyncio.sleep(0.1)

    async def start_agent(self, pools: str) -> None:
        """Write the settings and start it; it is up when this returns."""
        path = self.place / "agent.toml"
        path.write_text(HEAD.format(place=self.place, port=self.meter.port) + pools)
        self.agent = Child("agent", self.place / "agent.log")
        await self.agent.start(staging.entry("agent.cli", "run", "--config", str(path)), self.environ)
        await wait_for_log(self.agent, "agent up", 30.0)

    async def kill_agent(self) -> None:
        """As the kernel would."""
        assert self.agent.process is not None
        os.kill(psutil.Process(self.agent.process.pid).pid, signal.SIGKILL)
        await self.agent.process.wait()

    async def until(self, condition: Callable[[], object], what: str, limit_s: float = 30.0) -> float:
        """Wait; the seconds that it took."""
        began_s = time.monotonic()
        while not await asyncio.to_thread(condition):
            self.agent.check()
            assert time.monotonic() - began_s < limit_s, f"{what}: {self.log()[-3000:]}"
            await asyncio.sleep(0.05)
        return time.monotonic() - began_s

    def log(self) -> str:
        """What the agent has said."""
        return self.agent.log.read_text(encoding="utf-8", errors="replace")

    def metrics(self) -> str:
        """Its page."""
        up = [json.loads(line) for line in self.log().splitlines() if '"event": "agent up"' in line]
        with urllib.request.urlopen(up[-1]["http"], timeout=5.0) as page:
            text: str = page.read().decode()
        return text

    def asked(self, **request: object) -> dict[str, object]:
        """Over the agent's own socket; {} while it is not up."""
        with contextlib.suppress(GridpivotError):
            return ask(self.place / "state", dict(request))
        return {}

    def power_told(self) -> float:
        """What the agent believes the site to draw [W]; 0 while it believes nothing."""
        return float(self.asked(op="orders").get("power_w") or 0.0)  # type: ignore[arg-type]

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        """What a technician types beside it."""
        arguments = staging.entry("agent.cli", *words, "--config", str(self.place / "agent.toml"))
        return subprocess.run(arguments, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=40)


Rig = TypeVar("Rig", bound=AiRig)


@contextlib.asynccontextmanager
async def rig_of(make: Callable[[Path, SimGpus], Rig], place: Path, gpus: int) -> AsyncIterator[Rig]:
    """A rig whose meter and physics run; the agent is the test's to start, and is ended here."""
    place.chmod(0o755)
    found = SimGpus.open(place, gpus)
    if found is None:
        missing("a C compiler (cc or the package ziglang)")
    assert found is not None
    made = make(place, found)
    await made.meter.start()
    task = asyncio.create_task(made.physics())
    try:
        yield made
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await made.agent.stop()
        await made.meter.stop()
        found.close()
