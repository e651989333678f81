"""A running agent that lays its site out anew: GPUs whose driver came late, settings read again on SIGHUP. One process throughout."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
import urllib.request
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from sim import staging
from sim.children import Child, wait_for_log
from sim.gpus import SimGpus
from sim.nvml.state import STATE_VARIABLE
from tests.conftest import missing

pytestmark = pytest.mark.system

NVML_ERROR_DRIVER_NOT_LOADED = 9
SETTINGS = """site = "t-1"
state_dir = "{place}/state"
[circuit]
ceiling_w = {ceiling_w}
[[gpu.pools]]
name = "training"
priority = "spot"
[http]
port = 0
"""


class Anew:
    """One agent on a machine with four GPUs."""

    def __init__(self, place: Path, gpus: SimGpus) -> None:
        self.place, self.gpus = place, gpus
        self.agent = Child("agent", place / "agent.log")
        self.path = place / "agent.toml"

    async def start(self) -> None:
        environ = {"LD_LIBRARY_PATH": str(self.gpus.library_dir), STATE_VARIABLE: str(self.gpus.state_path)}
        command = staging.entry("agent.cli", "run", "--config", str(self.path))
        await self.agent.start(command, os.environ | environ)
        await wait_for_log(self.agent, "agent up", 30.0)

    def settle(self, ceiling_w: object) -> None:
        """Settings as they stand on the disk."""
        self.path.write_text(SETTINGS.format(place=self.place, ceiling_w=ceiling_w))

    def said(self, event: str) -> list[dict[str, object]]:
        """Log lines of this event."""
        lines = self.agent.log.read_text(encoding="utf-8", errors="replace").splitlines()
        told = [json.loads(line) for line in lines if line.startswith("{")]
        return [line for line in told if line.get("event") == event]

    def figure(self, name: str) -> float | None:
        """A sample of the newest /metrics page; None while there is none."""
        try:
            with urllib.request.urlopen(str(self.said("agent up")[-1]["http"]), timeout=5.0) as page:
                text = page.read().decode()
        except OSError:
            return None
        found = [line.rsplit(" ", 1)[1] for line in text.splitlines() if line.startswith(name)]
        return float(found[0]) if found else None

    async def until(self, true: Callable[[], object], what: str) -> None:
        """Wait for it."""
        began_s = time.monotonic()
        while not await asyncio.to_thread(true):
            self.agent.check()
            assert time.monotonic() - began_s < 40.0, f"{what}: {self.agent.log.read_text()[-3000:]}"
            await asyncio.sleep(0.05)

    def hang_up(self) -> None:
        """What `systemctl reload` does."""
        assert self.agent.process is not None
        os.kill(self.agent.process.pid, signal.SIGHUP)


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Anew]:
    gpus = SimGpus.open(tmp_path, 4)
    if gpus is None:
        missing("a C compiler (cc or the package ziglang)")
    assert gpus is not None
    made = Anew(tmp_path, gpus)
    made.settle(12_000)
    try:
        yield made
    finally:
        await made.agent.stop()
        gpus.close()


async def test_gpus_whose_driver_loads_after_the_agent_become_a_pool(site: Anew) -> None:
    with site.gpus.state.settled():
        site.gpus.state.header["init_error"] = NVML_ERROR_DRIVER_NOT_LOADED
    await site.start()
    limit = 'gridpivot_ai_pool_limit_watts{pool="training"'
    assert await asyncio.to_thread(site.figure, limit) is None
    with site.gpus.state.settled():
        site.gpus.state.header["init_error"] = 0
    await site.until(lambda: len(site.said("agent up")) == 2, "laid out anew")
    assert "GPUs answer" in str(site.said("beginning anew")[0]["why"])
    await site.until(lambda: (site.figure(limit) or 0.0) > 0.0, "the pool is there")
    assert len(site.said("beginning anew")) == 1


async def test_settings_are_read_again_on_sighup_and_bad_ones_change_nothing(site: Anew) -> None:
    await site.start()
    ceiling = "gridpivot_site_ceiling_watts"
    await site.until(lambda: site.figure(ceiling) == 12_000.0, "the first ceiling")
    site.settle('"plenty"')
    site.hang_up()
    await site.until(lambda: site.said("settings refused, those before stay"), "refused")
    assert "ceiling_w" in str(site.said("settings refused, those before stay")[0]["why"])
    assert (len(site.said("agent up")), site.figure(ceiling)) == (1, 12_000.0)
    site.path.write_text(site.path.read_text().replace('"plenty"', "9000").replace("t-1", "t-2"))
    site.hang_up()
    await site.until(lambda: len(site.said("settings refused, those before stay")) == 2, "another site is refused")
    site.settle(9_000)
    site.hang_up()
    await site.until(lambda: site.figure(ceiling) == 9_000.0, "the new ceiling")
    assert len(site.said("agent up")) == 2
