"""Mining in the dispatch model: machines by mode, wake-ups, and what containers and PDUs let a class draw.

Units: thousand machines, MW, hours of data time, USD. Per class and period there are machines awake (in the class's
base mode), machines of those in low and in turbo instead, and wake-ups.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from controller.dispatch.arrays import Draft, Floats, Ints, Numbers
from controller.dispatch.inputs import ClassState, FleetState, SiteState
from controller.dispatch.parameters import Parameters
from gridpivot.curves import MinerClass, ModePoint
from gridpivot.segments import class_hull
from gridpivot.vocabulary import Mode

NOWHERE = ModePoint(0.0, 0.0)


@dataclass(frozen=True, slots=True)
class Shapes:
    """A class's hull as the model sees it: the base mode that machines wake into, and what low and turbo add to it."""

    sleep_w: float
    base: Mode
    base_w: float
    base_hs: float
    low: tuple[float, float] | None  # (W, H/s) of a machine in low less the same machine in base mode
    turbo: tuple[float, float] | None

    @classmethod
    def of(cls, miner_class: MinerClass) -> Shapes:
        """From the class's concave hull; a class that hashes in no mode wakes into nothing."""
        hull = dict(class_hull(miner_class))
        asleep = hull.pop(Mode.SLEEP)
        base = Mode.NORMAL if Mode.NORMAL in hull else next(iter(hull), Mode.NORMAL)
        point = hull.get(base, NOWHERE if hull else asleep)

        def less_base(mode: Mode) -> tuple[float, float] | None:
            if mode is base or mode not in hull:
                return None
            return hull[mode].power_w - point.power_w, hull[mode].hashrate_hs - point.hashrate_hs

        return cls(asleep.power_w, base, point.power_w, point.hashrate_hs, less_base(Mode.LOW), less_base(Mode.TURBO))

    @property
    def steps_w(self) -> tuple[float, float, float]:
        """Watts that a machine awake, in low, in turbo adds to the same machine asleep, in base, in base mode."""
        return self.base_w - self.sleep_w, self.low[0] if self.low else 0.0, self.turbo[0] if self.turbo else 0.0

    @property
    def steps_hs(self) -> tuple[float, float, float]:
        """The same for the hashrate [H/s]."""
        return self.base_hs, self.low[1] if self.low else 0.0, self.turbo[1] if self.turbo else 0.0


def commanded_awake(state: ClassState) -> tuple[float, float, float]:
    """Machines as last commanded: awake, of those low, of those turbo; never more than are available."""
    _, low, normal, turbo = state.commanded
    awake = low + normal + turbo
    share = min(1.0, state.available / awake) if awake > 0 else 0.0
    return awake * share, low * share, turbo * share


@dataclass(frozen=True, slots=True, eq=False)
class Mining:
    """Where mining stands in the model. Arrays are (class, period) unless said otherwise; classes in site order."""

    shapes: tuple[Shapes, ...]
    site: Ints  # (class,)
    watts: Floats  # (class, 3): steps_w
    hashes: Floats  # (class, 3): steps_hs
    awake: Ints
    low: Ints
    turbo: Ints
    wake: Ints
    resumed: Ints  # (class,): machines already on their way up that stay so
    move_up: Ints  # (class, 3): awake, low, turbo against the commanded state
    move_down: Ints
    mode_row: Ints
    wake_row: Ints
    move_row: Ints  # (class, 3)
    capped: Ints  # classes with an achievable maximum
    cap_row: Ints  # (capped class, period)

    @property
    def steps(self) -> tuple[Ints, Ints, Ints]:
        """The columns whose watts and hashes stand in `watts` and `hashes`."""
        return self.awake, self.low, self.turbo


def lay_out_mining(draft: Draft, fleet: FleetState, periods: int) -> Mining:
    """Columns, rows and coefficients of all classes."""
    classes = [(i, c) for i, s in enumerate(fleet.sites) for c in s.classes]
    shapes = tuple(Shapes.of(c.miner_class) for _, c in classes)
    count = len(classes)
    capped = np.array([k for k, (_, c) in enumerate(classes) if c.achievable_w is not None], dtype=np.int32)
    awake, low, turbo, wake = (draft.columns(count, periods) for _ in range(4))
    resumed, move_up, move_down = draft.columns(count), draft.columns(count, 3), draft.columns(count, 3)
    mode_row, wake_row = draft.rows(count, periods), draft.rows(count, periods)
    move_row, cap_row = draft.rows(count, 3), draft.rows(len(capped), periods)
    watts = np.array([s.steps_w for s in shapes]).reshape(count, 3)
    hashes = np.array([s.steps_hs for s in shapes]).reshape(count, 3)
    draft.add(mode_row, low, 1.0)
    draft.add(mode_row, turbo, 1.0)
    draft.add(mode_row, awake, -1.0)
    draft.add(wake_row, awake, 1.0)
    draft.add(wake_row[:, 1:], awake[:, :-1], -1.0)
    draft.add(wake_row, wake, -1.0)
    draft.add(wake_row[:, 0], resumed, -1.0)
    for kind, columns in enumerate((awake, low, turbo)):
        draft.add(move_row[:, kind], columns[:, 0], 1.0)
        draft.add(cap_row, columns[capped], watts[capped, kind, None] / 1e3)
    draft.add(move_row, move_up, -1.0)
    draft.add(move_row, move_down, 1.0)
    return Mining(
        shapes, np.array([i for i, _ in classes], dtype=np.int32), watts, hashes,
        awake, low, turbo, wake, resumed, move_up, move_down, mode_row, wake_row, move_row, capped, cap_row,
    )  # fmt: skip


def mining_numbers(mining: Mining, numbers: Numbers, fleet: FleetState, parameters: Parameters, hours: Floats) -> None:
    """Income as negative cost [USD per thousand machines], machines to be had, the commanded state."""
    pairs = [(s, c) for s in fleet.sites for c in s.classes]
    if not pairs:
        return
    rate = np.array([_usd_per_hs_hour(s, fleet) * 1e3 for s, _ in pairs])
    usd_per_hour = rate[:, None] * mining.hashes  # (class, 3): of a thousand machines awake, in low, in turbo
    available = np.array([c.available for _, c in pairs]) / 1e3
    data_hours = fleet.speed / 3600.0  # per real second
    numbers.cost[mining.awake] = -usd_per_hour[:, 0, None] * hours
    numbers.cost[mining.low] = -usd_per_hour[:, 1, None] * hours
    numbers.cost[mining.turbo] = -usd_per_hour[:, 2, None] * hours
    wake_s = np.array([c.miner_class.wake_s for _, c in pairs])
    lost_usd = usd_per_hour[:, 0] * wake_s * data_hours
    numbers.cost[mining.wake] = (lost_usd + parameters.wear_usd_per_wake * 1e3)[:, None]
    remaining_s = np.array([c.waking_remaining_s for _, c in pairs])
    numbers.cost[mining.resumed] = usd_per_hour[:, 0] * remaining_s * data_hours
    numbers.column_upper[mining.awake] = available[:, None]
    numbers.column_upper[mining.low] = np.where(mining.watts[:, 1] != 0.0, available, 0.0)[:, None]
    numbers.column_upper[mining.turbo] = np.where(mining.watts[:, 2] != 0.0, available, 0.0)[:, None]
    stand = np.array([commanded_awake(c) for _, c in pairs]) / 1e3
    waking = np.minimum(np.array([c.waking for _, c in pairs]) / 1e3, stand[:, 0])
    numbers.column_upper[mining.resumed] = waking
    numbers.row_upper[mining.wake_row[:, 0]] = stand[:, 0] - waking
    kept = np.where(mining.watts != 0.0, stand, 0.0)
    kept[:, 0] = stand[:, 0]
    loading = np.array([1.0 + s.overhead_ratio for s, _ in pairs])
    numbers.row_lower[mining.move_row] = numbers.row_upper[mining.move_row] = kept
    move = parameters.move_usd_per_mw * np.abs(mining.watts) / 1e3 * loading[:, None]
    numbers.cost[mining.move_up] = numbers.cost[mining.move_down] = move
    caps = [(c.achievable_w or 0.0) - c.available * mining.shapes[k].sleep_w for k, (_, c) in enumerate(pairs)]
    numbers.row_upper[mining.cap_row] = np.maximum(0.0, np.array(caps)[mining.capped] / 1e6)[:, None]


def _usd_per_hs_hour(site: SiteState, fleet: FleetState) -> float:
    return fleet.hashprice_usd_per_ph_day * (1.0 - site.pool_fee_ratio) / 24.0 / 1e15


def hashrate_entries(mining: Mining, classes: Sequence[ClassState], real_s: Floats) -> tuple[tuple[Ints, Floats], ...]:
    """What each column adds to a period's hashrate [PH/s]: (columns (class, period), coefficients).

    A waking machine counts for nothing until it hashes.
    """
    base_ph, low_ph, turbo_ph = (mining.hashes[:, kind, None] / 1e12 for kind in range(3))
    lost = np.minimum(1.0, np.array([c.miner_class.wake_s for c in classes])[:, None] / real_s[None, :])
    shape = mining.awake.shape
    pairs = ((mining.awake, base_ph), (mining.low, low_ph), (mining.turbo, turbo_ph), (mining.wake, -base_ph * lost))
    return (*((c, np.broadcast_to(v, shape)) for c, v in pairs), (mining.resumed[:, None], -base_ph))
