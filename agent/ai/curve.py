"""Throughput of a pool against its power, learned on line, with its uncertainty. Pure.

Ratios of what the same work did and drew without a cap: the reference is forgotten when the set of jobs changes, since
other work has other figures. A curve begins from published sweeps and never leaves the bounds of physics that any GPU
work keeps: between proportional to power and not slowed at all. Nothing is tried out for the sake of learning.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise

# GPU power over its uncapped power -> throughput kept, and its spread between workloads. Means of the eight LLM
# workloads in Emerald's sweep (ai-emerald/emerald-ai-demo-may-2025, data/dvfs_sweep.csv, 400 W GPUs); spreads widened to
# reach the means of Zeus's A40 and V100 trainings (ml-energy/zeus, NSDI'23 traces: 0.64 -> 0.56, 0.65 -> 0.78).
PRIOR: tuple[tuple[float, float, float], ...] = (
    (0.27, 0.21, 0.04),
    (0.40, 0.47, 0.10),
    (0.53, 0.73, 0.08),
    (0.66, 0.84, 0.10),
    (0.79, 0.91, 0.06),
    (0.90, 0.96, 0.03),
    (1.00, 1.00, 0.005),
)
# Draw over limit of a GPU that its limit holds: 0.95-1.03 in Emerald's sweep at 100-350 of 400 W; an A40 drew up to
# 1.21 of a 100 W limit in Zeus's (its lowest).
HELD_MEAN, HELD_SD = 0.97, 0.04
NOISE_SD = 0.02  # of one throughput sample: jobs log per step, and steps differ
FORGET_S = 7 * 86_400.0  # what was seen fades towards the prior with this time constant
SETTLED_S = 60.0  # a change of limit or of work must be so old before throughput is that of the power beside it
FEWEST = 5  # uncapped samples before they are a reference


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """One point: power and throughput relative to uncapped, and the standard deviation of the latter."""

    power_ratio: float
    throughput_ratio: float
    sd: float


@dataclass(slots=True)
class _Node:
    mean: float
    variance: float
    prior_mean: float
    prior_variance: float


@dataclass(frozen=True, slots=True)
class Sample:
    """One look at a pool's work. `work` names the set of jobs; throughput is in any unit, the same for the same work."""

    at_s: float
    work: str
    gpu_power_w: float  # of the boards alone
    throughput: float
    capped: bool  # a limit holds at least one GPU
    changed_at_s: float  # last change of limits or of work


@dataclass(slots=True)
class LearnedCurve:
    """One pool's curve."""

    nodes: list[_Node] = field(default_factory=lambda: [_Node(m, s * s, m, s * s) for _, m, s in PRIOR])
    samples: int = 0
    refused: int = 0
    _work: str = ""
    _seen: list[tuple[float, float]] = field(default_factory=list)  # uncapped (power, throughput) of this work
    _at_s: float | None = None

    def learn(self, sample: Sample) -> bool:
        """Take one sample; False when it teaches nothing: unsettled, without a reference, or nonsense."""
        if sample.work != self._work:
            self._work, self._seen = sample.work, []
        good = math.isfinite(sample.throughput) and math.isfinite(sample.gpu_power_w)
        if not good or sample.throughput <= 0.0 or sample.gpu_power_w <= 0.0 or not sample.work:
            self.refused += 1
            return False
        if sample.at_s - sample.changed_at_s < SETTLED_S:
            return False
        if not sample.capped:
            self._seen = [*self._seen[-59:], (sample.gpu_power_w, sample.throughput)]
            return False
        reference = self.reference()
        if reference is None:
            return False
        power_ratio, ratio = sample.gpu_power_w / reference[0], sample.throughput / reference[1]
        if not PRIOR[0][0] <= power_ratio <= 1.05 or ratio > 1.2:
            self.refused += 1  # not the same work after all, or another unit
            return False
        self._fade(sample.at_s)
        self._update(min(1.0, power_ratio), min(1.0, max(power_ratio * 0.5, ratio)))
        self.samples += 1
        return True

    def reference(self) -> tuple[float, float] | None:
        """Median power [W] and throughput of the present work without a cap; None until seen often enough."""
        if len(self._seen) < FEWEST:
            return None
        powers, throughputs = sorted(p for p, _ in self._seen), sorted(t for _, t in self._seen)
        return powers[len(powers) // 2], throughputs[len(throughputs) // 2]

    def _fade(self, now_s: float) -> None:
        if self._at_s is not None:
            keep = math.exp(-max(0.0, now_s - self._at_s) / FORGET_S)
            for node in self.nodes:
                node.mean = node.prior_mean + keep * (node.mean - node.prior_mean)
                node.variance = node.prior_variance + keep * (node.variance - node.prior_variance)
        self._at_s = now_s

    def _update(self, power_ratio: float, ratio: float) -> None:
        """Kalman step on the two nodes beside the sample, which are taken to be independent."""
        right = next(k for k, (p, _, _) in enumerate(PRIOR) if p >= power_ratio)
        left = max(0, right - 1)
        span = PRIOR[right][0] - PRIOR[left][0]
        share = 0.0 if span == 0.0 else (power_ratio - PRIOR[left][0]) / span
        weights = {left: 1.0 - share, right: share} if left != right else {right: 1.0}
        expected = sum(w * self.nodes[k].mean for k, w in weights.items())
        total = sum(w * w * self.nodes[k].variance for k, w in weights.items()) + NOISE_SD**2
        for k, w in weights.items():
            node = self.nodes[k]
            gain = w * node.variance / total
            node.mean += gain * (ratio - expected)
            node.variance *= max(0.02, 1.0 - gain * w)
            node.mean = min(1.0, max(PRIOR[k][0] * 0.7, node.mean))

    def points(self) -> tuple[CurvePoint, ...]:
        """The curve, rising; not concave at its foot, where clocks no longer fall with power. Dispatch takes its hull."""
        rising = list(accumulate((node.mean for node in self.nodes), max))
        return tuple(
            CurvePoint(p, mean / rising[-1], math.sqrt(node.variance))
            for (p, _, _), mean, node in zip(PRIOR, rising, self.nodes, strict=True)
        )

    def throughput_at(self, power_ratio: float) -> float:
        """Throughput kept at this share of the uncapped GPU power."""
        return interpolated([(0.0, 0.0), *((p.power_ratio, p.throughput_ratio) for p in self.points())], power_ratio)

    def wall_corners(self, host_w: float, min_w: float, max_w: float) -> tuple[tuple[float, float], ...]:
        """(wall W of the pool, throughput ratio), ascending, from the lowest limits to the highest.

        `host_w` is what the hosts draw beside their boards.
        """
        span_w = max_w - host_w
        powers = sorted({min_w, *(host_w + p * span_w for p, _, _ in PRIOR if host_w + p * span_w > min_w)})
        return tuple((w, self.throughput_at((w - host_w) / span_w)) for w in powers if w <= max_w)


@dataclass(slots=True)
class HeldFactor:
    """What GPUs draw over their limit while it holds them: learned, since some boards draw more than they are allowed."""

    mean: float = HELD_MEAN
    variance: float = HELD_SD**2
    samples: int = 0

    def learn(self, draw_w: float, limit_w: float) -> None:
        """One look at boards that are held by their limit."""
        if not (limit_w > 0.0 and 0.5 <= draw_w / limit_w <= 1.5):
            return
        gain = self.variance / (self.variance + 0.03**2)
        self.mean += gain * (draw_w / limit_w - self.mean)
        self.variance = max(0.01**2, self.variance * (1.0 - gain) + 1e-6)
        self.samples += 1

    def remains_w(self, draw_w: float, limit_w: float) -> float:
        """What boards that draw `draw_w` will draw under a limit."""
        return min(draw_w, self.mean * limit_w)


def interpolated(points: Sequence[tuple[float, float]], x: float) -> float:
    """Between (x, y) points that ascend in x; flat beyond their ends."""
    if x <= points[0][0]:
        return points[0][1]
    for (x0, y0), (x1, y1) in pairwise(points):
        if x <= x1:
            return y0 + (y1 - y0) * (x - x0) / (x1 - x0)
    return points[-1][1]
