"""The merit order: watts of constant value, sorted, filled under a ceiling. One site, one period, no solver.

Classes and pools become concave segments; a fractional knapsack over them is the exact optimum when wake-ups cost
nothing. Dispatch reads the same segments into its model, and the agent stands on this rung when its plan is gone.
Pure; about 0.05 ms for thirty segments.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from gridpivot.curves import AiPool, MinerClass, ModePoint, concave_hull
from gridpivot.value import ai_usd_per_mwh, mining_usd_per_mwh
from gridpivot.vocabulary import AiPriority, Load, Mode


@dataclass(frozen=True, slots=True)
class Segment:
    """Some watts that all earn the same.

    `width_w` is at the devices; `value_usd_per_mwh` is at the meter, overhead included, power not yet paid. `mode`
    is the mode that a class's machines reach at the end of the segment.
    """

    name: str
    load: Load
    width_w: float
    value_usd_per_mwh: float
    guaranteed: bool = False
    mode: Mode | None = None


@dataclass(frozen=True, slots=True)
class MeritOrder:
    """What each segment gets, and what the ceiling costs.

    `watts` stands in the order of `segments`, at the devices. `marginal_usd_per_mwh` is what one more MWh under the
    ceiling would earn after power, 0 where it does not bind. `over_w` is import that nothing here can shed.
    """

    segments: tuple[Segment, ...]
    watts: tuple[float, ...]
    import_w: float
    ceiling_w: float
    price_usd_per_mwh: float
    marginal_usd_per_mwh: float
    over_w: float

    @property
    def guaranteed_short_w(self) -> float:
        """Guaranteed AI power that found no room [W at the devices]."""
        return sum(s.width_w - w for s, w in zip(self.segments, self.watts, strict=True) if s.guaranteed)

    def sentences(self) -> tuple[str, ...]:
        """The result for a person: the ceiling first, then what was left out, dearest first."""
        said = []
        if self.over_w > 0:
            said.append(f"Import stands {self.over_w / 1e6:.3f} MW over the ceiling with everything shed.")
        elif self.marginal_usd_per_mwh > 0:
            said.append(
                f"The ceiling of {self.ceiling_w / 1e6:.3f} MW binds: "
                f"one more MWh would earn {self.marginal_usd_per_mwh:.2f} USD."
            )
        else:
            said.append(f"The ceiling of {self.ceiling_w / 1e6:.3f} MW does not bind.")
        if self.guaranteed_short_w > 0:
            said.append(f"Guaranteed AI lacks {self.guaranteed_short_w / 1e6:.3f} MW.")
        for index in _order(self.segments):
            segment, left_w = self.segments[index], self.segments[index].width_w - self.watts[index]
            if left_w <= 1.0 or segment.guaranteed:
                continue
            why = "no room" if segment.value_usd_per_mwh > self.price_usd_per_mwh else "power costs more"
            label = f"{segment.name} {segment.mode.value}" if segment.mode is not None else segment.name
            said.append(f"{label}: {left_w / 1e6:.3f} MW left out at {segment.value_usd_per_mwh:.2f} USD/MWh, {why}.")
        return tuple(said)


def class_hull(miner_class: MinerClass) -> tuple[tuple[Mode, ModePoint], ...]:
    """Modes worth mixing, from sleep upwards: the concave hull of (power, hashrate), rising in both."""
    asleep = miner_class.modes[Mode.SLEEP]
    modes = {(p.power_w, p.hashrate_hs): mode for mode, p in miner_class.modes.items() if p.power_w > asleep.power_w}
    rising = [(Mode.SLEEP, asleep)]
    for watts, hashes in concave_hull(((asleep.power_w, asleep.hashrate_hs), *modes))[1:]:
        if hashes > rising[-1][1].hashrate_hs:
            rising.append((modes[watts, hashes], ModePoint(watts, hashes)))
    return tuple(rising)


def class_segments(
    miner_class: MinerClass,
    machines: float,
    hashprice_usd_per_ph_day: float,
    pool_fee_ratio: float,
    overhead_ratio: float,
) -> tuple[Segment, ...]:
    """Segments of `machines` of one class, from asleep upwards, value falling [USD/MWh at the meter]."""
    segments = []
    hull = class_hull(miner_class)
    for (_, low), (mode, high) in pairwise(hull):
        joules_per_th = (high.power_w - low.power_w) / (high.hashrate_hs - low.hashrate_hs) * 1e12
        value = mining_usd_per_mwh(hashprice_usd_per_ph_day, joules_per_th, pool_fee_ratio, overhead_ratio)
        width_w = machines * (high.power_w - low.power_w)
        segments.append(Segment(miner_class.name, Load.MINING, width_w, value, mode=mode))
    return tuple(segments)


def pool_corners(pool: AiPool) -> tuple[tuple[float, float], ...]:
    """Corners (wall W, throughput ratio) between a pool's segments: from nothing at its baseline up to its top."""
    return concave_hull(((pool.baseline_w, 0.0), *(p for p in pool.curve if p[0] > pool.baseline_w)))


def pool_segments(
    pool: AiPool, income_usd_per_gpu_hour: float, demand_w: float | None, overhead_ratio: float
) -> tuple[Segment, ...]:
    """Segments of one pool above its baseline, value falling [USD/MWh at the meter].

    Income is at full throughput; below `min_w` some of the nodes idle at their baseline, which earns nothing. Always
    the same number of segments: those past `demand_w` have width 0. Unknown demand counts as all of `max_w`, since
    AI that asks for more takes it.
    """
    gpus = max(1, pool.gpu_count)
    top_w = pool.max_w if demand_w is None else min(pool.max_w, demand_w)
    segments = []
    for (low_w, low_ratio), (high_w, high_ratio) in pairwise(pool_corners(pool)):
        usd_per_gpu_hour = (high_ratio - low_ratio) * income_usd_per_gpu_hour
        kw_per_gpu = (high_w - low_w) * (1.0 + overhead_ratio) / gpus / 1e3
        value = max(0.0, ai_usd_per_mwh(usd_per_gpu_hour, kw_per_gpu))
        width_w = min(max(0.0, top_w - low_w), high_w - low_w)
        guaranteed = pool.priority is AiPriority.GUARANTEED
        segments.append(Segment(pool.name, Load.AI, width_w, value, guaranteed))
    return tuple(segments)


def merit_order(
    segments: Sequence[Segment],
    ceiling_w: float,
    fixed_w: float,
    overhead_ratio: float,
    price_usd_per_mwh: float,
) -> MeritOrder:
    """Fill segments in falling value while they earn more than power costs and the ceiling has room.

    Guaranteed AI goes first and regardless of price. `fixed_w` is import that stays whatever is chosen (baselines,
    sleeping and silent machines with their overhead, the rest of the site). Segments of one curve must stand in
    falling value, as the makers above leave them.
    """
    watts = [0.0] * len(segments)
    room_w = max(0.0, ceiling_w - fixed_w) / (1.0 + overhead_ratio)
    marginal = 0.0
    for index in _order(segments):
        segment = segments[index]
        if not segment.guaranteed and segment.value_usd_per_mwh <= price_usd_per_mwh:
            break
        watts[index] = min(segment.width_w, room_w)
        room_w -= watts[index]
        if watts[index] < segment.width_w:
            marginal = segment.value_usd_per_mwh - price_usd_per_mwh
            break
    import_w = fixed_w + (1.0 + overhead_ratio) * sum(watts)
    over_w = max(0.0, fixed_w - ceiling_w)
    return MeritOrder(tuple(segments), tuple(watts), import_w, ceiling_w, price_usd_per_mwh, max(0.0, marginal), over_w)


def machines_by_mode(miner_class: MinerClass, machines: float, order: MeritOrder) -> dict[Mode, float]:
    """How many of `machines` stand in each mode when the class's segments are filled as in `order`."""
    hull = class_hull(miner_class)
    filled = {
        s.mode: w for s, w in zip(order.segments, order.watts, strict=True) if s.mode and s.name == miner_class.name
    }
    counts = dict.fromkeys((mode for mode, _ in hull), 0.0)
    reached, at_least = Mode.SLEEP, machines
    for (_, low), (mode, high) in pairwise(hull):
        here = min(at_least, filled.get(mode, 0.0) / (high.power_w - low.power_w))
        counts[reached] += at_least - here
        reached, at_least = mode, here
    counts[reached] += at_least
    return counts


def _order(segments: Sequence[Segment]) -> list[int]:
    """Guaranteed first, then by falling value; equal values keep their place, so a curve stays in its order."""
    return sorted(range(len(segments)), key=lambda i: (not segments[i].guaranteed, -segments[i].value_usd_per_mwh))
