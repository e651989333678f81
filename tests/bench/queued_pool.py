"""A pool of GPUs under a scheduler: jobs of recorded power and length, arriving as recorded requests do.

What is recorded: mean power and time per epoch of each training (Zeus, V100), and when requests came (Azure, one hour,
stretched to a day). What is ours, since no public trace of a queue lies here: GPUs per job, epochs per job, the time
limits that users ask for, and first-fit scheduling.
"""

from __future__ import annotations

import csv
import heapq
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np

GPUS = 256
IDLE_W, MAX_W, HOST_W = 40.0, 250.0, 150.0  # a V100's, and a host's share of ours, by GPU
STEP_S = 300.0
DAY_S = 86_400.0


@dataclass(frozen=True, slots=True)
class Job:
    """One job; `power_w` is that of one GPU."""

    at_s: float
    gpus: int
    runs_s: float
    limit_s: float
    power_w: float


@dataclass(frozen=True, slots=True)
class Look:
    """The pool at one moment, as a roll-up would tell it [W at the wall, GPU-h up to the time limits]."""

    at_s: float
    demand_w: float
    busy_gpus: int
    running_gpu_h: float
    pending_gpu_h: float


def trainings(path: Path) -> list[tuple[float, float]]:
    """Recorded (time per epoch [s], mean power [W]) at the full limit."""
    with path.open() as file:
        rows = list(csv.DictReader(file))
    most = max(float(row["power_limit"]) for row in rows)
    return [(float(r["time_per_epoch"]), float(r["average_power"])) for r in rows if float(r["power_limit"]) == most]


def arrivals_s(path: Path) -> np.ndarray:
    """When requests came [s of a day], an hour stretched to a day."""
    with path.open() as file:
        stamps = [datetime.fromisoformat(row["TIMESTAMP"][:26]).timestamp() for row in csv.DictReader(file)]
    times = np.array(stamps) - stamps[0]
    return times / times[-1] * DAY_S


def jobs_of(
    records: list[tuple[float, float]], times: np.ndarray, days: int, load: float, limits: str, seed: int
) -> list[Job]:
    """Jobs of so many days, offering `load` of the GPUs' time; another sample of the requests every day."""
    random = np.random.default_rng(seed)
    jobs: list[Job] = []
    for day in range(days):
        order, work = random.permutation(len(times)), 0.0
        for index in order:
            if work >= load * GPUS * DAY_S:
                break
            epoch_s, power_w = records[int(random.integers(len(records)))]
            runs_s = float(np.clip(epoch_s * np.exp(random.uniform(0.0, np.log(100.0))), 600.0, DAY_S))
            gpus = int(random.choice([1, 2, 4, 8, 16, 32], p=[0.2, 0.15, 0.2, 0.25, 0.15, 0.05]))
            asked = {"exact": 1.0, "double": 2.0, "loose": float(np.exp(random.uniform(0.0, np.log(8.0))))}[limits]
            jobs.append(Job(day * DAY_S + float(times[index]), gpus, runs_s, runs_s * asked, power_w))
            work += gpus * runs_s
    return sorted(jobs, key=lambda job: job.at_s)


def replay(jobs: list[Job], days: int) -> list[Look]:
    """The pool every five minutes, first fit in order of arrival."""
    looks: list[Look] = []
    running: list[tuple[float, int, float, Job]] = []  # ends, number, began
    waiting: list[Job] = []
    free, now_s, coming, count = GPUS, 0.0, 0, 0
    for at_s in np.arange(0.0, days * DAY_S, STEP_S).tolist():
        while True:
            ends_s = running[0][0] if running else np.inf
            comes_s = jobs[coming].at_s if coming < len(jobs) else np.inf
            if min(ends_s, comes_s) > at_s:
                break
            now_s = min(ends_s, comes_s)
            if ends_s <= comes_s:
                free += heapq.heappop(running)[3].gpus
            else:
                waiting.append(jobs[coming])
                coming += 1
            for job in list(waiting):
                if job.gpus <= free:
                    waiting.remove(job)
                    free, count = free - job.gpus, count + 1
                    heapq.heappush(running, (now_s + job.runs_s, count, now_s, job))
                if free == 0:
                    break
        drawn_w = sum(job.gpus * max(0.0, job.power_w - IDLE_W) for *_, job in running)
        left = sum(job.gpus * max(0.0, began_s + job.limit_s - at_s) for _, _, began_s, job in running)
        waits = sum(job.gpus * job.limit_s for job in waiting)
        looks.append(Look(at_s, GPUS * (HOST_W + IDLE_W) + drawn_w, GPUS - free, left / 3600.0, waits / 3600.0))
    return looks
