"""Guaranteed decode at its lowest limits: an order by hand locks its clocks through a real GPU guard, and no process's death
lets them go; over the NVML stand-in with the real bindings."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sim import staging
from sim.children import Child, wait_for_log
from tests.system.ai_rig import AiRig, rig_of

pytestmark = pytest.mark.system

GPUS = 8
LOAD = 0.25  # 231 W of 200-700 W boards: limits can take 31 W of it
LOCK_MHZ = 1200
POOLS = """[gpu]
guard_socket = "{place}/guard.sock"
guard_lease_s = 5
[[gpu.pools]]
name = "chat"
priority = "guaranteed"
host_w_per_gpu = 400.0
decode_clock_mhz = {mhz}
"""


class Decode(AiRig):
    """Eight GPUs that decode."""

    def locked_mhz(self) -> set[int]:
        """Locks in the driver; 0 = none."""
        with self.gpus.state.settled() as devices:
            return set(devices["lock_mhz"].tolist())

    def pool(self) -> dict[str, object]:
        """As `gridpivot-agent ai show` has it."""
        pools = self.asked(op="ai").get("pools") or [{}]
        return dict(pools[0])  # type: ignore[index]

    def lever(self) -> dict[str, object]:
        """The clock lock, where one is pulled."""
        found = [one for one in self.pool().get("levers", []) if one["lever"] == "clock_lock"]  # type: ignore[attr-defined]
        return dict(found[0]) if found else {}

    def pools(self) -> str:
        """Its settings."""
        return POOLS.format(place=self.place, mhz=LOCK_MHZ)


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Decode]:
    async with rig_of(Decode, tmp_path, GPUS) as made:
        made.gpus.state.set_load(LOAD)
        guard = Child("guard", tmp_path / "guard.log")
        words = ("gpu-guard", "--socket", str(tmp_path / "guard.sock"), "--state-dir", str(tmp_path / "guard"))
        try:
            await guard.start(staging.entry("agent.cli", *words), made.environ)
            await wait_for_log(guard, "gpu guard up", 30.0)
            await made.start_agent(made.pools())
            yield made
        finally:
            await made.agent.stop()
            await guard.stop()


async def test_guaranteed_decode_is_locked_only_in_need_and_its_lock_outlives_the_agent(site: Decode) -> None:
    # Its limits hold nothing: 8 x (400 + 231) W, and 8 x (400 + 200) W with every limit at its lowest.
    await site.until(lambda: (site.pool().get("power_w") or 0.0) > 4_900.0, "decode at work")  # type: ignore[operator]
    assert site.locked_mhz() == {0}
    await asyncio.to_thread(site.asked, op="shed", to_w=4_400.0, for_s=600.0, reason="hot")
    await site.until(lambda: site.locked_mhz() == {LOCK_MHZ}, "clocks locked through the guard")
    await site.until(lambda: site.power_w <= 4_400.0, "the meter shows it")
    await site.until(lambda: site.lever().get("state") == "kept", "promised, delivered, and verified by the clock")
    lever = site.lever()
    assert 0 < float(str(lever["promised_w"])) <= float(str(lever["delivered_w"])) * 1.05, lever
    await site.kill_agent()
    until_s = time.monotonic() + 7.0  # longer than the guard's lease
    while time.monotonic() < until_s:
        assert site.locked_mhz() == {LOCK_MHZ}
        await asyncio.sleep(0.2)
    kept = json.loads((site.place / "state" / "ai-pulls.json").read_text())
    assert "clock_lock" in {pull["lever"] for pull in kept["pools"]["chat"]}
    await site.start_agent(site.pools())
    await site.until(lambda: site.lever() and site.power_w <= 4_450.0, "the next agent knows of it")
    assert site.locked_mhz() == {LOCK_MHZ}
