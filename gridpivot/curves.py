"""Power curves of miner classes and AI pools, and their concave segments.

A class is a kind of machine under one firmware family; its modes are points (power, hashrate). A pool is a group of
GPUs; its curve is throughput against wall power. Segments are what dispatch and the merit order trade: watts with a
constant value per watt, in falling order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from gridpivot.v1 import telemetry_pb2 as pb
from gridpivot.vocabulary import COMMANDABLE_MODES, AiPriority, Mode

# Until measured: 60 % of power keeps 72 % of hashrate, 125 % gives 117 % (vendor tuning tables, unmeasured here).
LOW_POWER_RATIO, LOW_HASH_RATIO = 0.60, 0.72
TURBO_POWER_RATIO, TURBO_HASH_RATIO = 1.25, 1.17
SLEEP_POWER_W = 30.0  # control board and fans at rest; about 25 W (LuxOS) to 30 W by vendor claims

# Model -> (TH/s, W), nameplate.
NAMEPLATE: Mapping[str, tuple[float, float]] = {
    "Antminer S19": (95.0, 3250.0),
    "Antminer S19 Pro": (110.0, 3250.0),
    "Antminer S19j Pro": (104.0, 3068.0),
    "Antminer S19 XP": (140.0, 3010.0),
    "Antminer S21": (200.0, 3500.0),
    "Antminer S21 Pro": (234.0, 3510.0),
    "Whatsminer M50": (118.0, 3363.0),
    "Whatsminer M60": (172.0, 3422.0),
}


@dataclass(frozen=True, slots=True)
class ModePoint:
    """One machine in one mode: wall power [W] and hashrate [H/s]."""

    power_w: float
    hashrate_hs: float


@dataclass(frozen=True, slots=True)
class MinerClass:
    """A kind of machine. `modes` always holds sleep and normal; shed and wake times [s] are the family's, at worst."""

    name: str
    family: str
    model: str
    modes: Mapping[Mode, ModePoint]
    shed_s: float
    wake_s: float

    @property
    def efficiency_j_per_th(self) -> float:
        """Joules per terahash in normal mode."""
        normal = self.modes[Mode.NORMAL]
        return normal.power_w / (normal.hashrate_hs / 1e12)

    @property
    def boot_w(self) -> float:
        """Power charged while waking: the highest mode, at least 8 % over normal (boot overshoot, assumed)."""
        return max(max(p.power_w for p in self.modes.values()), 1.08 * self.modes[Mode.NORMAL].power_w)

    def power_by_code(self) -> tuple[float, ...]:
        """Power [W] by Mode code; unknown and missing modes count as normal."""
        normal = self.modes[Mode.NORMAL].power_w
        return tuple(self.modes[m].power_w if m in self.modes else normal for m in Mode if isinstance(m, Mode))

    def to_proto(self) -> pb.MinerClass:
        """Wire form."""
        return pb.MinerClass(
            name=self.name,
            family=self.family,
            model=self.model,
            shed_s=self.shed_s,
            wake_s=self.wake_s,
            modes=[
                pb.ModePoint(mode=m.value, power_w=p.power_w, hashrate_hs=p.hashrate_hs) for m, p in self.modes.items()
            ],
        )

    @classmethod
    def from_proto(cls, wire: pb.MinerClass) -> MinerClass:
        """From the wire; raises ValueError for an unknown mode, KeyError-free otherwise."""
        modes = {Mode(point.mode): ModePoint(point.power_w, point.hashrate_hs) for point in wire.modes}
        if Mode.SLEEP not in modes or Mode.NORMAL not in modes:
            raise ValueError(f"class {wire.name}: modes sleep and normal are both needed")
        return cls(wire.name, wire.family, wire.model, modes, wire.shed_s, wire.wake_s)


def miner_class(
    name: str,
    family: str,
    model: str,
    *,
    shed_s: float,
    wake_s: float,
    modes: Sequence[Mode] = COMMANDABLE_MODES,
    nameplate: tuple[float, float] | None = None,
) -> MinerClass:
    """A class from its nameplate (TH/s, W), with the assumed ratios for low and turbo; raises KeyError for an unknown model."""
    terahash, watts = nameplate if nameplate is not None else NAMEPLATE[model]
    hashrate_hs = terahash * 1e12
    every = {
        Mode.SLEEP: ModePoint(SLEEP_POWER_W, 0.0),
        Mode.LOW: ModePoint(watts * LOW_POWER_RATIO, hashrate_hs * LOW_HASH_RATIO),
        Mode.NORMAL: ModePoint(watts, hashrate_hs),
        Mode.TURBO: ModePoint(watts * TURBO_POWER_RATIO, hashrate_hs * TURBO_HASH_RATIO),
    }
    return MinerClass(name, family, model, {m: every[m] for m in modes}, shed_s, wake_s)


@dataclass(frozen=True, slots=True)
class PoolNode:
    """One host of a pool, with an agent of its own. Wall watts at its lowest and its highest limits."""

    name: str
    gpu_count: int
    min_w: float
    max_w: float


@dataclass(frozen=True, slots=True)
class AiPool:
    """GPUs under one workload manager. Powers are wall watts of the whole pool; the curve ascends in power."""

    name: str
    priority: AiPriority
    gpu_count: int
    baseline_w: float
    min_w: float
    max_w: float
    curve: tuple[tuple[float, float], ...]
    nodes: tuple[PoolNode, ...] = ()

    def to_proto(self) -> pb.AiPool:
        """Wire form."""
        return pb.AiPool(
            name=self.name,
            priority=self.priority.value,
            gpu_count=self.gpu_count,
            baseline_w=self.baseline_w,
            min_w=self.min_w,
            max_w=self.max_w,
            curve=[pb.PoolPoint(power_w=w, throughput_ratio=r) for w, r in self.curve],
            nodes=[pb.PoolNode(name=n.name, gpu_count=n.gpu_count, min_w=n.min_w, max_w=n.max_w) for n in self.nodes],
        )

    @classmethod
    def from_proto(cls, wire: pb.AiPool) -> AiPool:
        """From the wire; raises ValueError for an unknown priority, or powers and a curve that do not ascend."""
        pool = cls(
            wire.name,
            AiPriority(wire.priority),
            wire.gpu_count,
            wire.baseline_w,
            wire.min_w,
            wire.max_w,
            tuple((p.power_w, p.throughput_ratio) for p in wire.curve),
            tuple(PoolNode(n.name, n.gpu_count, n.min_w, n.max_w) for n in wire.nodes),
        )
        if not 0.0 <= pool.baseline_w <= pool.min_w <= pool.max_w < float("inf"):
            raise ValueError(f"pool {pool.name}: baseline, minimum and maximum power do not ascend")
        if any(not (a[0] < b[0] and a[1] <= b[1]) for a, b in pairwise(pool.curve)):
            raise ValueError(f"pool {pool.name}: its curve does not ascend")
        if any(not 0.0 <= n.min_w <= n.max_w < float("inf") for n in pool.nodes):
            raise ValueError(f"pool {pool.name}: powers of a node do not ascend")
        return pool


# Throughput kept at a share of full power, between Emerald's fine-tuning and pre-training sweeps
# (50 % cap -> 0.62-0.81, 75 % -> 0.86-0.94, 400 W GPUs).
DEFAULT_THROUGHPUT: tuple[tuple[float, float], ...] = ((0.5, 0.70), (0.75, 0.90), (1.0, 1.0))


def gpu_pool(
    name: str,
    priority: AiPriority,
    gpu_count: int,
    *,
    gpu_max_w: float = 700.0,
    gpu_min_w: float = 200.0,
    gpu_idle_w: float = 75.0,
    host_w_per_gpu: float = 400.0,
) -> AiPool:
    """A pool from per-GPU figures; the host share (CPUs, NICs, fans: 30-45 % of a server) is a fixed baseline."""
    baseline_w = gpu_count * (host_w_per_gpu + gpu_idle_w)
    min_w = gpu_count * (host_w_per_gpu + gpu_min_w)
    max_w = gpu_count * (host_w_per_gpu + gpu_max_w)
    inside = tuple((max_w * share, ratio) for share, ratio in DEFAULT_THROUGHPUT if min_w < max_w * share)
    if not inside:  # a board without a range
        return AiPool(name, priority, gpu_count, baseline_w, min_w, max_w, ((max_w, 1.0),))
    floor = (min_w, inside[0][1] * min_w / inside[0][0])
    return AiPool(name, priority, gpu_count, baseline_w, min_w, max_w, (floor, *inside))


def concave_hull(points: Sequence[tuple[float, float]]) -> tuple[tuple[float, float], ...]:
    """Upper concave hull of (x, y) points, ascending in x; points under the hull are dropped."""
    hull: list[tuple[float, float]] = []
    for x, y in sorted(set(points)):
        if hull and hull[-1][0] == x:
            if y <= hull[-1][1]:
                continue
            hull.pop()
        while len(hull) >= 2:
            (x0, y0), (x1, y1) = hull[-2], hull[-1]
            if (y1 - y0) * (x - x0) > (y - y0) * (x1 - x0):
                break
            hull.pop()
        hull.append((x, y))
    return tuple(hull)
