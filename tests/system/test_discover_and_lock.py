"""A technician's first hour, through the real command: discover, edit, run, lock, unlock; and no password anywhere."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import urllib.request
from pathlib import Path

import pytest

from sim.miners.fleet import WireMiners

pytestmark = pytest.mark.system

COMMAND = [sys.executable, "-c", "from agent.cli import main; main()"]
SECRET = "wr0ng-s3cret"


def environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("GRIDPIVOT_")}


async def agent(*words: object) -> tuple[int, str, str]:
    """One command; the miners answer meanwhile, since they live on this loop."""
    made = await asyncio.create_subprocess_exec(
        *COMMAND, *map(str, words), stdout=-1, stderr=-1, env=environment(), limit=1 << 22
    )
    out, err = await asyncio.wait_for(made.communicate(), 40)
    assert b"Traceback" not in err
    return made.returncode or 0, out.decode(), err.decode()


async def test_discover_run_lock_unlock(tmp_path: Path) -> None:
    miners = WireMiners(8).miners
    inventory, config, state = tmp_path / "miners.toml", tmp_path / "agent.toml", tmp_path / "state"
    credentials = tmp_path / "credentials.toml"
    credentials.write_text(f'[[site]]\nusername = "root"\npassword = "{SECRET}"\n')
    credentials.chmod(0o600)
    config.write_text(
        f'site = "falcon-1"\n[http]\nport = 0\n[asic]\ninventory = "{inventory}"\nbeat_s = 0.5\n'
        f'credentials_file = "{credentials}"\n[asic.discovery]\nranges = ["127.20.8.0/28"]\n'
    )
    settings = ("--config", config, "--state-dir", state)
    running: asyncio.subprocess.Process | None = None
    heard = ""
    try:
        for number, miner in enumerate(miners, start=1):
            await miner.start(f"127.20.8.{number}", 4028, 80)
        code, out, _ = await agent("discover", "127.20.8.0/28", "--output", inventory, "--json")
        assert code == 0 and json.loads(out)["added"] == 8
        code, out, err = await agent("discover", "127.20.8.0/28", "--output", inventory)
        assert code == 0 and "0 new, 0 moved, 0 swapped" in out, err
        table = inventory.with_suffix(".csv")
        header, *lines = table.read_text().splitlines()
        rack = header.split(",").index("rack")
        lines = [",".join([*line.split(",")[:rack], "R07", *line.split(",")[rack + 1 :]]) for line in lines]
        table.write_text("\n".join([header, *lines, ""]))
        assert (await agent("check-config", *settings))[0] == 0
        # Locked before the agent runs: in force from its first breath.
        assert (await agent("lock", "127.20.8.1", "--by", "ana", *settings))[0] == 0
        code, _, err = await agent("lock", "rack:nowhere", *settings)
        assert code == 2 and "nothing was locked" in err and len(err.splitlines()) == 1

        running = await asyncio.create_subprocess_exec(
            *COMMAND, "run", *map(str, settings), stderr=-1, env=environment(), limit=1 << 22
        )
        assert running.stderr is not None
        where = ""

        async def until(*words: str) -> None:
            nonlocal heard, where
            async with asyncio.timeout(20):
                while True:
                    line = (await running.stderr.readline()).decode()
                    assert line, heard
                    heard += line
                    where = json.loads(line).get("http", where)
                    if all(word in line for word in words):
                        return

        await until("agent up")
        code, out, _ = await agent("lock", "rack:R07", "--reason", "fans", "--by", "ana", *settings)
        assert code == 0 and "8 devices" in out
        await until("lock_set", "rack:R07", "ana", "fans")
        held = json.loads((await agent("locks", "--json", *settings))[1])["locks"]
        assert [(entry["target"], entry["device_count"]) for entry in held] == [("127.20.8.1", 1), ("rack:R07", 8)]
        assert (await agent("unlock", "rack:R07", *settings))[0] == 0
        await until("lock_cleared", "rack:R07")
        assert (await agent("unlock", "rack:R07", *settings))[0] == 1

        metrics = (await asyncio.to_thread(urllib.request.urlopen, where)).read().decode()
        assert "gridpivot_" in metrics
        status = (await agent("status", "--json", *settings))[1]
        doctor = (await agent("doctor", "--json", *settings))[1]
        checks = {check["name"]: check["outcome"] for check in json.loads(doctor)["checks"]}
        assert (checks["credentials"], checks["locks"], checks["re-discovery"]) == ("ok", "ok", "ok")
        running.terminate()
        heard += (await running.stderr.read()).decode()
        assert await running.wait() == 0
        left = "".join(path.read_text(errors="replace") for path in state.rglob("*") if path.is_file())
        assert SECRET not in metrics + status + doctor + heard + left
        code, _, err = await agent("discover", "10.0.0.0/14")
        assert code == 2 and "--yes" in err
    finally:
        if running is not None and running.returncode is None:
            running.kill()
            await running.communicate()
        for miner in miners:
            await miner.stop()
