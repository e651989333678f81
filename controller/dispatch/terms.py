"""What a grid connection, a contract or a customer demands of a site: the terms that dispatch works under.

Plain values, counted from now in real seconds, like the rest of a `FleetState`. Every one of them may be absent; a
site without any is one limit, one price and its loads.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class WattStep:
    """Power [W] from `starts_in_s` [s from now] until the next step: demand ahead, or what a supply can give."""

    starts_in_s: float
    power_w: float


@dataclass(frozen=True, slots=True)
class RateStep:
    """A flow from `starts_in_s` [s from now] until the next step: work that arrives [GPU-h per hour]."""

    starts_in_s: float
    gpu_h_per_h: float


@dataclass(frozen=True, slots=True)
class FeederState:
    """One feeder of a site: what flows through it, overhead included, stays under `limit_w` [W]."""

    name: str
    limit_w: float


@dataclass(frozen=True, slots=True)
class RampStep:
    """From an import of `from_w` upwards, power may change by `w_per_min` [W/min]."""

    from_w: float
    w_per_min: float


@dataclass(frozen=True, slots=True)
class Contract:
    """A block of power that is paid whether taken or not [W, USD/MWh].

    What is not taken is sold back at the site's power price less `sell_fee_usd_per_mwh`, or lost without `sell_back`.
    """

    block_w: float
    usd_per_mwh: float
    sell_back: bool = True
    sell_fee_usd_per_mwh: float = 0.0


@dataclass(frozen=True, slots=True)
class DemandCharge:
    """A charge on the highest demand of the billing period [USD per kW].

    `peak_w` is the peak metered so far, or the one reckoned with anyway; `remaining_s` runs to the end of the period.
    """

    usd_per_kw: float
    peak_w: float
    remaining_s: float


@dataclass(frozen=True, slots=True)
class SupplyState:
    """A generator, or supply behind the meter: what it can give from now on, and what a MWh of it costs.

    `min_w` holds while `running`; a supply that is not running gives nothing (starting one is a person's decision).
    What the loads cannot take of a minimum is exported up to the site's export limit, then spilled.
    """

    name: str
    available: tuple[WattStep, ...]
    usd_per_mwh: float
    min_w: float = 0.0
    running: bool = True


@dataclass(frozen=True, slots=True)
class SoldCapacity:
    """Reduction sold to the grid: load that runs and can be shed within `notice_s` must be at least `power_w`.

    ERCOT's ECRS asks for it within 10 min, Non-Spin and ERS within 30 (ERS-10: 10). While the grid calls it, the
    event's ceiling takes its place. `availability_usd_per_mwh` is paid for standing ready, `penalty_usd_per_mwh`
    charged for what was sold and was not there.
    """

    product: str
    power_w: float
    notice_s: float
    starts_in_s: float
    ends_in_s: float | None
    availability_usd_per_mwh: float = 0.0
    penalty_usd_per_mwh: float = 5_000.0


@dataclass(frozen=True, slots=True)
class WorkDue:
    """Work [GPU-h] that is due in `due_in_s` [s from now]; 0 or less is late already."""

    due_in_s: float
    gpu_h: float


@dataclass(frozen=True, slots=True)
class Backlog:
    """Deferrable AI work of a region that any of its pools may do [GPU-h at full throughput].

    `work_gpu_h` waits now, `arrivals` come; each piece is due `deadline_s` after it came (what waits now: as `due`
    says, else all of it after `due_in_s`). Done work earns `usd_per_gpu_hour`; work past its deadline also costs
    `late_usd_per_gpu_hour` for every hour that it waits. With `follows_demand` the demand ahead of its pools comes too,
    as work that is due when it comes, or is lost.
    """

    name: str
    region: str
    work_gpu_h: float
    arrivals: tuple[RateStep, ...]
    deadline_s: float
    due_in_s: float
    usd_per_gpu_hour: float
    late_usd_per_gpu_hour: float = 10.0
    due: tuple[WorkDue, ...] = ()
    follows_demand: bool = False


@dataclass(frozen=True, slots=True)
class Queue:
    """Work of one pool as its workload manager tells it [GPU-h at full throughput, up to the jobs' time limits].

    `pending_gpu_h` is all that waits; `deferrable_gpu_h` is the part of it that need not run now. `busy_gpus` None =
    not told. `admitting` False: what waits may not start, so that the present draw is not what the pool wants.
    """

    running_gpu_h: float
    pending_gpu_h: float
    deferrable_gpu_h: float = 0.0
    busy_gpus: float | None = None
    admitting: bool = True
