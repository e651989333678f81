"""Settings of a site's grid connection and contracts, and the terms that dispatch works under at a moment.

Megawatts and hours here, as contracts name them; watts and seconds from now in what comes out. Nothing is read from a
clock: the moment comes in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import AwareDatetime, Field, model_validator

from controller.dispatch.terms import (
    Backlog,
    Contract,
    FeederState,
    RampStep,
    RateStep,
    SoldCapacity,
    SupplyState,
    WattStep,
)
from gridpivot.settings import Section

Megawatts = Annotated[float, Field(ge=0, le=10_000)]
Price = Annotated[float, Field(ge=-2_000, le=20_000)]


class FeederSettings(Section):
    """One feeder: what may flow through it, and the classes and pools that hang on it whole."""

    name: str = Field(min_length=1)
    limit_mw: Megawatts
    classes: tuple[str, ...] = ()
    pools: tuple[str, ...] = ()


class RampSettings(Section):
    """From an import of `from_mw` upwards, power may change by `mw_per_min`."""

    from_mw: Megawatts = 0.0
    mw_per_min: float = Field(gt=0, le=10_000)


class ContractSettings(Section):
    """A block that is paid whether taken or not; what is not taken is sold back at the site's price less the fee."""

    block_mw: Megawatts
    usd_per_mwh: Price
    sell_back: bool = True
    sell_fee_usd_per_mwh: float = Field(default=0.0, ge=0, le=1_000)


class SupplySettings(Section):
    """A generator or supply behind the meter. `running` is what a person decides; dispatch never starts one."""

    name: str = Field(min_length=1)
    available_mw: Megawatts
    usd_per_mwh: Price
    min_mw: Megawatts = 0.0
    running: bool = True


class SoldSettings(Section):
    """Capacity sold to the grid. `baseline`, `min_run_h` and `rest_h` are the product's rules for a call."""

    product: str = Field(min_length=1)
    mw: Megawatts
    notice_s: float = Field(gt=0, le=86_400)
    availability_usd_per_mwh: float = Field(default=0.0, ge=0, le=20_000)
    penalty_usd_per_mwh: float = Field(default=5_000.0, ge=0, le=100_000)
    starts_at: AwareDatetime | None = None
    ends_at: AwareDatetime | None = None
    baseline: Literal["before_call", "contract"] = "before_call"
    min_run_h: float = Field(default=0.0, ge=0, le=48)
    rest_h: float = Field(default=0.0, ge=0, le=24)

    @model_validator(mode="after")
    def _order(self) -> Self:
        if self.starts_at is not None and self.ends_at is not None and self.ends_at <= self.starts_at:
            raise ValueError(f"{self.product}: ends_at must be after starts_at")
        return self


class PoolTerms(Section):
    """What one AI pool of a site earns, and how it may be moved."""

    usd_per_gpu_hour: float | None = Field(default=None, ge=0, le=1_000)  # over the market's value
    idle_paid: bool = False  # paid even when idle; what is refused is a refund
    shed_s: float | None = Field(default=None, gt=0)  # how fast it can be shed; without it never counted as sheddable
    backlog: str | None = None  # the regional backlog that it works on


class ConnectionSettings(Section):
    """All terms of one site; without any it is one limit, one price and its loads."""

    feeders: tuple[FeederSettings, ...] = ()
    drop_ramp: tuple[RampSettings, ...] = ()  # curve of breakpoints, over the site's drop_ramp_w_per_min
    pick_up_ramp: tuple[RampSettings, ...] = ()
    contract: ContractSettings | None = None
    supplies: tuple[SupplySettings, ...] = ()
    export_limit_mw: Megawatts = 0.0
    export_fee_usd_per_mwh: float = Field(default=0.0, ge=0, le=1_000)
    sold: tuple[SoldSettings, ...] = ()
    ai_reserve_mw: Megawatts = 0.0

    @model_validator(mode="after")
    def _curves(self) -> Self:
        for name, curve in (("drop_ramp", self.drop_ramp), ("pick_up_ramp", self.pick_up_ramp)):
            starts = [step.from_mw for step in curve]
            if starts != sorted(set(starts)) or (starts and starts[0] != 0.0):
                raise ValueError(f"{name}: breakpoints must begin at from_mw = 0 and ascend")
        names = [feeder.name for feeder in self.feeders]
        if len(set(names)) < len(names):
            raise ValueError("feeders: two of them share a name; rename one")
        hung = [f"{kind} {name}" for f in self.feeders for kind, own in (("class", f.classes), ("pool", f.pools)) for name in own]  # fmt: skip
        twice = {name for name in hung if hung.count(name) > 1}
        if twice:
            raise ValueError(f"feeders: {min(twice)} hangs on two of them; it can hang on one")
        return self

    def feeder_of(self, kind: Literal["classes", "pools"], name: str) -> str:
        """Name of the feeder that a class or pool hangs on; "" = none modelled."""
        return next((f.name for f in self.feeders if name in getattr(f, kind)), "")

    def state(self, unix_s: float, speed: float = 1.0) -> dict[str, Any]:
        """The terms as fields of a SiteState; `unix_s` is data time, steps come out in real seconds from now."""
        return {
            "feeders": tuple(FeederState(f.name, f.limit_mw * 1e6) for f in self.feeders),
            "drop_ramp": tuple(RampStep(r.from_mw * 1e6, r.mw_per_min * 1e6) for r in self.drop_ramp),
            "pick_up_ramp": tuple(RampStep(r.from_mw * 1e6, r.mw_per_min * 1e6) for r in self.pick_up_ramp),
            "contract": None
            if (c := self.contract) is None
            else Contract(c.block_mw * 1e6, c.usd_per_mwh, c.sell_back, c.sell_fee_usd_per_mwh),
            "supplies": tuple(
                SupplyState(s.name, (WattStep(0.0, s.available_mw * 1e6),), s.usd_per_mwh, s.min_mw * 1e6, s.running)
                for s in self.supplies
            ),
            "export_limit_w": self.export_limit_mw * 1e6,
            "export_fee_usd_per_mwh": self.export_fee_usd_per_mwh,
            "sold": tuple(_sold(s, unix_s, speed) for s in self.sold if _open(s, unix_s)),
            "ai_reserve_w": self.ai_reserve_mw * 1e6,
        }


def _open(sold: SoldSettings, unix_s: float) -> bool:
    return sold.ends_at is None or sold.ends_at.timestamp() > unix_s


def _sold(sold: SoldSettings, unix_s: float, speed: float) -> SoldCapacity:
    def ahead(moment: datetime | None) -> float | None:
        return None if moment is None else (moment.timestamp() - unix_s) / speed

    return SoldCapacity(
        sold.product,
        sold.mw * 1e6,
        sold.notice_s,
        ahead(sold.starts_at) or 0.0,
        ahead(sold.ends_at),
        sold.availability_usd_per_mwh,
        sold.penalty_usd_per_mwh,
    )


class BacklogSettings(Section):
    """Deferrable AI work of a region. How much waits is told by its pools; here is when it is due and what it earns."""

    name: str = Field(min_length=1)
    region: str = Field(min_length=1)
    deadline_h: float = Field(gt=0, le=720)
    usd_per_gpu_hour: float = Field(ge=0, le=1_000)
    late_usd_per_gpu_hour: float = Field(default=10.0, ge=0, le=10_000)
    arrivals_gpu_h_per_h: float = Field(default=0.0, ge=0)  # expected

    def state(self, work_gpu_h: float, speed: float = 1.0) -> Backlog:
        """The backlog with what waits now [GPU-h]; due at the latest: when it came is not told, so half the deadline."""
        return Backlog(
            self.name,
            self.region,
            work_gpu_h,
            (RateStep(0.0, self.arrivals_gpu_h_per_h),),
            self.deadline_h * 3600.0 / speed,
            self.deadline_h * 1800.0 / speed,
            self.usd_per_gpu_hour,
            self.late_usd_per_gpu_hour,
        )


def backlogs_now(
    settings: Sequence[BacklogSettings], waiting_gpu_h: Mapping[str, float], speed: float
) -> tuple[Backlog, ...]:
    """Backlogs whose pools tell what waits; of the others nothing is known, and their pools keep their own demand."""
    return tuple(b.state(waiting_gpu_h[b.name], speed) for b in settings if b.name in waiting_gpu_h)
