"""Eleven thousand emulated miners on loopback: what reading, commanding and exposing them costs, beside pyasic-rs.

Every reader is a process of its own against an emulator in another (tests/bench/asic_roles.py); two cores are shared by
both. Bars are printed beside the figures; the last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

ROLES = Path(__file__).with_name("asic_roles.py")
MIXED = ["luxos", "whatsminer"]
BARS = {
    "cpu_ms_per_poll": 0.40,
    "times_less_cpu_than_pyasic_rs": 4.0,
    "sweep_s": 15.0,
    "agent_rss_mib": 250.0 * 1e6 / 2**20,
    "shed_last_command_s": 10.0,
    "shed_evidence_s": 25.0,
    "metrics_cpu_s": 0.5,
    "metrics_chunk_ms": 50.0,
    "discovery_s": 60.0,
}


def say(text: str) -> None:
    """Progress, apart from the result."""
    print(text, file=sys.stderr, flush=True)


@contextmanager
def emulated(asked: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A running emulator; yields what was asked with its ports."""
    say(f"emulator: {asked['count']} miners of {'+'.join(asked['mix'])}, odd {asked['odd']:.0%}")
    command = [sys.executable, str(ROLES), "emulate", json.dumps(asked)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None and process.stdout is not None
        try:
            yield {**asked, **json.loads(process.stdout.readline())}
        finally:
            process.stdin.close()
            process.wait(30)


def role(name: str, asked: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Run a reader to its end."""
    command = [sys.executable, str(ROLES), name, json.dumps({**asked, **more})]
    done = subprocess.run(command, capture_output=True, text=True, timeout=400, check=False)
    if done.returncode:
        raise SystemExit(f"{name} failed ({done.returncode}):\n{done.stderr[-2000:]}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    say(f"  {name}: {result}")
    return result


def whole_agent(asked: dict[str, Any], seconds: float) -> dict[str, Any]:
    """The real `gridpivot-agent run` over the emulated site: memory, sweep, and what a scrape costs."""
    with tempfile.TemporaryDirectory() as place:
        role("write", asked, directory=place)
        env = os.environ | {"GRIDPIVOT_AGENT__ASIC__CREDENTIALS__WHATSMINER__PASSWORD": "admin"}
        command = [str(Path(sys.executable).with_name("gridpivot-agent")), "run", "--config", f"{place}/agent.toml"]
        with subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True) as agent:
            assert agent.stderr is not None
            try:
                url = next(json.loads(line)["http"] for line in agent.stderr if '"http"' in line)
                own = psutil.Process(agent.pid)
                time.sleep(seconds)  # a bench, no test: the site is given time to settle
                scrapes = []
                for _ in range(5):
                    before = own.cpu_times()
                    began_s = time.monotonic()
                    with urllib.request.urlopen(url, timeout=30) as reply:
                        body = reply.read()
                    after = own.cpu_times()
                    scrapes.append(
                        (after.user + after.system - before.user - before.system, time.monotonic() - began_s)
                    )
                rss = own.memory_info().rss / 2**20
            finally:
                agent.terminate()
                agent.wait(20)
    scrapes.sort()
    series = sum(1 for line in body.splitlines() if line.startswith(b"gridpivot_device_"))
    result = {
        "rss_mib": round(rss, 1),
        "series": series,
        "scrape_cpu_s": round(scrapes[2][0], 3),
        "scrape_s": round(scrapes[2][1], 3),
    }
    say(f"  agent: {result}")
    return result


def main() -> None:
    """Measure everything; a smaller `--count` is for trying the bench itself."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--count", type=int, default=11_000)
    options.add_argument("--foreign", type=int, default=300, help="machines that pyasic-rs reads")
    options.add_argument("--seconds", type=float, default=30.0, help="of steady polling")
    given = options.parse_args()
    base = {"count": given.count, "odd": 0.0, "beat_s": 10.0, "slow_beat_s": 60.0, "seconds": given.seconds}
    out: dict[str, Any] = {"bench": "asic", "devices": given.count}
    with emulated({**base, "mix": ["luxos"], "api_port": 4028, "http_port": 80}) as site:
        out["one_connection"] = role("sweep", site)
        out["pyasic_rs"] = role("foreign", {**site, "count": min(given.foreign, given.count)}, rounds=5)
    with emulated({**base, "mix": MIXED, "odd": 0.01}) as site:
        out["odd_sweep"] = role("sweep", site)
        out["agent"] = whole_agent(site, given.seconds)
    with emulated({**base, "mix": MIXED}) as site:
        out["shed"] = role("shed", site, limit_s=120.0, prepare_per_s=500.0, idle_s=given.count / 500.0)
    with emulated({**base, "mix": ["antminer"]}) as site:
        out["shed_antminer"] = role("shed", site, limit_s=240.0)
    out["render"] = role("render", base)
    with emulated({**base, "mix": MIXED, "exact": True, "api_port": 4028}) as site:
        out["discovery"] = role("discover", {**site, "range": "127.20.0.0/18"})
    reached = {
        "cpu_ms_per_poll": out["one_connection"]["cpu_ms_per_poll"],
        "times_less_cpu_than_pyasic_rs": round(
            out["pyasic_rs"]["cpu_ms_per_poll"] / out["one_connection"]["cpu_ms_per_poll"], 2
        ),
        "sweep_s": out["odd_sweep"]["first_sweep_s"],
        "agent_rss_mib": out["agent"]["rss_mib"],
        "shed_last_command_s": out["shed"]["last_command_s"],
        "shed_evidence_s": out["shed"]["evidence_s"],
        "metrics_cpu_s": out["agent"]["scrape_cpu_s"],
        "metrics_chunk_ms": out["render"]["chunk_ms_max"],
        "discovery_s": out["discovery"]["seconds"],
    }
    for name, bar in BARS.items():
        at_least = name.startswith("times")
        met = reached[name] >= bar if at_least else reached[name] <= bar
        say(f"{name:32} {reached[name]:>10}   bar {'>=' if at_least else '<='} {bar:g}   {'ok' if met else 'MISSED'}")
    print(json.dumps({**out, "reached": reached, "bars": BARS}))


if __name__ == "__main__":
    main()
