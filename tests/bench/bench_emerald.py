"""Emerald's recorded events with miners filling: 5-min averages against the target; and our own levers on such a cluster.

`make bench-emerald`. Needs the shared data (GRIDPIVOT_SHARED, or ../shared). Last line: one JSON object with the bars.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sim import emerald_levers
from sim.emerald import EVENTS, Noise, play

BARS = {"above_pct": 0.5, "short_pct": 2.0, "kept_pct": 5.0, "report_delay_s": 10.0, "guaranteed_killed": 0}
TRUTHS = {"as_learned": 0.975, "boards_draw_a_fifth_more": 1.2}  # draw over limit, which levers are not told


def measure(given: argparse.Namespace) -> dict[str, Any]:
    """Each event once."""
    noise = Noise()
    found: dict[str, Any] = {"ai_to_mining": f"1:{given.mining:g}", "noise": asdict(noise), "bars": BARS, "events": {}}
    for event in EVENTS:
        if given.only and event.name != given.only:
            continue
        began_s = time.monotonic()
        played = play(event, given.data, given.mining, noise, given.seed)
        ours, alone = played.averages()
        line = {
            "above_pct": round(100.0 * max(0.0, float(ours.max())), 3),
            "short_pct": round(100.0 * max(0.0, -float(ours.min())), 3),
            "mean_pct": round(100.0 * float(ours.mean()), 3),
            "alone_above_pct": round(100.0 * max(0.0, float(alone.max())), 2),
            "alone_short_pct": round(100.0 * max(0.0, -float(alone.min())), 2),
            "above_2_pct_s": played.late_s(),
            "protection_reached": played.protection_reached,
            "took_s": round(time.monotonic() - began_s, 1),
        }
        found["events"][event.name] = line
        print(f"{event.name}: " + "  ".join(f"{k} {v}" for k, v in line.items()), file=sys.stderr, flush=True)
    found["levers"] = {name: levers(given.data / emerald_levers.FILE, held) for name, held in TRUTHS.items()}
    lines = found["events"].values()
    found["ok"] = all(e["above_pct"] <= BARS["above_pct"] and e["short_pct"] <= BARS["short_pct"] for e in lines)
    kept = found["levers"].values()
    found["ok"] &= all(abs(e["missing_pct"]) <= BARS["kept_pct"] or e["short"] for e in kept) and all(
        e["report_delay_s"] <= BARS["report_delay_s"] and not e["guaranteed_killed"] for e in kept
    )
    return found


def levers(path: Path, held_ratio: float) -> dict[str, Any]:
    """Promised and delivered over a 25 % event of three hours."""
    kept = emerald_levers.event(path, held_ratio=held_ratio)
    line = {
        "promised_kw": round(kept.promised_w / 1e3, 2),
        "delivered_kw": round(kept.delivered_w / 1e3, 2),
        "missing_pct": round(100.0 * (1.0 - kept.delivered_w / max(1.0, kept.promised_w)), 2),
        "pulls": kept.pulls,
        "short": kept.short,
        "report_delay_s": kept.report_delay_s,
        "guaranteed_killed": kept.guaranteed_killed,
        "above_target_pct": round(kept.above_target_pct, 2),
        "restored": kept.restored,
    }
    print("levers: " + "  ".join(f"{k} {v}" for k, v in line.items()), file=sys.stderr, flush=True)
    return line


def main() -> None:
    """The command line."""
    shared = Path(os.environ.get("GRIDPIVOT_SHARED", Path(__file__).parents[2].parent / "shared"))
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--mining", type=float, default=2.0, help="mining over AI, at full power of both")
    options.add_argument("--data", type=Path, default=shared / "data" / "ai_traces")
    options.add_argument("--only", choices=[event.name for event in EVENTS])
    options.add_argument("--seed", type=int, default=1)
    given = options.parse_args()
    if not given.data.is_dir():
        sys.exit(f"{given.data}: no such directory; give --data with the recorded traces")
    print(json.dumps(measure(given)))


if __name__ == "__main__":
    main()
