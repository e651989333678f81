"""Every JSON document that a command prints, as a model.

`schema_version` comes first, names are snake_case with their units, times are RFC 3339 in UTC, null is unknown.
A field may be added within a version; taking one away or changing its meaning raises the version. Golden files in
tests/unit/golden hold each shape.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict


def utc(unix_ms: int | None) -> datetime | None:
    """Milliseconds since the Unix epoch as UTC; None and 0 (never) give None."""
    return datetime.fromtimestamp(unix_ms / 1000, UTC) if unix_ms else None


class Figures(BaseModel):
    """Base of every part of a document."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Document(Figures):
    """Base of every whole document."""

    schema_version: Literal[1] = 1


class ClassFigures(Figures):
    """Miners of one class at a site."""

    name: str
    state_counts: dict[str, int]
    mode_counts: dict[str, int]
    power_w: float
    hashrate_hs: float
    available: int
    silent: int


class PoolFigures(Figures):
    """One AI pool at a site."""

    name: str
    power_w: float | None
    limit_w: float
    demand_w: float | None
    gpus_present: int


class SiteFigures(Figures):
    """One site now."""

    site: str
    region: str
    link: str
    report_age_s: float | None = None
    ceiling_w: float | None = None
    site_ceiling_w: float | None = None
    metered_power_w: float | None = None
    assumed_power_w: float | None = None
    mining_power_w: float | None = None
    ai_power_w: float | None = None
    overhead_power_w: float | None = None
    unattributed_power_w: float | None = None
    hashrate_hs: float | None = None
    meter_trust: str | None = None
    rung: str | None = None
    stage: str | None = None
    plan_epoch: int | None = None
    plan_version: int | None = None
    plan_age_s: float | None = None
    plan_status: str | None = None
    device_count: int = 0
    spool_records: int | None = None
    commands: int | None = None
    commands_confirmed: int | None = None
    commands_short: int | None = None
    price_usd_per_mwh: float | None = None
    price_age_s: float | None = None
    margin_usd_per_h: float | None = None
    notes: list[str] = []
    binding: str = ""  # dearest constraint of the newest decision; empty = none binds
    shadow_price_usd_per_mwh: float | None = None


class FleetFigures(Figures):
    """Totals over the sites with a fresh report."""

    sites: int
    sites_connected: int
    devices_reporting: int
    power_w: float
    mining_power_w: float
    ai_power_w: float
    overhead_power_w: float
    hashrate_hs: float
    margin_usd_per_h: float
    hashprice_usd_per_ph_day: float | None
    last_dispatch_at: datetime | None
    last_dispatch_reason: str
    reports_received: int


class SitesShape(Document):
    """`gridpivot sites --json`."""

    fleet: FleetFigures
    sites: list[SiteFigures]


class ClassTargetFigures(Figures):
    """Machines of one class by mode."""

    name: str
    sleep_machines: float
    low_machines: float
    normal_machines: float
    turbo_machines: float
    value_usd_per_mwh: float


class NodeFallbackFigures(Figures):
    """What one node of a pool falls back to."""

    name: str
    fallback_w: float


class PoolTargetFigures(Figures):
    """Power of one pool. `admits`: whether new work may start; null = the site decides."""

    name: str
    max_w: float
    expected_w: float
    fallback_w: float
    value_usd_per_mwh: float
    admits: bool | None = None
    nodes: list[NodeFallbackFigures] = []


class WindowFigures(Figures):
    """One grid event; `ends_at` null = until released."""

    event_id: str
    ceiling_w: float
    starts_at: datetime | None
    ends_at: datetime | None
    reason: str


class StatusFigures(Figures):
    """What a site said about a plan."""

    epoch: int
    version: int
    status: str
    reason: str
    metered_power_w: float | None
    clipped_to_w: dict[str, float]


class PlanShape(Document):
    """`gridpivot plan SITE --json`. Without a plan yet, `epoch` is null and the lists are empty."""

    site: str
    epoch: int | None = None
    version: int | None = None
    issued_at: datetime | None = None
    not_before: datetime | None = None
    valid_for_ms: int | None = None
    ceiling_w: float | None = None
    expected_power_w: float | None = None
    drop_ramp_w_per_min: float | None = None
    pick_up_ramp_w_per_min: float | None = None
    fallback_posture: str | None = None
    fallback_ceiling_w: float | None = None
    reason: str | None = None
    classes: list[ClassTargetFigures] = []
    pools: list[PoolTargetFigures] = []
    events: list[WindowFigures] = []
    statuses: list[StatusFigures] = []


class BindingFigures(Figures):
    """A constraint without slack."""

    name: str
    limit: float
    shadow_price_usd_per_mwh: float


class MeritFigures(Figures):
    """One line of the merit order."""

    name: str
    load: str
    value_usd_per_mwh: float
    planned_w: float
    available_w: float
    why: str


class ShadowFigures(Figures):
    """What one more MWh under a constraint would earn in a period."""

    name: str
    kind: str
    usd_per_mwh: float


class OutlookFigures(Figures):
    """One period of a site's plan ahead; `shadow` holds the constraints that bind in it, dearest first."""

    starts_at: datetime | None
    width_s: float
    price_usd_per_mwh: float
    ceiling_w: float
    import_w: float
    mining_w: float
    ai_w: float
    shadow: list[ShadowFigures]


class QueueFigures(Figures):
    """A pool's queue [GPU-hours at full throughput] and its part in the plan; null = not known, or not said."""

    pool: str
    running_gpu_h: float
    pending_gpu_h: float
    deferrable_gpu_h: float
    busy_gpus: float | None = None
    admitting: bool
    backlog: str = ""
    due_in_s: float | None = None
    demand_w: float | None = None
    demand_in_1_h_w: float | None = None
    demand_in_4_h_w: float | None = None
    admits: bool | None = None


class WorthFigures(Figures):
    """What changes at a site would be worth over the horizon [USD]: one more MW, one promised GPU or sold MW less,
    one hour more notice; by feeder, pool, product and event."""

    interconnect_usd_per_mw: float
    feeder_usd_per_mw: dict[str, float]
    promised_gpu_usd: dict[str, float]
    sold_usd_per_mw: dict[str, float]
    notice_usd: dict[str, float]


class ExplainShape(Document):
    """`gridpivot explain SITE --json`. Where nothing was solved `worth` is null and `outlook` empty."""

    site: str
    decided_at: datetime | None
    trigger: str
    binding: list[BindingFigures]
    merit: list[MeritFigures]
    sentences: list[str]
    rung: str | None = None
    rung_reason: str = ""
    worth: WorthFigures | None = None
    outlook: list[OutlookFigures] = []
    queues: list[QueueFigures] = []


class OverrideShape(Document):
    """`gridpivot override SITE --json`. `ceiling_w` is the effective ceiling afterwards."""

    site: str
    released: bool
    ceiling_w: float
    audit_id: str


class EventShape(Document):
    """`gridpivot event create --json`."""

    event_id: str
    sites: list[str]
    audit_id: str


class CheckConfigShape(Document):
    """`gridpivot-agent|gridpivot-controller check-config --json`. One problem per line of settings at fault."""

    path: str | None
    ok: bool
    problems: list[str]
    notes: list[str] = []


class SpoolFigures(Figures):
    """What waits in one lane of an agent's spool."""

    lane: str
    records: int
    bytes: int
    oldest_age_s: float | None = None


class AgentStatusShape(Document):
    """`gridpivot-agent status --json`; works while the agent is down, from what it left on disk."""

    site: str
    agent_version: str
    running: bool
    observed_at: datetime | None = None
    link: str | None = None
    stage: str | None = None
    rung: str | None = None
    meter_trust: str | None = None
    metered_power_w: float | None = None
    assumed_power_w: float | None = None
    mining_power_w: float | None = None
    ai_power_w: float | None = None
    live_ceiling_w: float | None = None
    hashrate_hs: float | None = None
    device_count: int | None = None
    state_counts: dict[str, int] = {}
    plan_epoch: int | None = None
    plan_version: int | None = None
    lease_remaining_s: float | None = None
    certificate_ends_at: datetime | None = None
    spool: list[SpoolFigures] = []
    notes: list[str] = []


class DecodeShape(Document):
    """`gridpivot-agent decode`: a recorded reply as the normalised reading. `repairs` counts malformations mended,
    `unused` names replies that no request of the family asks for."""

    family: str
    outcome: str
    detail: str = ""
    model: str | None = None
    firmware: str | None = None
    mac_address: str | None = None
    power_w: float | None = None
    hashrate_hs: float | None = None
    temp_c: float | None = None
    state: str | None = None
    mode: str | None = None
    reason: str | None = None
    provenance: str | None = None
    accepted_shares: int | None = None
    uptime_s: float | None = None
    fan_rpm: float | None = None
    power_limit_w: float | None = None
    serial: str | None = None
    pool_url: str | None = None
    board_serials: list[str] = []
    fault_codes: list[str] = []
    repairs: dict[str, int] = {}
    unused: list[str] = []


class LockFigures(Figures):
    """One maintenance lock; `device_count` null = no inventory could be read."""

    target: str
    kind: str
    mac_address: str | None
    by: str
    reason: str
    set_at: datetime
    device_count: int | None


class LocksShape(Document):
    """`gridpivot-agent locks --json`."""

    site: str
    locks: list[LockFigures] = []


class DiscoveredShape(Figures):
    """One address that answered. `family` is null where no family knows it; `note` says what was withheld."""

    host: str
    family: str | None
    model: str | None
    firmware: str | None
    mac_address: str | None
    serial: str | None
    power_w: float | None
    hashrate_hs: float | None
    note: str = ""


class DiscoveryShape(Document):
    """`gridpivot-agent discover`: what was looked at, what answered, and what that changes in the inventory."""

    addresses: int
    added: int
    moved: int
    swapped: int
    left_out: int
    devices: list[DiscoveredShape]


class CheckFigures(Figures):
    """One check of the doctor; `remedy` says what to do unless the outcome is ok."""

    name: str
    outcome: Literal["ok", "warning", "failed", "skipped"]
    detail: str
    remedy: str = ""


class DoctorShape(Document):
    """`doctor --json`."""

    ok: bool
    checks: list[CheckFigures]
