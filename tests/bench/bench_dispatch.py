"""Dispatch at full size: 40 sites x 5 classes x 80 periods, solved cold and warm.

Prints each repeat, then one JSON object: medians of at least five repeats, CPU beside wall.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from collections.abc import Callable
from dataclasses import replace

from controller.dispatch.inputs import ClassState, Decision, FleetState, PoolState, PriceStep, SiteState, Window
from controller.dispatch.solve import Planner
from gridpivot.curves import gpu_pool, miner_class
from gridpivot.vocabulary import AiPriority

MODELS = ("Antminer S19", "Antminer S19j Pro", "Antminer S19 XP", "Whatsminer M60", "Antminer S21")
MACHINES_PER_CLASS = 2250


def fleet(sites: int, rng: random.Random) -> FleetState:
    """Sites of five classes and two pools, a third of them with a ceiling that binds, quarter-hourly prices."""
    classes = [miner_class(m, "virtual", m, shed_s=3, wake_s=240) for m in MODELS]
    made = []
    for number in range(sites):
        counts = [float(MACHINES_PER_CLASS)] * len(classes)
        states = tuple(
            ClassState(c, int(n), 0, 0.0, (0.0, 0.0, n, 0.0), 0.0, 0.0) for c, n in zip(classes, counts, strict=True)
        )
        guaranteed = gpu_pool("inference", AiPriority.GUARANTEED, 2000)
        standard = gpu_pool("training", AiPriority.STANDARD, 4000)
        pools = (
            PoolState(guaranteed, 1.5e6, 2e6, rng.uniform(1.2e6, 2.2e6), 2.5),
            PoolState(standard, 3e6, 4e6, rng.uniform(2.5e6, 4.4e6), 1.6),
        )
        ceiling = rng.choice((36e6, 45e6, 55e6))
        made.append(
            SiteState(
                f"site-{number:02d}", f"region-{number % 8}", ceiling, (), states, pools, 0.05, 200e3,
                prices(rng, number % 8), 0.01, 0.0, 0.0, True, None,
            )
        )  # fmt: skip
    return FleetState(tuple(made), 45.0)


def prices(rng: random.Random, region: int) -> tuple[PriceStep, ...]:
    """Two days of quarter hours [USD/MWh], night to evening peak, with noise."""
    shape = [22.0 + 4 * region + 30.0 * (17 <= (q // 4) % 24 <= 20) + rng.gauss(0, 8) for q in range(192)]
    return tuple(PriceStep(q * 900.0, p) for q, p in enumerate(shape))


def follow(state: FleetState, decision: Decision) -> FleetState:
    """The fleet as the decision commands it."""
    sites = tuple(
        replace(
            site,
            classes=tuple(replace(c, commanded=d.machines) for c, d in zip(site.classes, chosen.classes, strict=True)),
        )
        for site, chosen in zip(state.sites, decision.sites, strict=True)
    )
    return replace(state, sites=sites)


def timed(solve: Callable[[], Decision]) -> tuple[float, float, Decision]:
    """Wall and CPU seconds of one solution."""
    wall, cpu = time.perf_counter(), time.process_time()
    decision = solve()
    return time.perf_counter() - wall, time.process_time() - cpu, decision


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sites", type=int, default=40)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    rng = random.Random(7)
    base = fleet(arguments.sites, rng)
    Planner(period_s=(300.0,)).solve(base)  # warm-up: libraries loaded

    cold = []
    for _ in range(arguments.repeats):
        wall, cpu, decision = timed(lambda: Planner().solve(base))
        cold.append((wall, cpu))
        print(f"cold {wall:.3f} s")
    planner = Planner()
    state = follow(base, planner.solve(base))
    warm: dict[str, list[tuple[float, float]]] = {"prices": [], "event": [], "demand": []}
    for repeat in range(arguments.repeats):
        moved = [prices(rng, r) for r in range(8)]
        state = replace(state, sites=tuple(replace(s, prices=moved[i % 8]) for i, s in enumerate(state.sites)))
        steps = [("prices", state)]
        windows = (Window(f"dr-{repeat}", 20e6, 0.0, 3600.0),)
        steps.append(("event", replace(state, sites=tuple(
            replace(s, windows=windows if i < 10 else ()) for i, s in enumerate(state.sites)))))  # fmt: skip
        steps.append(("demand", replace(state, sites=tuple(
            replace(s, pools=tuple(replace(p, demand_w=rng.uniform(1.2e6, 4.4e6)) for p in s.pools))
            if i % 4 == 0 else s for i, s in enumerate(state.sites)))))  # fmt: skip
        for name, changed in steps:
            wall, cpu, decision = timed(lambda changed=changed: planner.solve(changed))  # type: ignore[misc]
            warm[name].append((wall, cpu))
            print(f"warm {name} {wall:.3f} s, warm={decision.warm}")
            state = follow(state, decision)
    every = [pair for pairs in warm.values() for pair in pairs]
    print(
        json.dumps(
            {
                "benchmark": "dispatch",
                "sites": arguments.sites,
                "classes_per_site": len(MODELS),
                "repeats": arguments.repeats,
                "cold_ms_p50": _median_ms(cold, 0),
                "cold_cpu_ms_p50": _median_ms(cold, 1),
                "warm_ms_p50": _median_ms(every, 0),
                "warm_cpu_ms_p50": _median_ms(every, 1),
                "warm_ms_max": round(max(w for w, _ in every) * 1e3, 1),
                **{f"warm_{name}_ms_p50": _median_ms(pairs, 0) for name, pairs in warm.items()},
                "primal_infeasibility": decision.primal_infeasibility,
                "solver": decision.solver,
            }
        )
    )


def _median_ms(pairs: list[tuple[float, float]], which: int) -> float:
    return round(statistics.median(pair[which] for pair in pairs) * 1e3, 1)


if __name__ == "__main__":
    main()
