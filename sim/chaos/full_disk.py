"""The site's disk takes no more: a real `gridpivot-agent run` under a limit on the size of its files."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import psutil

from sim import staging
from sim.chaos.outcome import Outcome
from sim.chaos.rig import Rig, until
from sim.children import Child, wait_for_log

SETTINGS = """site = "{site}"
state_dir = "{state}"
[uplink]
address = "localhost:{port}"
ca = "{place}/ca.crt"
certificate = "{own}/site.crt"
key = "{own}/site.key"
planner_keys = "{place}/planner"
[report]
rollup_s = 0.5
[http]
port = 0
"""


async def agent_disk_full(place: Path, short: bool) -> Outcome:
    """The spool refuses and says so, the process goes on and stays connected, and everything is told afterwards."""
    rig = Rig(place)
    child = Child("agent", place / "agent.log")
    try:
        await rig.start_controller()
        site = rig.specs[0].name
        own, state = place / "sites" / site, place / "agents" / site
        config = place / "agent.toml"
        text = SETTINGS.format(site=site, state=state, port=rig.session_port, place=place, own=own)
        config.write_text(text, encoding="utf-8")
        await child.start(staging.entry("agent.cli", "run", "--config", str(config)))
        await wait_for_log(child, "agent up", 30.0)

        def stored(kind: str) -> int:
            return int(rig.read("SELECT count(*) FROM site_events WHERE site = ? AND kind = ?", site, kind)[0][0])

        await until(lambda: stored("agent_started") > 0, 30.0, "first event stored")
        assert child.process is not None
        process = psutil.Process(child.process.pid)
        before = process.rlimit(psutil.RLIMIT_FSIZE)
        sizes = [path.stat().st_size for path in state.glob("spool.sqlite*")]
        process.rlimit(psutil.RLIMIT_FSIZE, (max(sizes), before[1]))
        began_s = time.monotonic()
        await until(lambda: _said(child), 60.0, "spool_degraded is said")
        found_s = time.monotonic() - began_s
        await asyncio.sleep(3.0 if short else 30.0)
        child.check()
        connected = await rig.link_of(site)
        process.rlimit(psutil.RLIMIT_FSIZE, before)
        began_s = time.monotonic()
        await until(lambda: stored("spool_degraded") >= 2, 40.0, "both events stored")
        back_s = time.monotonic() - began_s
        raised = child.log.read_text(encoding="utf-8").count("Traceback")
        note = "" if connected == "connected" and not raised else f"link {connected}, {raised} tracebacks"
        saw = f"spool_degraded after {found_s:.0f} s, link {connected}; plan_degraded needs a site with devices: not shown"
        return Outcome("agent_disk_full", not note, saw, "processes", recovery_s=back_s, note=note)
    finally:
        await child.stop()
        await rig.stop()


def _said(child: Child) -> bool:
    return '"kind": "spool_degraded"' in child.log.read_text(encoding="utf-8", errors="replace")


SCENARIOS: dict[str, Callable[[Path, bool], Awaitable[Outcome]]] = {"agent_disk_full": agent_disk_full}
