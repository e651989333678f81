"""The forty sites of the demo: names, regions, machines, pools, ceilings; all from a seed.

The first site is the wire site (a real agent process over real sockets); the others are virtual. A few sites have
stock Antminers only: their sheds take a minute, and the summary keeps them apart.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from agent.asic.registry import CAPABILITIES
from agent.backends import SiteInventory
from agent.governor.state import Policy
from gridpivot.curves import AiPool, MinerClass, gpu_pool, miner_class
from gridpivot.vocabulary import AiPriority, Mode, Stage
from sim.physics import Truth

# Region -> (sites in forty, base price USD/MWh).
REGIONS: dict[str, tuple[int, float]] = {
    "ercot": (14, 32.0),
    "gulf": (10, 28.0),
    "chaco": (9, 24.0),
    "rift": (7, 22.0),
}
_BASE = (
    ("s19pro", "luxos", "Antminer S19 Pro"),
    ("s21", "luxos", "Antminer S21"),
    ("m50", "whatsminer", "Whatsminer M50"),
    ("m60", "whatsminer", "Whatsminer M60"),
    ("s19jpro-stock", "antminer", "Antminer S19j Pro"),
)
MIXED = (0.22, 0.26, 0.22, 0.22, 0.08)
STOCK_ONLY = (0.0, 0.0, 0.0, 0.0, 1.0)
STOCK_ONLY_EVERY = 13  # every 13th site has nothing else
OVERHEAD_WORST = 0.06
EVENT_LEAD_S = 15.0  # how long before a grid event its sites begin to go down


@dataclass(frozen=True, slots=True)
class SiteSpec:
    """One site of the demo."""

    name: str
    region: str
    index: int
    devices: int
    ceiling_w: float
    stock_only: bool
    seed: int

    @property
    def protection_w(self) -> float:
        """Where the breaker trips [W]."""
        return 1.08 * self.ceiling_w


def _mode_set(family: str) -> tuple[Mode, ...]:
    able = CAPABILITIES[family]
    modes = [Mode.SLEEP, Mode.NORMAL]
    if able.low:
        modes.append(Mode.LOW)
    if able.turbo:
        modes.append(Mode.TURBO)
    return tuple(sorted(modes, key=lambda m: m.code))


def classes() -> tuple[MinerClass, ...]:
    """Five classes; family `virtual` feeds columns directly, with the times of the real families."""
    return tuple(
        miner_class(
            f"{name}",
            "virtual",
            model,
            shed_s=CAPABILITIES[family].shed_s,
            wake_s=CAPABILITIES[family].wake_s,
            modes=_mode_set(family),
        )
        for name, family, model in _BASE
    )


def pools(devices: int) -> tuple[AiPool, ...]:
    """Two pools in proportion to the site: inference (guaranteed) and training (standard)."""
    share = devices / 11_250
    return (
        gpu_pool("inference", AiPriority.GUARANTEED, max(8, round(2048 * share))),
        gpu_pool("training", AiPriority.STANDARD, max(8, round(1024 * share))),
    )


def site_specs(count: int, devices: int, seed: int, wire_miners: int = 0) -> list[SiteSpec]:
    """The sites in order; regions in proportion.

    `devices` is the mean over the fleet: what the wire site (the first, of `wire_miners`) lacks is dealt to the others.
    """
    if wire_miners and count > 1:
        devices = -(-(count * devices - wire_miners) // (count - 1))
    names: list[tuple[str, str]] = []
    quota = {region: share for region, (share, _) in REGIONS.items()}
    total = sum(quota.values())
    owed = dict.fromkeys(quota, 0.0)
    numbers = dict.fromkeys(quota, 0)
    for _ in range(count):
        for region, share in quota.items():
            owed[region] += share / total
        region = max(owed, key=lambda r: owed[r])
        owed[region] -= 1.0
        numbers[region] += 1
        names.append((f"{region}-{numbers[region]:02d}", region))
    mean_w = sum(share * c.modes[Mode.NORMAL].power_w for share, c in zip(MIXED, classes(), strict=True))
    specs = []
    for index, (name, region) in enumerate(names):
        stock_only = index % STOCK_ONLY_EVERY == STOCK_ONLY_EVERY - 1
        # All mining on and half of AI just fits: every AI step has to come out of mining.
        ceiling_w = round(devices * mean_w * 1.06, -4) if devices >= 100 else devices * mean_w * 1.06
        specs.append(SiteSpec(name, region, index, devices, ceiling_w, stock_only, seed * 1000 + index))
    return specs


def inventory_of(spec: SiteSpec) -> SiteInventory:
    """Devices of a virtual site, class by class."""
    shares = STOCK_ONLY if spec.stock_only else MIXED
    kinds = classes()
    present = [i for i, share in enumerate(shares) if share > 0]
    counts = np.array([shares[i] for i in present]) * spec.devices
    whole = np.floor(counts).astype(int)
    whole[0] += spec.devices - int(whole.sum())
    class_index = np.repeat(np.arange(len(present)), whole).astype(np.uint8)
    feeders = tuple(f"feeder-{n}" for n in range(1, 5))
    feeder_index = (np.arange(spec.devices) % len(feeders)).astype(np.uint16)
    return SiteInventory(tuple(kinds[i] for i in present), class_index, feeders, feeder_index, b"", pools(spec.devices))


def truth_of(spec: SiteSpec, speed: float) -> Truth:
    """What really happens at a site; the governor is told none of it."""
    random = np.random.default_rng(spec.seed)
    return Truth(
        seed=spec.seed,
        meter_delay_s=float(random.uniform(0.0, 5.0)),
        site_bias=float(random.uniform(0.86, 1.18)),
        overhead_ratio=float(random.uniform(0.03, 0.055)),
        overhead_lag_s=float(random.uniform(60.0, 180.0)),
        fixed_w=0.004 * spec.ceiling_w,
        time_scale=speed,
    )


def policy_of(spec: SiteSpec) -> Policy:
    """The agent's policy at a demo site: the defaults, with holds a third as long, so that a tour shows both ways."""
    return Policy(
        ceiling_w=spec.ceiling_w,
        protection_w=spec.protection_w,
        stage=Stage.FULL,
        overhead_ratio=OVERHEAD_WORST,
        ai_release_after_s=20.0,
        wake_after_s=10.0,
        min_on_s=30.0,
    )
