"""A fleet from a TOML file: sites, miner classes, AI pools, events and obligations; faults name line and remedy.

Tables are flat and name their sites: `[[sites]]`, then `[[classes]]`, `[[pools]]`, `[[events]]`, `[[sold]]` and
`[[feeders]]` with `sites = [...]`, none meaning all of them. docs/backtest.md shows every key.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal
from zoneinfo import ZoneInfo

from pydantic import Field, field_validator, model_validator

from controller.dispatch.terms import Contract, FeederState
from controller.markets.bounds import PriceUnit
from controller.markets.series import read_prices
from controller.markets.zones import zone
from controller.settlement.plant import Demand, EventRule, Plant, PlantClass, PlantPool, SoldRule
from gridpivot.curves import NAMEPLATE, MinerClass, ModePoint, gpu_pool, miner_class
from gridpivot.errors import SettingsError
from gridpivot.segments import class_hull
from gridpivot.settings import Section, line_of, load
from gridpivot.vocabulary import AiPriority, Mode

Name = Annotated[str, Field(min_length=1, max_length=60)]
ModeName = Literal["sleep", "low", "normal", "turbo"]
Hour = Annotated[float, Field(ge=0, le=24)]
DAYS = {"all": tuple(range(7)), "weekdays": tuple(range(5)), "weekend": (5, 6)}
MODE_ORDER = (Mode.SLEEP, Mode.LOW, Mode.NORMAL, Mode.TURBO)


class ContractSection(Section):
    """A block that is paid whether taken or not."""

    block_mw: float = Field(gt=0)
    usd_per_mwh: float
    sell_back: bool = True
    sell_fee_usd_per_mwh: float = Field(default=0.0, ge=0)


class SiteSection(Section):
    """One grid connection."""

    name: Name
    region: str = ""
    time_zone: str = "UTC"
    ceiling_mw: float = Field(gt=0)
    overhead_ratio: float = Field(default=0.05, ge=0, lt=1)
    fixed_mw: float = Field(default=0.0, ge=0)
    pool_fee_ratio: float = Field(default=0.0, ge=0, lt=1)
    contract: ContractSection | None = None
    demand_charge_usd_per_kw: float | None = Field(default=None, ge=0)

    @field_validator("time_zone")
    @classmethod
    def _known(cls, name: str) -> str:
        try:
            zone(name)
        except SettingsError as error:
            raise ValueError(str(error)) from None
        return name


class Placed(Section):
    """A table that belongs to some sites; no name means all."""

    sites: tuple[str, ...] = ()


class FeederSection(Placed):
    """A feeder and its limit, overhead included."""

    name: Name
    limit_mw: float = Field(gt=0)


class ClassSection(Placed):
    """Machines of one class at each of its sites: a known model, its nameplate, or measured modes [W, TH/s]."""

    name: Name
    machines: int = Field(ge=1, le=1_000_000)
    model: str | None = None
    nameplate: tuple[float, float] | None = None  # TH/s, W
    modes: dict[ModeName, tuple[float, float]] | None = None  # W, TH/s
    mode_names: tuple[ModeName, ...] = ("sleep", "low", "normal", "turbo")  # those that a model's firmware has
    wake_s: float = Field(default=240.0, ge=0, le=3600)
    shed_s: float = Field(default=30.0, ge=0, le=3600)
    feeder: str = ""

    @model_validator(mode="after")
    def _one_curve(self) -> ClassSection:
        if sum(given is not None for given in (self.model, self.nameplate, self.modes)) != 1:
            raise ValueError("give exactly one of model, nameplate = [TH/s, W] and modes")
        if self.model is not None and self.model not in NAMEPLATE:
            raise ValueError(f"model {self.model!r} is unknown; give nameplate = [TH/s, W], or one of {_models()}")
        if not {"sleep", "normal"} <= set(self.mode_names):
            raise ValueError("mode_names needs sleep and normal")
        if self.modes is not None:
            self._check(self.modes)
        return self

    def _check(self, modes: dict[ModeName, tuple[float, float]]) -> None:
        if "sleep" not in modes or "normal" not in modes:
            raise ValueError("modes sleep and normal are both needed: modes = { sleep = [W, 0], normal = [W, TH/s] }")
        if any(watts < 0 or terahash < 0 for watts, terahash in modes.values()) or modes["sleep"][1] != 0:
            raise ValueError("modes are [W, TH/s], neither below 0, and sleep hashes nothing")
        built = self.to_class()
        on_hull = {mode for mode, _ in class_hull(built)}
        for mode in MODE_ORDER:
            if mode in built.modes and mode not in on_hull:
                raise ValueError(
                    f"mode {mode.value} lies under the line between its neighbours: the class gains efficiency when it "
                    "draws more, which a mix of the other modes beats; measure it again or leave the mode out"
                )

    def to_class(self) -> MinerClass:
        """The class with its curve."""
        if self.modes is None:
            return miner_class(
                self.name,
                "file",
                self.model or self.name,
                shed_s=self.shed_s,
                wake_s=self.wake_s,
                modes=tuple(Mode(name) for name in self.mode_names),
                nameplate=self.nameplate,
            )
        points = {Mode(m): ModePoint(watts, terahash * 1e12) for m, (watts, terahash) in self.modes.items()}
        return MinerClass(self.name, "file", self.name, points, self.shed_s, self.wake_s)


class PoolSection(Placed):
    """One AI pool at each of its sites; demand in MW at the wall, whole nodes with their hosts."""

    name: Name
    priority: AiPriority
    gpus: int = Field(ge=1, le=1_000_000)
    usd_per_gpu_hour: float = Field(ge=0)
    demand_mw: float | None = Field(default=None, ge=0)
    demand_by_hour: tuple[float, ...] = ()
    demand_swing_ratio: float = Field(default=0.0, ge=0, le=1)
    demand_seed: int = 1
    demand_csv: Path | None = None
    demand_scale: float = Field(default=1.0, gt=0)
    idle_paid: bool = False
    shed_s: float | None = Field(default=None, ge=0)
    feeder: str = ""
    gpu_max_w: float = Field(default=700.0, gt=0)
    gpu_min_w: float = Field(default=200.0, gt=0)
    gpu_idle_w: float = Field(default=75.0, ge=0)
    host_w_per_gpu: float = Field(default=400.0, ge=0)

    @model_validator(mode="after")
    def _one_demand(self) -> PoolSection:
        if self.demand_mw is not None and self.demand_csv is not None:
            raise ValueError("give either demand_mw or demand_csv, not both")
        if self.demand_by_hour and len(self.demand_by_hour) != 24:
            raise ValueError("demand_by_hour wants 24 shares of demand_mw, midnight first, on the site's clock")
        if any(share < 0 for share in self.demand_by_hour):
            raise ValueError("demand_by_hour holds a share below 0")
        return self


class EventSection(Placed):
    """A ceiling from the grid: dated (`start`, `end`) or on chosen days between two local hours."""

    name: Name
    ceiling_mw: float | None = Field(default=None, ge=0)
    ceiling_ratio: float | None = Field(default=None, ge=0, le=1)
    notice_h: float = Field(default=2.0, ge=0)
    start: datetime | None = None
    end: datetime | None = None
    months: tuple[Annotated[int, Field(ge=1, le=12)], ...] = ()
    days: Literal["all", "weekdays", "weekend"] = "all"
    from_hour: Hour = 0.0
    until_hour: Hour = 24.0

    @model_validator(mode="after")
    def _whole(self) -> EventSection:
        if (self.ceiling_mw is None) == (self.ceiling_ratio is None):
            raise ValueError("give either ceiling_mw or ceiling_ratio (of the site's ceiling)")
        if (self.start is None) != (self.end is None):
            raise ValueError("give start and end, or neither and from_hour, until_hour")
        if self.start is not None and self.end is not None and _unix(self.start) >= _unix(self.end):
            raise ValueError("end must be after start")
        if self.start is None and self.from_hour >= self.until_hour:
            raise ValueError("until_hour must be after from_hour; for a window over midnight write two events")
        return self


class SoldSection(Placed):
    """Reduction sold to the grid for the same local hours of every day."""

    product: Name
    power_mw: float = Field(gt=0)
    notice_s: float = Field(gt=0)
    availability_usd_per_mwh: float = Field(default=0.0, ge=0)
    penalty_usd_per_mwh: float = Field(default=5_000.0, ge=0)
    from_hour: Hour = 0.0
    until_hour: Hour = 24.0


class FleetFile(Section):
    """The whole file."""

    sites: tuple[SiteSection, ...] = Field(min_length=1)
    feeders: tuple[FeederSection, ...] = ()
    classes: tuple[ClassSection, ...] = ()
    pools: tuple[PoolSection, ...] = ()
    events: tuple[EventSection, ...] = ()
    sold: tuple[SoldSection, ...] = ()


def read_fleet(path: Path) -> tuple[Plant, ...]:
    """The sites of a fleet file; raises SettingsError, one line per fault with file, line and remedy. Blocking."""
    file = load(FleetFile, path, "GRIDPIVOT_FLEET", environ={})
    text = path.read_text(encoding="utf-8")
    faults = []
    names = [site.name for site in file.sites]
    faults += [
        f"{path}:{line_of(text, ['sites', at])}: site {name!r} stands twice; rename one"
        for at, name in enumerate(names)
        if name in names[:at]
    ]
    for table in ("feeders", "classes", "pools", "events", "sold"):
        for at, entry in enumerate(getattr(file, table)):
            line = f"{path}:{line_of(text, [table, at])}"
            faults += [f"{line}: no site {s!r}; known here: {', '.join(names)}" for s in entry.sites if s not in names]
            feeder = getattr(entry, "feeder", "")
            fed = {s for f in file.feeders if f.name == feeder for s in (f.sites or names)}
            if feeder and not set(entry.sites or names) <= fed:
                faults.append(f"{line}: no feeder {feeder!r} at every site of {entry.name!r}; add it to [[feeders]]")
    for table in ("classes", "pools"):
        placed = [(s, e.name) for e in getattr(file, table) for s in (e.sites or names)]
        faults += [
            f"{path}:1: {name!r} stands twice at site {site}; rename one of [[{table}]]"
            for at, (site, name) in enumerate(placed)
            if (site, name) in placed[:at]
        ]
    if faults:
        raise SettingsError("\n".join(faults))
    demands = {id(pool): _demand(pool, path) for pool in file.pools}
    return tuple(_plant(file, site, demands) for site in file.sites)


def _plant(file: FleetFile, site: SiteSection, demands: dict[int, Demand]) -> Plant:
    def here(entry: Placed) -> bool:
        return not entry.sites or site.name in entry.sites

    terms = site.contract
    return Plant(
        name=site.name,
        region=site.region,
        time_zone=ZoneInfo(site.time_zone),
        ceiling_w=site.ceiling_mw * 1e6,
        overhead_ratio=site.overhead_ratio,
        fixed_w=site.fixed_mw * 1e6,
        pool_fee_ratio=site.pool_fee_ratio,
        classes=tuple(PlantClass(c.to_class(), c.machines, c.feeder) for c in file.classes if here(c)),
        pools=tuple(_pool(p, demands[id(p)]) for p in file.pools if here(p)),
        feeders=tuple(FeederState(f.name, f.limit_mw * 1e6) for f in file.feeders if here(f)),
        contract=Contract(terms.block_mw * 1e6, terms.usd_per_mwh, terms.sell_back, terms.sell_fee_usd_per_mwh)
        if terms
        else None,
        demand_charge_usd_per_kw=site.demand_charge_usd_per_kw,
        sold=tuple(
            SoldRule(
                s.product, s.power_mw * 1e6, s.notice_s, s.availability_usd_per_mwh, s.penalty_usd_per_mwh,
                s.from_hour, s.until_hour,
            )
            for s in file.sold if here(s)
        ),
        events=tuple(_event(e, site) for e in file.events if here(e)),
    )  # fmt: skip


def _pool(section: PoolSection, demand: Demand) -> PlantPool:
    pool = gpu_pool(
        section.name,
        section.priority,
        section.gpus,
        gpu_max_w=section.gpu_max_w,
        gpu_min_w=section.gpu_min_w,
        gpu_idle_w=section.gpu_idle_w,
        host_w_per_gpu=section.host_w_per_gpu,
    )
    if section.demand_mw is None and not section.demand_csv:
        demand = Demand(pool.max_w, section.demand_by_hour, section.demand_swing_ratio, section.demand_seed)
    return PlantPool(pool, section.usd_per_gpu_hour, demand, section.idle_paid, section.feeder, section.shed_s)


def _demand(section: PoolSection, path: Path) -> Demand:
    """A pool's demand; a trace's times and figures (MW) are read like prices, from any CSV beside the fleet file."""
    if section.demand_csv is None:
        level_w = (section.demand_mw or 0.0) * 1e6 * section.demand_scale
        return Demand(level_w, section.demand_by_hour, section.demand_swing_ratio, section.demand_seed)
    series = read_prices(path.parent / section.demand_csv, low=0.0, high=1e6, price_unit=PriceUnit.USD_PER_MWH)
    watts = series.usd_per_mwh * 1e6 * section.demand_scale
    rows = tuple(zip((series.starts_unix_s - series.starts_unix_s[0]).tolist(), watts.tolist(), strict=True))
    return Demand(float(watts.mean()), trace=rows, trace_span_s=rows[-1][0] + series.width_s)


def _event(section: EventSection, site: SiteSection) -> EventRule:
    if section.ceiling_mw is not None:
        ceiling_w = section.ceiling_mw * 1e6
    else:
        ceiling_w = (section.ceiling_ratio or 0.0) * site.ceiling_mw * 1e6
    once = (_unix(section.start), _unix(section.end)) if section.start and section.end else None
    return EventRule(
        section.name,
        ceiling_w,
        section.notice_h * 3600.0,
        once,
        section.months or tuple(range(1, 13)),
        DAYS[section.days],
        section.from_hour,
        section.until_hour,
    )


def _unix(moment: datetime) -> float:
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _models() -> str:
    return ", ".join(sorted(NAMEPLATE))
