"""A real agent over GPUs behind the NVML stand-in, a Modbus meter and a script that schedules: from an order by hand to jobs
that wait, and what is left when the agent is killed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
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
from sim.meter import ENERGY_ADDRESS, POWER_ADDRESS, SimMeter
from sim.nvml.state import STATE_VARIABLE
from tests.conftest import missing

pytestmark = pytest.mark.system

GPUS = 8
SCHEDULER = Path(__file__).parents[1] / "unit" / "ai" / "scheduler.py"
SETTINGS = """site = "t-1"
state_dir = "{place}/state"
[circuit]
ceiling_w = 12000
[governor]
stage = "full"
overhead_ratio = 0.01
[meter]
host = "127.0.0.1"
port = {port}
power_address = {power}
power_type = "int32"
energy_address = {energy}
energy_type = "uint64"
energy_unit_j = 3600.0
[[gpu.pools]]
name = "training"
priority = "spot"
host_w_per_gpu = 400.0
[gpu.pools.commands]
status = {status}
pause = {pause}
resume = {resume}
ends_within_s = 5.0
[http]
port = 0
"""


class AiSite:
    """GPUs that work as the scheduler's file says, and a meter over them."""

    def __init__(self, place: Path, gpus: SimGpus) -> None:
        self.place, self.gpus = place, gpus
        self.file = place / "scheduler.json"
        nodes = [{"name": f"gpu{n}", "gpus": 4, "busy_gpus": 4, "held_by": ""} for n in range(2)]
        jobs = [
            {"id": str(n), "priority": "spot", "nodes": [f"gpu{n}"], "gpus": 4, "running_s": 600.0} for n in range(2)
        ]
        state = {"nodes": nodes, "jobs": jobs, "waiting": [], "admission_held_by": "", "paused": [], "until": {}}
        self.file.write_text(json.dumps(state))
        self.power_w = self._energy_j = 0.0
        self.meter = SimMeter(lambda: (self.power_w, self._energy_j), delay_s=0.5)
        self.agent = Child("agent", place / "agent.log")

    def busy(self) -> list[int]:
        """GPUs that work, by node."""
        return [node["busy_gpus"] for node in json.loads(self.file.read_text())["nodes"]]

    async def physics(self) -> None:
        """Load follows the scheduler, the meter follows the boards."""
        while True:
            with contextlib.suppress(ValueError):
                for node, busy in enumerate(self.busy()):
                    for gpu in range(4):
                        self.gpus.state.set_load(1.0 if gpu < busy else 0.0, 4 * node + gpu)
            self.power_w = self.gpus.wall_power_w(time.monotonic())
            self._energy_j += 0.1 * self.power_w
            await asyncio.sleep(0.1)

    async def until(self, condition: Callable[[], object], what: str, limit_s: float = 25.0) -> float:
        """Wait; the seconds that it took."""
        began_s = time.monotonic()
        while not condition():
            self.agent.check()
            assert time.monotonic() - began_s < limit_s, f"{what}: {self.log()[-3000:]}"
            await asyncio.sleep(0.05)
        return time.monotonic() - began_s

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        """What a technician types beside it."""
        arguments = staging.entry("agent.cli", *words, "--config", str(self.place / "agent.toml"))
        return subprocess.run(arguments, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=40)

    def log(self) -> str:
        """What the agent has said."""
        return self.agent.log.read_text(encoding="utf-8", errors="replace")

    def asked(self, **request: object) -> dict[str, object]:
        """Over the agent's own socket; {} while it is not up."""
        with contextlib.suppress(GridpivotError):
            return ask(self.place / "state", dict(request))
        return {}


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[AiSite]:
    tmp_path.chmod(0o755)
    gpus = SimGpus.open(tmp_path, GPUS)
    if gpus is None:
        missing("a C compiler (cc or the package ziglang)")
    assert gpus is not None
    made = AiSite(tmp_path, gpus)
    await made.meter.start()
    task = asyncio.create_task(made.physics())
    verbs = {v: json.dumps([sys.executable, str(SCHEDULER), str(made.file), v]) for v in ("status", "pause", "resume")}
    text = SETTINGS.format(place=tmp_path, port=made.meter.port, power=POWER_ADDRESS, energy=ENERGY_ADDRESS, **verbs)
    (tmp_path / "agent.toml").write_text(text)
    environ = {"LD_LIBRARY_PATH": str(gpus.library_dir), STATE_VARIABLE: str(gpus.state_path)}
    try:
        await made.agent.start(
            staging.entry("agent.cli", "run", "--config", str(tmp_path / "agent.toml")), os.environ | environ
        )
        await wait_for_log(made.agent, "agent up", 30.0)
        yield made
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await made.agent.stop()
        await made.meter.stop()
        gpus.close()


async def test_order_by_hand_goes_through_limits_to_jobs_and_outlives_the_agent(site: AiSite) -> None:
    full_w = GPUS * (HOST_W_PER_GPU + 700.0)
    await site.until(lambda: site.power_w > 0.97 * full_w, "GPUs at work")
    await site.until(lambda: (site.asked(op="orders").get("power_w") or 0.0) > 0.9 * full_w, "the meter is believed")  # type: ignore[operator]
    site.asked(op="shed", to_w=4_200.0, for_s=600.0, reason="hot transformer")
    limits_s = await site.until(lambda: site.power_w <= 8 * 600.0 + 50.0, "limits at their lowest")
    assert limits_s < 15.0
    await site.until(lambda: site.power_w <= 4_300.0, "jobs taken off until the order is met")
    assert sum(site.busy()) <= 4 and json.loads(site.file.read_text())["admission_held_by"].startswith("gridpivot:")
    await site.until(
        lambda: '"kind": "ai_lever"' in site.log() and "requeue brought" in site.log(), "told with figures"
    )
    shown = await asyncio.to_thread(site.command, "ai", "show", "--json")
    (pool,) = json.loads(shown.stdout)["pools"]
    assert {one["lever"] for one in pool["levers"]} >= {"power_limit", "admission", "requeue"}, shown.stdout
    assert pool["admitting"] is False and 0 < pool["delivered_w"] <= pool["promised_w"]
    refused = await asyncio.to_thread(site.command, "ai", "release", "--yes")
    assert (refused.returncode, len(refused.stderr.splitlines())) == (4, 1), refused.stderr
    held = json.loads(site.file.read_text())
    assert site.agent.process is not None
    os.kill(psutil.Process(site.agent.process.pid).pid, signal.SIGKILL)
    await site.agent.process.wait()
    kept = json.loads((site.place / "state" / "ai-pulls.json").read_text())
    assert {p["lever"] for p in kept["pools"]["training"]} >= {"power_limit", "admission", "requeue"}
    after = json.loads(site.file.read_text())
    assert after["paused"] == held["paused"] and after["nodes"] == held["nodes"]
    assert all(until > time.time() for until in after["until"].values())  # and each hold ends by itself
    # The agent will not come back: a person gives back what it held, and no later agent takes it again.
    unasked = await asyncio.to_thread(site.command, "ai", "release")
    assert (unasked.returncode, json.loads(site.file.read_text())) == (4, after), unasked.stderr
    unknown = await asyncio.to_thread(site.command, "ai", "release", "inference", "--yes")
    assert (unknown.returncode, len(unknown.stderr.splitlines())) == (4, 1), unknown.stderr
    freed = await asyncio.to_thread(site.command, "ai", "release", "--yes")
    assert freed.returncode == 0, freed.stdout + freed.stderr
    free = json.loads(site.file.read_text())
    assert not free["paused"] and not free["admission_held_by"] and not any(n["held_by"] for n in free["nodes"])
    assert json.loads((site.place / "state" / "ai-pulls.json").read_text())["pools"] == {}
