"""Whether an AI pool's queue tells its demand better than its habits alone: 15 min, 1 h and 4 h ahead.

`make bench-demand`. Needs the shared data (GRIDPIVOT_SHARED, or ../shared). Last line: one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
from queued_pool import DAY_S, GPUS, HOST_W, IDLE_W, MAX_W, STEP_S, Look, arrivals_s, jobs_of, replay, trainings

from controller.dispatch.terms import Queue, WattStep
from controller.markets.ai_demand import DemandSample, forecast_demand, habit_w, remembered
from controller.markets.ai_queue import forecast_from_queue, queue_w
from gridpivot.curves import AiPool
from gridpivot.vocabulary import AiPriority

LEADS_S = {"15_min": 900.0, "1_h": 3600.0, "4_h": 4 * 3600.0, "12_h": 12 * 3600.0}
RULES = ("habit", "queue_alone", "queue", "still")  # "queue" is what dispatch uses
HIGH = 0.9  # quantile at which under-forecast hurts: room that AI takes and nobody kept
LEARN_DAYS = 3
BASELINE_W, MOST_W = GPUS * (HOST_W + IDLE_W), GPUS * (HOST_W + MAX_W)
POOL = AiPool("replayed", AiPriority.STANDARD, GPUS, BASELINE_W, BASELINE_W, MOST_W, ((MOST_W, 1.0),))


def at(steps: tuple[WattStep, ...], ahead_s: float) -> float:
    """The step in force."""
    return [s.power_w for s in steps if s.starts_in_s <= ahead_s][-1]


def errors_w(looks: list[Look]) -> dict[str, dict[str, list[float]]]:
    """Forecast less demand [W], by rule and lead."""
    found: dict[str, dict[str, list[float]]] = {r: {lead: [] for lead in LEADS_S} for r in RULES}
    history: tuple[DemandSample, ...] = ()
    for index, look in enumerate(looks):
        history = remembered(history, look.at_s, look.demand_w)
        if look.at_s < LEARN_DAYS * DAY_S or index % 6:
            continue
        habit = habit_w(history, look.at_s)
        assert habit is not None
        without = forecast_demand((), look.demand_w, look.at_s, most_w=POOL.max_w, habit=habit)
        queue = Queue(look.running_gpu_h, look.pending_gpu_h, 0.0, float(look.busy_gpus))

        def usual(ahead_s: float, habit: Any = habit, now_s: float = look.at_s) -> float:
            return float(habit[int((now_s + ahead_s) // 3600.0) % 24])

        alone = queue_w(queue, POOL, look.demand_w, usual)
        used = forecast_from_queue(queue, POOL, look.demand_w, look.at_s, habit)
        for lead, lead_s in LEADS_S.items():
            then = index + round(lead_s / STEP_S)
            if then < len(looks):
                came_w = looks[then].demand_w
                found["habit"][lead].append(at(without, lead_s - 1.0) - came_w)
                found["queue_alone"][lead].append(alone(lead_s) - came_w)
                found["queue"][lead].append(at(used, lead_s - 1.0) - came_w)
                found["still"][lead].append(look.demand_w - came_w)
    return found


def scores(errors: list[float]) -> dict[str, float]:
    """Mean absolute error and pinball loss [% of what the pool can draw]."""
    e = np.array(errors) / POOL.max_w * 100.0
    return {
        "mae_pct": round(float(np.abs(e).mean()), 3),
        "pinball_90_pct": round(float(np.maximum(-HIGH * e, (1.0 - HIGH) * e).mean()), 3),
    }


def measure(given: argparse.Namespace) -> dict[str, Any]:
    """Every load and habit of asking for time."""
    records = trainings(given.data / "zeus_nsdi23_power_v100.csv")
    times = arrivals_s(given.data / "azure_llm_2023_conv.csv")
    found: dict[str, Any] = {"gpus": GPUS, "days": given.days, "cases": {}}
    for load in (0.5, 0.8, 1.0):
        for limits in ("exact", "double", "loose"):
            looks = replay(jobs_of(records, times, given.days, load, limits, given.seed), given.days)
            by_rule = {rule: {lead: scores(e) for lead, e in leads.items()} for rule, leads in errors_w(looks).items()}
            waited = float(np.mean([look.pending_gpu_h > 0 for look in looks]))
            found["cases"][f"load {load:g}, limits {limits}"] = {"queued_ratio": round(waited, 3), **by_rule}
            line = "  ".join(f"{r} " + " ".join(f"{s['mae_pct']:.2f}" for s in v.values()) for r, v in by_rule.items())
            print(f"load {load:g} limits {limits}: queued {waited:.2f}  {line}", file=sys.stderr, flush=True)
    return found


def main() -> None:
    """The command line."""
    shared = Path(os.environ.get("GRIDPIVOT_SHARED", Path(__file__).parents[2].parent / "shared"))
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--data", type=Path, default=shared / "data" / "ai_traces")
    options.add_argument("--days", type=int, default=10)
    options.add_argument("--seed", type=int, default=1)
    print(json.dumps(measure(options.parse_args())))


if __name__ == "__main__":
    main()
