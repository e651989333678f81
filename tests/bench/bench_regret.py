"""Regret against perfect foresight, month by month, for both example fleets; the last line is one JSON object.

    make bench-regret

Mining alone runs through ERCOT's hub of 2024 by halves (the forecast's blend was fitted on the first: `make
bench-forecast`) and HB_SOUTH, January to March 2025; the coupled fleet through what nothing was fitted on. Prices
come from the shared traces (GRIDPIVOT_SHARED, default ../shared).
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from controller.dispatch.parameters import Parameters
from sim.backtest_run import Files, Past, moment, run

ROOT = Path(__file__).resolve().parents[2]
GRID = Path(os.environ.get("GRIDPIVOT_SHARED", ROOT.parent / "shared")) / "data" / "grid"
POLICIES = {
    "mining": ("foresight", "static", "threshold", "merit-order", "merit-order-current", "lp", "lp-current"),
    "coupled": ("foresight", "static", "threshold", "merit-order", "lp", "clipped", "hold"),
}
FIT = [(f"2024-{m:02d}-01", f"2024-{m + 1:02d}-01") for m in range(1, 7)]
REPORT = [(f"2024-{m:02d}-01", f"2024-{m + 1:02d}-01") for m in range(7, 12)] + [("2024-12-01", "2025-01-01")]
SOUTH = [("2025-01-01", "2025-02-01"), ("2025-02-01", "2025-03-01"), ("2025-03-01", "2025-03-27")]
PARTS = {
    "mining": {"hub, first half": FIT, "hub, second half": REPORT, "hb_south": SOUTH},
    "coupled": {"hub, second half": REPORT, "hb_south": SOUTH},
}


def files(fleet: str, south: bool) -> Files:
    """The fleet on its market."""
    example = ROOT / "docs" / "examples" / f"fleet-{fleet}.toml"
    hashprice = GRID / "btc_network_daily.csv"
    if south:
        both = (str(GRID / "ercot_hbsouth_2024_2025_da_rt15.csv.gz"),)
        columns = (None, "HB_SOUTH_RTM", "HB_SOUTH_DAM", "America/Chicago")
        return Files(example, both, both, hashprice, *columns)
    hub = str(GRID / "ercot_hubavg_2024_rt15.csv.gz")
    return Files(example, (hub,), (str(GRID / "ercot_hubavg_2024_da60.csv.gz"),), hashprice)


def measure(fleet: str, market: str, windows: list[tuple[str, str]]) -> dict[str, Any]:
    """Regrets [%] by window of every policy, over all of it, and the promises that were broken [MWh]."""
    past, parameters = Past(files(fleet, market == "hb_south")), Parameters()
    missed: dict[str, list[float]] = {}
    best, lost, broken, wall = 0.0, dict.fromkeys(POLICIES[fleet], 0.0), {}, {}
    for begin, end in windows:
        scenario = past.scenario(moment(begin, "from"), moment(end, "to"))
        outcomes = {o.policy: o for o in run(scenario, POLICIES[fleet], parameters)}
        top = outcomes["foresight"].account.margin_usd
        best += top
        for name, outcome in outcomes.items():
            account = outcome.account
            lost[name] += top - account.margin_usd
            missed.setdefault(name, []).append(100.0 * (top - account.margin_usd) / top)
            wall[name] = wall.get(name, 0.0) + outcome.wall_s
            for what in ("guaranteed_unserved_mwh", "dr_shortfall_mwh", "ceiling_excess_mwh"):
                broken[what] = broken.get(what, 0.0) + (getattr(account, what) if name.startswith("lp") else 0.0)
        row = "  ".join(f"{name} {missed[name][-1]:.3f}" for name in POLICIES[fleet][1:])
        print(f"{fleet:8s} {market:16s} {begin[:7]}  {row}", flush=True)
    return {
        "fleet": fleet,
        "market": market,
        "windows": [begin[:7] for begin, _ in windows],
        "foresight_usd": round(best),
        "regret_pct": {
            name: {
                "all": round(100.0 * lost[name] / best, 4),
                "mean": round(sum(row) / len(row), 4),
                "worst": round(max(row), 4),
                "by_window": [round(r, 4) for r in row],
            }
            for name, row in missed.items()
            if name != "foresight"
        },
        "broken_by_lp": {what: round(mwh, 6) for what, mwh in broken.items()},
        "wall_s": {name: round(s, 1) for name, s in wall.items()},
    }


def bars(results: dict[tuple[str, str], dict[str, Any]]) -> dict[str, tuple[float, float]]:
    """Figures of issue 4 with their bars [%]: mining over the hub's year, coupled by its windows there."""
    halves = [results["mining", "hub, first half"], results["mining", "hub, second half"]]
    best = sum(half["foresight_usd"] for half in halves)

    def year(policy: str) -> float:
        return float(sum(half["regret_pct"][policy]["all"] * half["foresight_usd"] for half in halves) / best)

    coupled = results["coupled", "hub, second half"]["regret_pct"]["lp"]
    return {
        "mining 2024, lp": (year("lp"), 0.50),
        "mining 2024, lp-current": (year("lp-current"), 0.10),
        "coupled, lp, mean of windows": (coupled["mean"], 0.40),
        "coupled, lp, worst window": (coupled["worst"], 0.80),
        "promises broken by the lp, MWh": (sum(sum(r["broken_by_lp"].values()) for r in results.values()), 0.0),
    }


def main() -> int:
    """Run the windows; 1 when a bar is missed."""
    if not GRID.is_dir():
        sys.stderr.write(f"error: no price traces at {GRID}; set GRIDPIVOT_SHARED\n")
        return 2
    begun = time.perf_counter()
    results = {(f, m): measure(f, m, windows) for f, parts in PARTS.items() for m, windows in parts.items()}
    held = bars(results)
    for what, (value, bar) in held.items():
        print(f"{what}: {value:.3f} (bar {bar:.2f}) {'ok' if value <= bar else 'MISSED'}")
    for (fleet, market), result in results.items():
        print(f"{fleet}, {market}: lp {result['regret_pct']['lp']['all']:.3f} % over all windows")
    misses = [what for what, (value, bar) in held.items() if value > bar]
    figures = {what: value for what, (value, _) in held.items()}
    wall_s = round(time.perf_counter() - begun, 1)
    print(json.dumps({**figures, "results": list(results.values()), "misses": misses, "wall_s": wall_s}))
    return 1 if misses else 0


if __name__ == "__main__":
    sys.exit(main())
