"""What mutual TLS and signatures cost a controller of forty sites, beside the same traffic over plain TCP in the same run.

The controller's end (servicer, store, gate, board) is a process of its own, forty agents' ends another; they hang up and
dial again over TLS, over plain TCP, and with tables cut into parts, in turns, and the controller's CPU is read over each
turn. Beside it: what a signature costs, what a handshake costs, what an idle session holds, how fast tables are taken.
Last line: one JSON object. A smaller `--seconds` is for trying the bench itself.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from link_centre import example_plan
from partner import Partner

from gridpivot.plan import sign, verify
from sim import staging
from sim.fleet import SiteSpec

ARMS = ("tls", "plain", "parts")
SETTLE_S = 6.0
PLAN_EVERY_S = 300.0
BAR_CORE = 0.05


def say(text: str) -> None:
    """Progress, apart from the result."""
    print(text, file=sys.stderr, flush=True)


class Link:
    """Both ends."""

    def __init__(self, centre: Partner, sites: Partner) -> None:
        self.centre, self.sites = centre, sites

    async def turn(self, how: str, seconds: float) -> dict[str, float]:
        """Dial one way, report for a while, hang up; CPU as shares of one core."""
        await self.centre.ask(signed=how != "plain")
        before_s = self.centre.cpu_s()
        await self.sites.ask(op="dial", how=how)
        dialled_s = self.centre.cpu_s() - before_s
        await self.sites.ask(op="go")
        await asyncio.sleep(SETTLE_S)
        first = await self.centre.ask()
        began_s, cpu_s, agents_s = time.monotonic(), self.centre.cpu_s(), self.sites.cpu_s()
        await asyncio.sleep(seconds)
        took_s = time.monotonic() - began_s
        cpu_s, agents_s = self.centre.cpu_s() - cpu_s, self.sites.cpu_s() - agents_s
        last = await self.centre.ask()
        told = await self.sites.ask(op="hang_up")
        if last["bad"] or told["sessions"] != told["connected"]:
            raise SystemExit(f"{how}: a turn that does not count: {last}, {told}")
        result = {
            "core": cpu_s / took_s,
            "agents_core": agents_s / took_s,
            "dial_cpu_s": dialled_s,
            "records_per_s": (last["records"] - first["records"]) / took_s,
            "tables_per_s": (last["tables"] - first["tables"]) / took_s,
            "kib_per_s": (last["payload_bytes"] - first["payload_bytes"]) / took_s / 1024,
        }
        say(f"{how:6} " + "  ".join(f"{k} {v:.4g}" for k, v in result.items()))
        return result

    async def flood(self, how: str, sites: int, seconds: float) -> dict[str, float]:
        """How fast device tables are taken, and what one costs the controller."""
        await self.sites.ask(op="dial", how=how)
        first, cpu_s, began_s = await self.centre.ask(), self.centre.cpu_s(), time.monotonic()
        await self.sites.ask(op="flood", sites=sites, seconds=seconds, deadline_s=seconds + 60.0)
        last, cpu_s, took_s = await self.centre.ask(), self.centre.cpu_s() - cpu_s, time.monotonic() - began_s
        await self.sites.ask(op="hang_up")
        tables = last["tables"] - first["tables"]
        result = {
            "tables_per_s": round(tables / took_s, 1),
            "cpu_ms_per_table": round(1000 * cpu_s / max(1, tables), 3),
            "mib_per_s": round((last["payload_bytes"] - first["payload_bytes"]) / took_s / 2**20, 2),
            "controller_core": round(cpu_s / took_s, 3),
        }
        say(f"flood {how}: {result}")
        return result

    async def idle(self, names: list[str]) -> dict[str, float]:
        """Memory of sessions that only keep their heartbeat."""
        before_mib = self.centre.rss_mib()
        await self.sites.ask(op="idle", names=names, deadline_s=150.0)
        await asyncio.sleep(SETTLE_S)
        cpu_s, began_s = self.centre.cpu_s(), time.monotonic()
        await asyncio.sleep(10.0)
        core = (self.centre.cpu_s() - cpu_s) / (time.monotonic() - began_s)
        live = (await self.centre.ask())["live"]
        if live != len(names):
            raise SystemExit(f"{live} of {len(names)} idle sessions live")
        grown_mib = self.centre.rss_mib() - before_mib
        await self.sites.ask(op="hang_up")
        result = {
            "sessions": live,
            "kib_each": round(1024 * grown_mib / live, 1),
            "controller_rss_mib": round(before_mib + grown_mib, 1),
            "core": round(core, 4),
        }
        say(f"idle: {result}")
        return result


def signatures(plans: int = 40, repeats: int = 25) -> dict[str, float]:
    """Milliseconds to sign and to verify a plan for each of forty sites, medians."""
    key = Ed25519PrivateKey.generate()
    keys = {"bench": key.public_key()}
    made = [example_plan(f"site-{n:02d}", n + 1) for n in range(plans)]
    signing, verifying = [], []
    for _ in range(repeats):
        began_s = time.process_time()
        signed = [sign(plan, key, "bench") for plan in made]
        signing.append(time.process_time() - began_s)
        began_s = time.process_time()
        for one in signed:
            verify(one, keys)
        verifying.append(time.process_time() - began_s)
    return {
        "plans": plans,
        "plan_bytes": len(signed[0].plan),
        "sign_ms": round(1000 * statistics.median(signing), 2),
        "verify_ms": round(1000 * statistics.median(verifying), 2),
    }


async def measure(given: argparse.Namespace, place: Path) -> dict[str, Any]:
    """The whole run."""
    names = [f"site-{n:02d}" for n in range(given.sites)]
    idle = [f"idle-{n:03d}" for n in range(given.idle)]
    staging.make_identities(place, [SiteSpec(n, "here", 0, 1, 1.0, False, 1) for n in [*names, *idle]])
    centre = Partner(
        "centre", place, "link_centre.py",
        {"place": str(place), "sites": names, "idle": idle, "plan_every_s": PLAN_EVERY_S},
    )  # fmt: skip
    try:
        up = await centre.start()
        ports = {"tls": up["tls"], "plain": up["plain"]}
        asked = {"place": str(place), "sites": names, "devices": given.devices, "ports": ports}
        sites = Partner("sites", place, "link_sites.py", asked)
        try:
            await sites.start()
            link = Link(centre, sites)
            out: dict[str, Any] = {"idle": await link.idle(idle)} if idle else {}
            await link.turn("tls", 2.0)  # inventories, first tables: nobody's figures
            turns: dict[str, list[dict[str, float]]] = {arm: [] for arm in ARMS}
            for number in range(given.rounds):
                for how in ARMS if number % 2 == 0 else reversed(ARMS):
                    turns[how].append(await link.turn(how, given.seconds))
            out["turns"] = {
                how: {k: round(statistics.median(t[k] for t in every), 4) for k in every[0]}
                for how, every in turns.items()
            }
            pairs = list(zip(turns["tls"], turns["plain"], strict=True))
            out["overhead_core"] = round(statistics.median(t["core"] - p["core"] for t, p in pairs), 4)
            out["overhead_core_all"] = [round(t["core"] - p["core"], 4) for t, p in pairs]
            handshakes = [t["dial_cpu_s"] - p["dial_cpu_s"] for t, p in pairs]
            out["handshake_cpu_ms"] = round(1000 * statistics.median(handshakes) / given.sites, 2)
            out["flood"] = {how: await link.flood(how, given.flood_sites, given.flood_s) for how in ARMS}
            out["controller_rss_mib"] = round(centre.rss_mib(), 1)
        finally:
            await sites.child.stop()
    finally:
        await centre.child.stop()
    return out


def main() -> None:
    """Run and print."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--sites", type=int, default=40)
    options.add_argument("--devices", type=int, default=11_250)
    options.add_argument("--rounds", type=int, default=4)
    options.add_argument("--seconds", type=float, default=60.0, help="of each turn")
    options.add_argument("--idle", type=int, default=400, help="idle sessions held for their memory; 0 = none")
    options.add_argument("--flood-sites", type=int, default=8)
    options.add_argument("--flood-s", type=float, default=10.0)
    given = options.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        found = asyncio.run(measure(given, Path(directory)))
    found = {"bench": "link", "sites": given.sites, "devices": given.devices, "rounds": given.rounds,
             "seconds": given.seconds, **found, "signatures": signatures(given.sites)}  # fmt: skip
    met = found["overhead_core"] <= BAR_CORE
    say(
        f"overhead {100 * found['overhead_core']:.2f} % of one core   bar <= {100 * BAR_CORE:g} %   {'ok' if met else 'MISSED'}"
    )
    print(json.dumps({**found, "bars": {"overhead_core": BAR_CORE}, "ok": met}))


if __name__ == "__main__":
    main()
