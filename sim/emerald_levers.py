"""Our own levers on a cluster like Emerald's: their six jobs at their recorded power, asked for 25 % less for three hours.

Fine-tuning counts as spot, pre-training as standard, inference as guaranteed. GPUs a job: its recorded power over what its
workload drew per GPU without a cap in their sweep. What boards draw under a limit, and the noise, are the truth that the
levers are not told.
"""

from __future__ import annotations

import asyncio
import csv
from dataclasses import dataclass
from pathlib import Path

from agent.ai.desk import Pull, PullState
from gridpivot.clock import Instant
from gridpivot.vocabulary import AiPriority
from sim.ai_cluster import SimCluster, SimJob, SimNode
from sim.ai_desk import VirtualDesk

FILE = "emerald_2025_aps_event_power_by_job.csv"
BEFORE = 60  # minutes that make the base
GPU_W = {"ft": 345.6, "infer": 368.4, "pt": 382.0}  # W per GPU without a cap: dvfs_sweep.csv, means by kind
PRIORITY = {"ft": AiPriority.SPOT, "pt": AiPriority.STANDARD, "infer": AiPriority.GUARANTEED}
NODE_GPUS = 8
CALM_S, EVENT_S = 120, 3 * 3600
UNIX_S = 1.746e9
SPOT_KEEPS = 0.2  # of spot's power during the event; standard gives the rest of what is asked


@dataclass(frozen=True, slots=True)
class Kept:
    """What levers promised and what the pools' meters showed, over one event."""

    promised_w: float
    delivered_w: float
    pulls: int
    short: int
    report_delay_s: float  # longest from a promise's end to its being told
    guaranteed_killed: int
    above_target_pct: float  # highest 5-min average of the flexible pools over their target, after ten minutes
    restored: bool


def recorded_w(path: Path) -> dict[str, float]:
    """Mean power of each job before the event [W]."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))[:BEFORE]
    names = [name for name in rows[0] if name not in ("timestamp", "total (W)")]
    return {name: sum(float(row[name]) for row in rows) / len(rows) for name in names}


def cluster_of(jobs_w: dict[str, float], kind: str, held_ratio: float, noise_sd: float, seed: int) -> SimCluster:
    """One pool: the jobs of a kind, each on nodes of its own."""
    nodes: list[SimNode] = []
    jobs = []
    for name, watts in jobs_w.items():
        if not name.startswith(kind):
            continue
        gpus = round(watts / GPU_W[kind] / NODE_GPUS) * NODE_GPUS
        own = [SimNode(f"{kind}{len(nodes) + n}", NODE_GPUS) for n in range(gpus // NODE_GPUS)]
        nodes += own
        jobs.append(SimJob(name, PRIORITY[kind], tuple(node.name for node in own), gpus, watts / gpus))
    clock = Instant(0.0, UNIX_S)
    return SimCluster(PRIORITY[kind], nodes, jobs, held_ratio=held_ratio, noise_sd=noise_sd, seed=seed, now=clock)


def event(
    path: Path, cut_ratio: float = 0.25, held_ratio: float = 0.975, noise_sd: float = 0.01, seed: int = 1
) -> Kept:
    """Calm, event, and back; every second in virtual time."""
    return asyncio.run(_event(recorded_w(path), cut_ratio, held_ratio, noise_sd, seed))


async def _event(jobs_w: dict[str, float], cut_ratio: float, held_ratio: float, noise_sd: float, seed: int) -> Kept:
    desks = {k: VirtualDesk(k, cluster_of(jobs_w, k, held_ratio, noise_sd, seed + n)) for n, k in enumerate(GPU_W)}
    base_w = {k: d.cluster.power_w for k, d in desks.items()}
    total_w = sum(base_w.values())
    spot_w = SPOT_KEEPS * base_w["ft"]
    targets = {"ft": spot_w, "pt": base_w["pt"] - (cut_ratio * total_w - (base_w["ft"] - spot_w)), "infer": None}
    flexible_w: list[float] = []
    for second in range(CALM_S + EVENT_S + 1800):
        now = Instant(float(second + 1), UNIX_S + second + 1)
        on = CALM_S <= second < CALM_S + EVENT_S
        for kind, desk in desks.items():
            desk.target_w = targets[kind] if on else None
        drawn = {kind: await desk.step(now) for kind, desk in desks.items()}
        if CALM_S + 600 <= second < CALM_S + EVENT_S:
            flexible_w.append(drawn["ft"] + drawn["pt"])
    pulls = [pull for desk in desks.values() for pull in desk.ended]
    wanted_w = float(targets["ft"] or 0.0) + float(targets["pt"] or 0.0)
    means = [sum(flexible_w[n : n + 300]) / 300 for n in range(0, len(flexible_w) - 300, 10)]
    guaranteed = [job for desk in desks.values() for job in desk.cluster.jobs if job.priority is AiPriority.GUARANTEED]
    return Kept(
        sum(p.promise.promised_w for p in pulls),
        sum(min(p.delivered_w, p.promise.promised_w) for p in pulls),
        len(pulls),
        sum(p.state is PullState.SHORT for p in pulls),
        max((_delay_s(p) for p in pulls), default=0.0),
        sum(not job.running for job in guaranteed),
        100.0 * max(0.0, max(means) / wanted_w - 1.0),
        all(not desk.desk.pulls and all(job.running for job in desk.cluster.jobs) for desk in desks.values()),
    )


def _delay_s(pull: Pull) -> float:
    return 0.0 if pull.ended_s is None else max(0.0, pull.ended_s - pull.due_s)
