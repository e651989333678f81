"""A real agent over GPUs behind the NVML stand-in, a Modbus meter and a script that schedules: from an order by hand to jobs
that wait, what is left when the agent is killed, and what a person gives back."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sim.gpus import HOST_W_PER_GPU, SimGpus
from tests.system.ai_rig import AiRig, rig_of

pytestmark = pytest.mark.system

GPUS = 8
SCHEDULER = Path(__file__).parents[1] / "unit" / "ai" / "scheduler.py"
POOLS = """[[gpu.pools]]
name = "training"
priority = "spot"
host_w_per_gpu = 400.0
[gpu.pools.commands]
status = {status}
pause = {pause}
resume = {resume}
ends_within_s = 5.0
"""


class AiSite(AiRig):
    """GPUs that work as the scheduler's file says."""

    def __init__(self, place: Path, gpus: SimGpus) -> None:
        super().__init__(place, gpus)
        self.file = place / "scheduler.json"
        nodes = [{"name": f"gpu{n}", "gpus": 4, "busy_gpus": 4, "held_by": ""} for n in range(2)]
        jobs = [
            {"id": str(n), "priority": "spot", "nodes": [f"gpu{n}"], "gpus": 4, "running_s": 600.0} for n in range(2)
        ]
        state = {"nodes": nodes, "jobs": jobs, "waiting": [], "admission_held_by": "", "paused": [], "until": {}}
        self.file.write_text(json.dumps(state))
        self.loads = self._loads

    def busy(self) -> list[int]:
        """GPUs that work, by node."""
        return [node["busy_gpus"] for node in json.loads(self.file.read_text())["nodes"]]

    def _loads(self) -> None:
        for node, busy in enumerate(self.busy()):
            for gpu in range(4):
                self.gpus.state.set_load(1.0 if gpu < busy else 0.0, 4 * node + gpu)


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[AiSite]:
    async with rig_of(AiSite, tmp_path, GPUS) as made:
        verbs = {
            v: json.dumps([sys.executable, str(SCHEDULER), str(made.file), v]) for v in ("status", "pause", "resume")
        }
        await made.start_agent(POOLS.format(**verbs))
        yield made


async def test_order_by_hand_goes_through_limits_to_jobs_and_outlives_the_agent(site: AiSite) -> None:
    full_w = GPUS * (HOST_W_PER_GPU + 700.0)
    await site.until(lambda: site.power_w > 0.97 * full_w, "GPUs at work")
    await site.until(lambda: site.power_told() > 0.9 * full_w, "the meter is believed")
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
    await site.kill_agent()
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
