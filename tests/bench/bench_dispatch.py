"""Dispatch at full size against its bars: cold, warm, every term, growth with sites, rivals, and event to plan.

Prints what it does as it goes, then one JSON object: medians, ratios within this run, and the bars that were missed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import random
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

from dispatch_fleet import MODELS, REGIONS, follow, plain, prices, with_all_terms
from dispatch_wire import event_to_plan_s
from rivals import by_cvxpy, by_linopy
from rounding import rounding_loss

from controller.dispatch.inputs import FleetState, Window
from controller.dispatch.parameters import Parameters
from controller.dispatch.solve import Planner

T = TypeVar("T")
GROWTH = (10, 40, 100, 400)


def timed(work: Callable[[], T]) -> tuple[float, T]:
    """Wall seconds and the result."""
    begun = time.perf_counter()
    result = work()
    return time.perf_counter() - begun, result


def after_prices(state: FleetState, rng: random.Random) -> FleetState:
    """All prices moved."""
    moved = [prices(rng, region) for region in range(REGIONS)]
    return replace(state, sites=tuple(replace(s, prices=moved[i % REGIONS]) for i, s in enumerate(state.sites)))


def after_call(state: FleetState, number: int) -> FleetState:
    """A demand-response call on a quarter of the sites."""
    window = (Window(f"dr-{number}", 20e6, 0.0, 3600.0),)
    called = len(state.sites) // 4
    return replace(
        state, sites=tuple(replace(s, windows=window if i < called else ()) for i, s in enumerate(state.sites))
    )


def cold_and_warm(base: FleetState, repeats: int, rng: random.Random, name: str) -> dict[str, Any]:
    """Cold solutions in new planners, warm ones after all prices moved and after a call."""
    cold = [timed(lambda: Planner().solve(base))[0] for _ in range(repeats)]
    planner = Planner()
    state = follow(base, planner.solve(base))
    warm: dict[str, list[float]] = {"prices": [], "event": []}
    worst = 0.0
    for number in range(repeats):
        state = after_prices(state, rng)
        for kind, changed in (("prices", state), ("event", after_call(state, number))):
            took, decision = timed(partial(planner.solve, changed))
            assert decision.warm
            worst = max(worst, decision.primal_infeasibility)
            warm[kind].append(took)
            state = follow(changed, decision)
    result: dict[str, Any] = {"cold_s": _p50(cold), **{f"warm_{k}_s": _p50(v) for k, v in warm.items()}}
    both = warm["prices"] + warm["event"]
    result |= {"warm_s": _p50(both), "warm_s_max": round(max(both), 4), "primal_infeasibility": worst}
    result["cold_over_warm"] = round(result["cold_s"] / result["warm_s"], 1)
    print(f"{name}: {result}")
    return result


def rivals(base: FleetState, warm_s: float, repeats: int) -> dict[str, Any]:
    """Build and solve of the same model by modelling libraries; their costs must equal ours."""
    ours = [timed(lambda: Planner().solve(base)) for _ in range(repeats)]
    own_s, cost = statistics.median(t for t, _ in ours), ours[0][1].objective_usd
    result: dict[str, Any] = {"own_cold_s": round(own_s, 4)}
    for name, solve in (("linopy", by_linopy), ("cvxpy", by_cvxpy)):
        solve(base, Parameters())  # imports, caches
        runs = [timed(lambda solve=solve: solve(base, Parameters())) for _ in range(repeats)]  # type: ignore[misc]
        assert all(math.isclose(found, cost, rel_tol=1e-6) for _, found in runs), f"{name} found another cost"
        took = statistics.median(t for t, _ in runs)
        result[f"{name}_s"] = round(took, 4)
        result[f"{name}_over_own_cold"] = round(took / own_s, 2)
        result[f"{name}_over_own_warm"] = round(took / warm_s, 1)
    print(f"rivals: {result}")
    return result


def growth(repeats: int) -> dict[str, Any]:
    """Warm solutions after all prices moved, by number of sites."""
    took: dict[int, float] = {}
    for sites in GROWTH:
        rng = random.Random(sites)
        planner, base = Planner(), plain(sites, rng)
        state = follow(base, planner.solve(base))
        runs = []
        for _ in range(repeats):
            state = after_prices(state, rng)
            seconds, decision = timed(partial(planner.solve, state))
            runs.append(seconds)
            state = follow(state, decision)
        took[sites] = statistics.median(runs)
        print(f"{sites} sites warm: {took[sites]:.3f} s")
    per_site = {n: took[n] / n for n in GROWTH}
    return {
        **{f"warm_{n}_sites_s": round(took[n], 4) for n in GROWTH},
        "per_site_400_over_10": round(per_site[400] / per_site[10], 2),
    }


def _p50(values: list[float]) -> float:
    return round(statistics.median(values), 4)


def misses(found: dict[str, Any]) -> list[str]:
    """Bars that this run did not reach, each with its figure."""
    plain_, full, against, grown = found["plain"], found["all_terms"], found["rivals"], found["growth"]
    bars = (
        ("plain cold_s", plain_["cold_s"], "<=", 3.5),
        ("plain warm_prices_s", plain_["warm_prices_s"], "<=", 0.4),
        ("plain warm_event_s", plain_["warm_event_s"], "<=", 0.4),
        ("plain cold_over_warm", plain_["cold_over_warm"], ">=", 8.0),
        ("all_terms warm_s", full["warm_s"], "<=", 1.0),
        ("linopy_over_own_cold", against["linopy_over_own_cold"], ">=", 2.0),
        ("cvxpy_over_own_cold", against["cvxpy_over_own_cold"], ">=", 1.5),
        ("linopy_over_own_warm", against["linopy_over_own_warm"], ">=", 15.0),
        ("cvxpy_over_own_warm", against["cvxpy_over_own_warm"], ">=", 15.0),
        ("warm_400_sites_s", grown["warm_400_sites_s"], "<=", 4.0),
        ("per_site_400_over_10", grown["per_site_400_over_10"], "<=", 1.0),
        ("event_to_plan p99_s", found["event_to_plan"]["p99_s"], "<=", 0.5),
    )
    return [
        f"{name} is {value}, bar {sign} {bar:g}"
        for name, value, sign, bar in bars
        if not (value <= bar if sign == "<=" else value >= bar)
    ]


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sites", type=int, default=40)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--events", type=int, default=500, help="events timed from order to plan on the wire")
    arguments = parser.parse_args()
    rng = random.Random(7)
    base = plain(arguments.sites, rng)
    Planner(period_s=(300.0,)).solve(base)  # warm-up: libraries loaded
    found: dict[str, Any] = {
        "benchmark": "dispatch",
        "sites": arguments.sites,
        "classes_per_site": len(MODELS),
        "repeats": arguments.repeats,
        "cpus": os.cpu_count(),
        "solver": Planner().solve(replace(base, sites=base.sites[:1])).solver,
    }
    found["plain"] = cold_and_warm(base, arguments.repeats, rng, "one limit a site")
    found["all_terms"] = cold_and_warm(with_all_terms(base, rng), arguments.repeats, rng, "every term, four feeders")
    found["rounding_loss"] = rounding_loss(base, Planner().solve(base))
    found["rivals"] = rivals(base, found["plain"]["warm_s"], arguments.repeats)
    found["growth"] = growth(arguments.repeats)
    found["event_to_plan"] = asyncio.run(event_to_plan_s(base, arguments.events))
    found["misses"] = misses(found)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
