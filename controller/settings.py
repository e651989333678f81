"""The controller's settings: sites, listeners, identity, dispatch, markets, retention.

Every fault is one line with file, line, what is wrong and what to do (gridpivot.settings does the finding).
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, Field, ValidationError, field_validator, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from controller.connection import BacklogSettings, ConnectionSettings, PoolTerms
from controller.dispatch.parameters import Parameters
from controller.dispatch.trigger import Thresholds
from controller.markets.settings import MarketSettings
from controller.store.retention import DAY_S, Retention
from gridpivot.settings import Section
from gridpivot.vocabulary import Posture

DEFAULT_CONFIG = Path("/etc/gridpivot/controller.toml")
DEFAULT_STATE = Path("/var/lib/gridpivot/controller")
ENV_PREFIX = "GRIDPIVOT_CONTROLLER"


def _zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError("not a time zone; use a name such as America/Chicago") from error
    return name


class SiteSettings(Section):
    """One site: its grid connection, its region's prices, how steeply it may move."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")
    region: str = Field(min_length=1)
    ceiling_w: float | None = Field(default=None, description="contractual ceiling [W]")
    ceiling_mw: float | None = Field(default=None, description="the same in MW; give one of the two")
    time_zone: Annotated[str, AfterValidator(_zone)] = "UTC"
    drop_ramp_w_per_min: float = Field(default=0.0, ge=0)  # 0 = no limit
    pick_up_ramp_w_per_min: float = Field(default=0.0, ge=0)  # 0 = no limit
    overhead_ratio: float = Field(default=0.05, ge=0, le=1)  # until the site's meter tells
    pools: dict[str, PoolTerms] = Field(default_factory=dict)  # by pool name
    connection: ConnectionSettings = ConnectionSettings()
    tariff: str | None = None  # one of markets.tariffs, over the region's
    posture: Posture = Posture.HOLD

    @field_validator("ceiling_w", "ceiling_mw")
    @classmethod
    def _positive(cls, value: float | None) -> float | None:
        if value is not None and value <= 0:
            raise ValueError("a ceiling is positive; give what the grid connection allows")
        return value

    @model_validator(mode="after")
    def _one_ceiling(self) -> Self:
        if (self.ceiling_w is None) == (self.ceiling_mw is None):
            raise ValueError(f"site {self.name!r}: give exactly one of ceiling_mw and ceiling_w")
        return self

    @property
    def own_ceiling_w(self) -> float:
        """Contractual ceiling [W]."""
        return self.ceiling_w if self.ceiling_w is not None else (self.ceiling_mw or 0.0) * 1e6


class ListenSettings(Section):
    """Where the controller listens; port 0 lets the system choose."""

    host: str = "0.0.0.0"
    session_port: int = Field(default=7443, ge=0, le=65_535)  # mutual TLS: sites
    operator_port: int = Field(default=7444, ge=0, le=65_535)  # server-only TLS: operators, enrolment
    http_host: str = "127.0.0.1"
    http_port: int = Field(default=9640, ge=0, le=65_535)  # /metrics, /healthz, /readyz
    advertise: str | None = None  # name or address that sites dial; none = first name of the server's certificate


class TlsSettings(Section):
    """Files of identity; relative to the state directory. `gridpivot-controller init` makes them."""

    ca: Path = Path("tls/ca.crt")
    certificate: Path = Path("tls/server.crt")
    key: Path = Path("tls/server.key")
    planner_key: Path = Path("planner.key")  # Ed25519, PEM
    operator_token_file: Path = Path("operator.token")
    site_days: float = Field(default=30.0, gt=0, le=825)  # life of a site's certificate; it renews from half of it


class LinkSettings(Section):
    """Heartbeats and leases. Real time, whatever `dispatch.speed` is."""

    heartbeat_ms: int = Field(default=2_000, ge=100, le=60_000)
    dead_after_ms: int = Field(default=10_000, ge=500, le=600_000)
    lease_s: float = Field(default=120.0, ge=5.0, le=86_400.0)
    window_bytes: int = Field(default=4 * 2**20, ge=64 * 2**10)
    fresh_s: float = Field(default=60.0, gt=0)  # older reports count as unknown

    @model_validator(mode="after")
    def _order(self) -> Self:
        if self.dead_after_ms < 2 * self.heartbeat_ms or self.lease_s * 1000 < 2 * self.heartbeat_ms:
            raise ValueError("dead_after_ms and lease_s must each cover at least two heartbeats; raise them")
        return self


class DispatchSettings(Section):
    """When dispatch runs and what it weighs. `speed` compresses time in demos: prices and periods, never leases."""

    period_s: float = Field(default=300.0, gt=0)
    hold_off_s: float = Field(default=10.0, ge=0)
    look_s: float = Field(default=1.0, gt=0)  # how often the fleet is looked at for a reason to plan
    speed: float = Field(default=1.0, gt=0, le=10_000)
    start_unix_s: float | None = None  # data time when the controller starts; none = now
    deadline_s: float = Field(default=30.0, gt=0)  # a decision that takes longer is not published
    fleet_floor_eh_s: float = Field(default=0.0, ge=0)
    backlogs: tuple[BacklogSettings, ...] = ()
    parameters: Parameters = Parameters()

    def thresholds(self) -> Thresholds:
        """As the trigger wants them."""
        return Thresholds(period_s=self.period_s, hold_off_s=self.hold_off_s)


class RetentionSettings(Section):
    """Days that records are kept."""

    rollups_days: float = Field(default=7, gt=0)
    site_events_days: float = Field(default=90, gt=0)
    decisions_days: float = Field(default=30, gt=0)
    plans_days: float = Field(default=30, gt=0)
    audit_days: float = Field(default=730, gt=0)

    def retention(self) -> Retention:
        """As the store wants it."""
        return Retention(
            self.rollups_days * DAY_S,
            self.site_events_days * DAY_S,
            self.decisions_days * DAY_S,
            self.plans_days * DAY_S,
            self.audit_days * DAY_S,
        )


class LogSettings(Section):
    """How it speaks."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    style: Literal["json", "console"] = "json"


class ControllerSettings(Section):
    """The whole file."""

    state_dir: Path = DEFAULT_STATE
    sites: tuple[SiteSettings, ...] = ()
    listen: ListenSettings = ListenSettings()
    tls: TlsSettings = TlsSettings()
    link: LinkSettings = LinkSettings()
    dispatch: DispatchSettings = DispatchSettings()
    markets: MarketSettings = MarketSettings()
    retention: RetentionSettings = RetentionSettings()
    log: LogSettings = LogSettings()

    @field_validator("sites", mode="before")
    @classmethod
    def _unique(cls, value: Any) -> Any:
        names = [site.get("name") for site in value if isinstance(site, dict)] if isinstance(value, list) else []
        for index, name in enumerate(names):
            if name is not None and name in names[:index]:
                fault = PydanticCustomError(
                    "duplicate_site", "second site of this name; rename or remove one of the two"
                )
                where = InitErrorDetails(type=fault, loc=(index, "name"), input=name)
                raise ValidationError.from_exception_data("sites", [where])
        return value

    @model_validator(mode="after")
    def _tariffs_exist(self) -> Self:
        for site in self.sites:
            if site.tariff is not None and site.tariff not in self.markets.tariffs:
                known = ", ".join(sorted(self.markets.tariffs)) or "none"
                raise ValueError(f"site {site.name!r} names tariff {site.tariff!r}; tariffs are: {known}")
        return self

    def path(self, relative: Path) -> Path:
        """A file of the state directory; an absolute path stays what it is."""
        return self.state_dir / relative

    def site(self, name: str) -> SiteSettings:
        """One site; raises KeyError for an unknown one."""
        for site in self.sites:
            if site.name == name:
                return site
        raise KeyError(name)
