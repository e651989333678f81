"""Emerald's recorded events played again at a site with miners: their cluster does what it did, miners fill the rest.

Data: ai-emerald/emerald-ai-demo-may-2025, one figure a minute for a cluster of 256 GPUs. Between minutes power runs straight;
on top lies second-scale noise of our own (stated in `Noise`), since a minute's mean hides what a governor has to live with.
The site's target is the same share of site and cluster: 25 % less of AI and mining together for a 25 % event.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from agent.backends import SiteInventory
from agent.governor.decide import decide
from agent.governor.meter_watch import MeterWatch
from agent.governor.state import GovernorState, Orders, Policy, Sensed, instant
from gridpivot.columns import DeviceTable
from gridpivot.curves import MinerClass, gpu_pool, miner_class
from gridpivot.vocabulary import AiPriority, Mode, Rung
from sim.physics import Truth
from sim.virtual import VirtualSite

F64 = npt.NDArray[np.float64]
BEFORE = 60  # minutes before the event that make the base
STEP_S = 0.5
FAST_RESERVE_RATIO = 0.02  # DESIGN: at most 2 % for 5 s at an AI step inside the reserve
LEAD_S = 15.0  # a site goes down before an event begins (governor.event_lead_s)
WINDOW = 300  # seconds of the averages that are judged
GPU_MAX_W, GPU_MIN_W, GPU_IDLE_W = 400.0, 100.0, 60.0


@dataclass(frozen=True, slots=True)
class Window:
    """Part of an event [minutes of the trace] and how much less is wanted."""

    from_min: int
    to_min: int
    cut_ratio: float


@dataclass(frozen=True, slots=True)
class Event:
    """A recorded event: its file, the event's windows as the utility asked for them."""

    name: str
    file: str
    windows: tuple[Window, ...]


EVENTS: tuple[Event, ...] = (
    Event("srp", "emerald_2025_srp_event_power.csv", (Window(110, 290, 0.25),)),
    Event("aps", "emerald_2025_aps_event_power_by_job.csv", (Window(110, 290, 0.25),)),
    Event("caiso", "emerald_2025_caiso_event_power.csv", (Window(75, 240, 0.15), Window(240, 360, 0.30))),
)


@dataclass(frozen=True, slots=True)
class Noise:
    """Second-scale noise on AI power: a slow part (first order, sd and time constant) and short peaks."""

    sd_ratio: float = 0.01
    tau_s: float = 5.0
    peak_ratio: float = 0.03
    peak_every_s: float = 120.0
    peak_s: float = 3.0


def trace_w(path: Path) -> F64:
    """Total power by minute [W]; raises ValueError for a file that is not one of theirs."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    try:
        watts = np.array([float(row[-1]) for row in rows[1:]])
    except (ValueError, IndexError) as error:
        raise ValueError(f"{path}: not a table of minutes with a total in its last column: {error}") from error
    if not len(watts) or not np.isfinite(watts).all() or (watts <= 0.0).any():
        raise ValueError(f"{path}: powers that are missing or not positive")
    return watts


def by_second(minutes_w: F64, noise: Noise, seed: int) -> F64:
    """Power by second [W]: straight between minutes, noise on top."""
    count = 60 * (len(minutes_w) - 1)
    at = np.arange(count) / 60.0
    straight = np.interp(at, np.arange(len(minutes_w)), minutes_w)
    random = np.random.default_rng(seed)
    keep = float(np.exp(-1.0 / noise.tau_s))
    slow, value = np.empty(count), 0.0
    for n, draw in enumerate(random.normal(0.0, noise.sd_ratio * (1.0 - keep**2) ** 0.5, count)):
        value = keep * value + draw
        slow[n] = value
    peaks = np.zeros(count)
    for start in np.flatnonzero(random.random(count) < 1.0 / noise.peak_every_s):
        peaks[start : start + round(noise.peak_s)] = noise.peak_ratio
    result: F64 = straight * (1.0 + slow + peaks)
    return result


def miner_classes() -> tuple[MinerClass, ...]:
    """Two families that sleep within seconds and one that takes a minute."""
    short = (Mode.SLEEP, Mode.NORMAL)
    return (
        miner_class("s21-luxos", "luxos", "Antminer S21", shed_s=5.0, wake_s=20.0),
        miner_class("m60-whatsminer", "whatsminer", "Whatsminer M60", shed_s=5.0, wake_s=60.0, modes=short),
        miner_class("s19jpro-stock", "antminer", "Antminer S19j Pro", shed_s=60.0, wake_s=90.0, modes=short),
    )


@dataclass(frozen=True, slots=True)
class Played:
    """One event played. Powers by second [W]; targets NaN outside the event."""

    name: str
    power_w: F64
    ai_w: F64
    target_w: F64
    contract_w: float
    protection_reached: int

    def late_s(self) -> int:
        """Seconds inside the event above its target by more than 2 %."""
        return int((self.power_w > 1.02 * np.nan_to_num(self.target_w, nan=np.inf)).sum())

    def averages(self) -> tuple[F64, F64]:
        """Trailing 5-min averages of power over target, and of AI alone over its own share, inside each window."""
        over, alone = [], []
        ai_base_w = float(self.ai_w[: 60 * BEFORE].mean())
        edges = np.flatnonzero(np.diff(np.nan_to_num(self.target_w, nan=-1.0)) != 0.0) + 1
        for part in np.split(np.arange(len(self.target_w)), edges):
            if np.isnan(self.target_w[part[0]]) or len(part) < WINDOW:
                continue
            share = self.target_w[part[0]] / self.contract_w
            over.append(_trailing(self.power_w[part] / self.target_w[part]))
            alone.append(_trailing(self.ai_w[part] / (share * ai_base_w)))
        return np.concatenate(over), np.concatenate(alone)


def _trailing(ratio: F64) -> F64:
    total = np.concatenate(([0.0], np.cumsum(ratio)))
    mean: F64 = (total[WINDOW:] - total[:-WINDOW]) / WINDOW
    return mean - 1.0


def play(
    event: Event, directory: Path, mining_ratio: float, noise: Noise, seed: int = 1, scale: float = 16.0
) -> Played:
    """The product's governor through one event, in virtual time. `mining_ratio`: mining over AI, at full power of both."""
    ai_w = scale * by_second(trace_w(directory / event.file), noise, seed)
    base_w = float(ai_w[: 60 * BEFORE].mean())
    site = _Site(base_w, float(ai_w.max()), mining_ratio, seed)
    target_w = np.full(len(ai_w), np.nan)
    for window in event.windows:
        target_w[60 * window.from_min : 60 * window.to_min] = (1.0 - window.cut_ratio) * site.contract_w
    power_w = np.empty(len(ai_w))
    seconds: Sequence[float] = ai_w.tolist()
    for second, watts in enumerate(seconds):
        ahead = min(len(target_w) - 1, second + round(LEAD_S))
        ceiling_w = np.nanmin([site.contract_w, target_w[second], target_w[ahead]])
        power_w[second] = site.second(float(second), watts, float(ceiling_w))
    return Played(event.name, power_w, site.drawn_w(len(ai_w)), target_w, site.contract_w, site.tripped)


class _Site:
    """A virtual site whose AI draws what the trace says."""

    def __init__(self, base_w: float, most_w: float, mining_ratio: float, seed: int) -> None:
        classes = miner_classes()
        each_w = sum(c.modes[Mode.NORMAL].power_w for c in classes) / len(classes)
        devices = round(mining_ratio * base_w / each_w)
        gpus = int(1.1 * most_w / GPU_MAX_W)
        pool = gpu_pool(
            "cluster", AiPriority.GUARANTEED, gpus,
            gpu_max_w=GPU_MAX_W, gpu_min_w=GPU_MIN_W, gpu_idle_w=GPU_IDLE_W, host_w_per_gpu=0.0,
        )  # fmt: skip
        index = (np.arange(devices) % len(classes)).astype(np.uint8)
        inventory = SiteInventory(classes, index, ("f1",), np.zeros(devices, np.uint16), b"", (pool,))
        truth = Truth(seed, 2.0, 1.03, 0.04, 100.0, 0.002 * base_w, silent_ratio=0.002)
        self.world = VirtualSite(inventory, truth, 0.0)
        ai = self.world.pools[0]
        ai.demand_w = ai.power_w = base_w
        ai.limit_w = 1.03 * base_w
        self.world.settle()
        self.contract_w = round(self.world.true_power_w * 1.01)
        self.policy = Policy(
            ceiling_w=self.contract_w,
            protection_w=1.08 * self.contract_w,
            fast_reserve_ratio=FAST_RESERVE_RATIO,
            ai_release_after_s=20.0,
            wake_after_s=10.0,
        )
        self.state = GovernorState(inventory)
        self.watch = MeterWatch(self.policy.meter_fresh_s, self.policy.meter_dead_s, 0.02 * self.contract_w)
        self.table = DeviceTable(devices)
        self.polled_at_s = np.full(devices, np.nan)
        # All mining is worth its power: only the ceiling holds it back.
        self.wanted = np.array([[0.0, 0.0, float((index == c).sum()), 0.0] for c in range(len(classes))])
        self.tripped = 0
        self._drawn: list[float] = []

    def second(self, at_s: float, ai_w: float, ceiling_w: float) -> float:
        """One second: physics in two steps, one decision; returns the mean true power [W]."""
        self.world.pools[0].demand_w = ai_w
        steps = round(1.0 / STEP_S)
        power_w = sum(self.world.advance(at_s + (n + 1) * STEP_S) for n in range(steps)) / steps
        self.tripped += power_w >= self.policy.protection_w
        self._drawn.append(self.world.true_ai_w)
        now = instant(at_s + 1.0)
        self.world.refresh(self.table, self.polled_at_s, now)
        sensed = Sensed(self.table, self.polled_at_s, self.world.newest(), self.world.read(now))
        orders = Orders(ceiling_w, Rung.CLIPPED_PLAN, self.wanted, [None])
        actions = decide(self.state, self.watch, sensed, orders, self.policy, now.monotonic_s)
        for command in actions.modes:
            self.world.command(command.rows, command.mode, now)
        for limit in actions.limits:
            self.world.set_limit(limit.pool, limit.limit_w, now)
        return power_w

    def drawn_w(self, count: int) -> F64:
        """True AI power by second [W]."""
        return np.array(self._drawn[:count])
