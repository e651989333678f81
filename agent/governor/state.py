"""What the governor knows, remembers and answers: plain values and columns, no I/O, no clock.

`GovernorState` is the memory of one site between ticks; `Sensed` is what one tick brings; `Actions` is what goes out.
Powers are watts, times monotonic seconds. Row i is device i of the inventory.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from agent.backends import MeterSample, PoolReading, RowArray, SiteInventory
from agent.governor.circuits import CircuitLimit, Level, levels_of
from agent.governor.swings import Swings
from gridpivot.clock import Instant
from gridpivot.columns import DeviceTable
from gridpivot.segments import class_hull
from gridpivot.vocabulary import MeterTrust, Mode, Posture, Reason, Rung, Stage

F64 = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
MODES = tuple(Mode)
SLEEP, NORMAL = Mode.SLEEP.code, Mode.NORMAL.code


@dataclass(frozen=True, slots=True)
class ContainerFans:
    """Fans that the governor switches: their container and what they draw [W]."""

    container: str
    power_w: float = 0.0


@dataclass(frozen=True, slots=True)
class CircuitSwitch:
    """A circuit that can be opened in need and carries miners alone."""

    level: str
    name: str


@dataclass(frozen=True, slots=True)
class Policy:
    """How one site is governed. Ratios are of the site's ceiling unless said otherwise."""

    ceiling_w: float  # contractual
    protection_w: float  # never reached
    stage: Stage = Stage.FULL
    posture: Posture = Posture.HOLD
    margin_ratio: float = 0.005  # kept free under every ceiling
    fast_reserve_ratio: float = 0.003  # part of an AI step that mining may cover after the fact
    fast_shed_s: float = 5.0  # families that shed within this count as fast
    overhead_ratio: float = 0.06  # overhead per watt of load, at worst
    overhead_lag_s: float = 120.0
    meter_fresh_s: float = 5.0
    meter_dead_s: float = 6.0  # most that the meter lags behind the truth
    meter_wait_s: float = 10.0  # after the start, before a meter that never spoke counts as lost
    meter_derate_ratio: float = 0.02  # ceiling given up while the meter is not believed
    uncertainty_ratio: float = 0.08  # asked for on top of a shed
    gpu_slack_ratio: float = 0.03  # limit over measured demand, of the pool's power, until its swings are known
    ai_release_after_s: float = 60.0  # demand must stay low this long before limits follow
    wake_after_s: float = 60.0  # room must last this long before mining is woken
    wake_interval_s: float = 5.0  # between batches
    wake_batch_ratio: float = 0.02  # power of one batch
    wake_batch_devices: int = 600  # 0 = no limit by count
    min_on_s: float = 120.0  # economics only
    min_off_s: float = 30.0
    most_retries: int = 3
    cycles_per_day: float = 0.0  # sleeps that economics may ask of one machine a day; 0 = no limit
    pools_dead_ratio: float = 0.5  # of what hashes: without shares, nobody is woken
    circuits: tuple[CircuitLimit, ...] = ()
    fans: tuple[ContainerFans, ...] = ()
    fans_off_after_s: float = 300.0
    still_shed_after_s: float = 60.0  # fans proven to stand while machines hash; 0 = leave it to the firmware
    switches: tuple[CircuitSwitch, ...] = ()


@dataclass(frozen=True, slots=True)
class Orders:
    """What the plan, events and local orders come to at this tick, already clipped to the lowest limit."""

    ceiling_w: float
    rung: Rung
    class_modes: F64 | None  # [class, sleep|low|normal|turbo] machines; None = no wish
    pool_max_w: Sequence[float | None]  # most per pool; None = no wish
    class_value: F64 | None = None  # USD per MWh per class; None = by efficiency
    drop_ramp_w_per_min: float = 0.0
    pick_up_ramp_w_per_min: float = 0.0
    may_raise: bool = True  # False: only what lowers power is commanded
    pool_admits: Sequence[bool | None] = ()  # by pool, whether new work may start; None, or no pools = no wish


@dataclass(frozen=True, slots=True)
class Sensed:
    """One tick's readings."""

    table: DeviceTable
    polled_at_s: F64  # monotonic start of each device's last good poll; NaN before the first
    meter: MeterSample | None
    pools: Sequence[PoolReading]
    airflow: Mapping[str, bool] | None = None  # by container: whether air is proven to move


@dataclass(frozen=True, slots=True)
class FanCommand:
    """Fans of a container, on or off."""

    container: str
    on: bool


@dataclass(frozen=True, slots=True)
class ModeCommand:
    """Devices to change, and why."""

    rows: RowArray
    mode: Mode
    why: str
    expected_w: float  # power moved, positive


@dataclass(frozen=True, slots=True)
class PoolCommand:
    """A pool's new limit at the wall [W], and why."""

    pool: int
    limit_w: float
    why: str


@dataclass(frozen=True, slots=True)
class Picture:
    """How the site stands, as the governor believes it."""

    meter_trust: MeterTrust
    metered_w: float | None
    assumed_w: float  # what decisions are based on
    mining_w: float
    ai_w: float
    ai_limit_w: float
    overhead_w: float
    target_w: float  # ceiling less margin, derated where the meter is not believed
    room_w: float  # free for raising, may be negative
    shed_short_w: float  # asked and not deliverable
    shed_in_flight_w: float
    wake_in_flight_w: float
    silent: int


@dataclass(frozen=True, slots=True)
class Actions:
    """What one tick decided."""

    modes: tuple[ModeCommand, ...]
    limits: tuple[PoolCommand, ...]
    picture: Picture
    left_alone: Mapping[Reason, int]
    fans: tuple[FanCommand, ...]
    opened: tuple[str, ...]  # switches to open, as level:name
    moves_open: int  # devices that do not stand yet as the plan wants them


@dataclass(frozen=True, slots=True)
class ShedStep:
    """One step down a class's curve: what it saves per machine [W] and what a saved watt costs in value."""

    class_index: int
    from_mode: int
    to_mode: int
    drop_w: float
    shed_s: float
    loss_per_w: float


class ClassTables:
    """Per-class constants as arrays, and two standing orders: steps down by speed and loss, rows by value."""

    def __init__(self, inventory: SiteInventory) -> None:
        classes = inventory.classes
        self.inventory = inventory
        self.mode_w = np.array([c.power_by_code() for c in classes], dtype=np.float64).reshape(len(classes), len(MODES))
        self.has_mode = np.array([[m in c.modes for m in MODES] for c in classes], dtype=bool).reshape(
            len(classes), len(MODES)
        )
        self.boot_w = np.array([c.boot_w for c in classes], dtype=np.float64)
        self.shed_s = np.array([c.shed_s for c in classes], dtype=np.float64)
        self.wake_s = np.array([c.wake_s for c in classes], dtype=np.float64)
        self.efficiency = np.array([c.efficiency_j_per_th for c in classes], dtype=np.float64)
        self.of_row = inventory.class_index.astype(np.int64)
        self.row_shed_s = self.shed_s[self.of_row] if len(classes) else np.zeros(0)
        self.fastest_s = float(self.shed_s.min()) if len(classes) else 0.0
        self.shed_steps: tuple[ShedStep, ...] = ()
        self.set_value(None)

    def set_value(self, class_value: F64 | None) -> None:
        """Least valuable first: by USD/MWh where known, else by joules per terahash."""
        key = 1000.0 / self.efficiency if class_value is None else class_value
        self.value_order = self._order(np.argsort(key, kind="stable"))
        steps = [step for index in range(len(key)) for step in self._steps(index, float(key[index]))]
        self.shed_steps = tuple(sorted(steps, key=lambda s: (s.shed_s, s.loss_per_w, -s.from_mode)))

    def _steps(self, index: int, value: float) -> list[ShedStep]:
        """Steps between neighbours on the class's hull, downward; `value` is per watt in normal mode."""
        kind = self.inventory.classes[index]
        normal = kind.modes[Mode.NORMAL]
        per_hash = value * normal.power_w / normal.hashrate_hs
        steps = []
        for (low_mode, low), (high_mode, high) in pairwise(class_hull(kind)):
            drop_w = high.power_w - low.power_w
            loss = per_hash * (high.hashrate_hs - low.hashrate_hs) / drop_w
            steps.append(ShedStep(index, high_mode.code, low_mode.code, drop_w, kind.shed_s, loss))
        return steps

    def _order(self, classes_ascending: npt.NDArray[np.int64]) -> RowArray:
        if not len(classes_ascending):
            return np.zeros(0, dtype=np.int64)
        rank = np.empty(len(classes_ascending), dtype=np.int64)
        rank[classes_ascending] = np.arange(len(classes_ascending))
        return np.argsort(rank[self.of_row], kind="stable")


@dataclass(slots=True)
class PoolMemory:
    """What is remembered of one AI pool."""

    requested_w: float | None = None
    requested_at_s: float = float("-inf")
    low_since_s: float | None = None
    draws: deque[tuple[float, float]] = field(default_factory=deque)  # (time, watts) of the last few seconds
    swings: Swings = field(default_factory=Swings)


class GovernorState:
    """Memory of one site between ticks."""

    def __init__(self, inventory: SiteInventory) -> None:
        n = inventory.device_count
        self.classes = ClassTables(inventory)
        self.inventory = inventory
        self.desired = np.zeros(n, dtype=np.uint8)  # Mode code; 0 until adopted from the first reading
        self.sent_at_s = np.full(n, -np.inf)
        self.changed_at_s = np.full(n, -np.inf)
        self.pending = np.zeros(n, dtype=np.int8)  # -1 shed in flight, +1 wake in flight
        self.deadline_s = np.full(n, np.inf)
        self.moved_w = np.zeros(n)  # watts that a pending command is expected to move, positive
        self.for_ai = np.zeros(n, dtype=bool)  # the last command made room for AI
        self.proof_w = np.zeros(n)  # a reading beyond this proves the pending command
        self.retries = np.zeros(n, dtype=np.int16)
        self.believed_w = np.full(n, np.nan)
        self.cycles_spent = np.zeros(n)  # sleeps, worn off over a day
        self.over_since_s: float | None = None  # the meter is over the guard line
        self.opened: dict[str, float] = {}  # switches opened, and when
        self.cold_since_s: dict[str, float] = {}  # containers where every machine sleeps
        self.still_since_s: dict[str, float] = {}  # containers whose fans stand while machines are awake
        self.pools = [PoolMemory() for _ in inventory.pools]
        self.shed_tails: deque[tuple[float, float]] = deque()  # (until, watts): confirmed, maybe not on the meter yet
        self.ai_tails: deque[tuple[float, float]] = deque()  # the part of shed_tails that made room for AI
        self.wake_tails: deque[tuple[float, float]] = deque()
        self.overhead_debt_w = 0.0
        self.correction = 1.0  # metered mining over reported mining
        self.correction_samples = 0
        self.agreed_samples = 0  # steady ones in a row that the correction explained
        self.quiet_since_s: float | None = None
        self.room_since_s: float | None = None
        self.woke_at_s = -np.inf
        self.drop_budget_w = 0.0
        self.pick_up_budget_w = 0.0
        self.last_tick_s: float | None = None
        self.first_tick_s: float | None = None
        self.trusted_w: float | None = None
        self.trusted_ai_w = 0.0
        self.trusted_ai_most_w = 0.0  # the most that the meter may have been showing of it then
        self.trusted_reported_w = 0.0  # by the devices, when the meter was last believed
        self.raised_since_w = 0.0  # increases commanded since the meter was last believed
        self.shed_since_w = 0.0  # decreases proven by devices since then
        self._levels: tuple[tuple[CircuitLimit, ...], tuple[Level, ...]] | None = None
        self.commands_total = 0
        self.confirmed_total = 0
        self.short_total = 0

    def levels(self, limits: tuple[CircuitLimit, ...]) -> tuple[Level, ...]:
        """The site's circuits under these limits, laid out once."""
        if self._levels is None or self._levels[0] is not limits:
            self._levels = (limits, levels_of(self.inventory, limits))
        return self._levels[1]

    @property
    def relief_factor(self) -> float:
        """True over reported relief of a shed: learned, and before that what a sensor 15 % too high would leave."""
        return self.correction if self.correction_samples >= 3 else 0.87

    def row_mode_w(self, rows: RowArray, mode_code: int | npt.NDArray[np.integer]) -> F64:
        """Class power of rows in a mode [W]."""
        watts: F64 = self.classes.mode_w[self.classes.of_row[rows], mode_code]
        return watts


def tail_w(tails: deque[tuple[float, float]], now_s: float) -> float:
    """Sum of tails that have not run out [W]; forgets those that have."""
    while tails and tails[0][0] <= now_s:
        tails.popleft()
    return sum(watts for _, watts in tails)


def instant(monotonic_s: float) -> Instant:
    """An Instant whose two clocks agree; for tests and replays."""
    return Instant(monotonic_s, monotonic_s)
