"""The agent's own process over the stand-in library: GPUs are found, and their power is in its metrics."""

import asyncio
import json
import os
import signal
import sys
import urllib.request
from pathlib import Path

import pytest

from sim.gpus import SimGpus
from sim.nvml.state import STATE_VARIABLE
from tests.conftest import missing

pytestmark = pytest.mark.system

SETTINGS = """
site = "falcon-1"
state_dir = "{state_dir}"
[[gpu.pools]]
name = "inference"
priority = "guaranteed"
[http]
port = 0
"""


async def line_with(stream: asyncio.StreamReader, event: str) -> dict:
    async with asyncio.timeout(30.0):
        while line := await stream.readline():
            said = json.loads(line)
            assert "no GPUs" not in str(said.get("what", "")), said
            if said.get("event") == event:
                return said
    raise AssertionError(f"the agent ended without saying {event!r}")


def scrape(url: str) -> dict[str, float]:
    with urllib.request.urlopen(url, timeout=5.0) as answer:
        text = answer.read().decode()
    pairs = [line.rsplit(" ", 1) for line in text.splitlines() if line.startswith("gridpivot_ai_pool")]
    return {name.partition("{")[0]: float(value) for name, value in pairs}


async def test_agent_reports_gpus_and_ends_cleanly(tmp_path: Path):
    gpus = SimGpus.open(tmp_path, 8)
    if gpus is None:
        missing("a C compiler (cc or the package ziglang)")
    assert gpus is not None
    gpus.set_demand(0.55)
    config = tmp_path / "agent.toml"
    config.write_text(SETTINGS.format(state_dir=tmp_path / "agent"))
    environ = {**os.environ, "LD_LIBRARY_PATH": str(gpus.library_dir), STATE_VARIABLE: str(gpus.state_path)}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "agent.cli", "run", "--config", str(config),
        env=environ, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        up = await line_with(process.stdout, "agent up")
        found: dict[str, float] = {}
        async with asyncio.timeout(15.0):
            while found.get("gridpivot_ai_pool_power_watts") is None:
                found = await asyncio.to_thread(scrape, up["http"])
        assert found["gridpivot_ai_pool_power_watts"] == pytest.approx(0.55 * gpus.pool.max_w, rel=1e-3)
        assert found["gridpivot_ai_pool_limit_watts"] == gpus.pool.max_w
        assert found["gridpivot_ai_pool_gpus_present"] == 8
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(15.0):
            assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
