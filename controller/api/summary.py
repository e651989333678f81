"""A site and the fleet as operators see them. Unknown stays absent; what is unusual is said in words."""

from __future__ import annotations

from collections.abc import Sequence

from controller.dispatch.inputs import SiteDecision, SiteState
from controller.fleet.state import margin_usd_per_h
from controller.fleet.tables import SiteLive
from controller.operations import Operations
from controller.planner import PlanLoop
from gridpivot.clock import Instant
from gridpivot.v1 import operator_pb2 as op
from gridpivot.vocabulary import DeviceState, LinkState, MeterTrust, PlanState, Rung

SILENT = DeviceState.UNREACHABLE.code
SILENT_RATIO = 0.05  # more silent miners than this are worth a word
NEAR_RATIO = 0.98


def site_summary(
    operations: Operations, live: SiteLive, state: SiteState | None, decided: SiteDecision | None, now: Instant
) -> op.SiteSummary:
    """One site now; `decided` is its part of the newest decision."""
    dearest = decided.binding[0] if decided is not None and decided.binding else None
    posted = operations.board.posted(live.name)
    price, price_age_s = operations.book.usd_per_mwh(live.region, now)
    margin = None
    if state is not None and live.rollup is not None:
        margin = margin_usd_per_h(state, live.rollup, operations.book.hashprice(now)[0])
    return op.SiteSummary(
        site=live.name,
        region=live.region,
        link=live.link.value,
        report_age_s=live.rollup_age_s(now),
        rollup=live.rollup,
        plan_age_s=None if posted is None else now.monotonic_s - posted.at.monotonic_s,
        plan_status="" if posted is None else posted.state.value,
        device_count=live.device_count,
        price_usd_per_mwh=price,
        price_age_s=price_age_s,
        margin_usd_per_h=margin,
        notes=notes(operations, live, now),
        binding="" if dearest is None else dearest.name,
        shadow_price_usd_per_mwh=None if dearest is None else dearest.shadow_price_usd_per_mwh,
    )


def notes(operations: Operations, live: SiteLive, now: Instant) -> list[str]:
    """What is wrong or unusual at a site, in words."""
    said: list[str] = []
    rollup = live.rollup
    if live.link is LinkState.NEVER_SEEN:
        return ["never connected"]
    if live.link is LinkState.SILENT:
        said.append("link lost")
    ceiling_w = operations.ceiling_w(live.name, now)
    if ceiling_w < operations.terms[live.name].ceiling_w:
        said.append(f"ceiling lowered to {ceiling_w / 1e6:.2f} MW")
    if rollup is not None and rollup.HasField("local_ceiling_w"):
        said.append(f"ordered by hand at the site: at most {rollup.local_ceiling_w / 1e6:.2f} MW")
    if rollup is not None and rollup.degraded:
        said.append("the site's disk refuses: nothing is raised there")
    posted = operations.board.posted(live.name)
    if posted is not None and posted.state in (PlanState.REJECTED, PlanState.CLIPPED, PlanState.EXPIRED):
        said.append(f"plan {posted.state.value}" + (f" ({posted.state_reason})" if posted.state_reason else ""))
    if rollup is None:
        return [*said, "no roll-up yet"]
    if rollup.meter_trust not in ("", MeterTrust.TRUSTED):
        said.append(f"meter {rollup.meter_trust}")
    if rollup.rung not in ("", Rung.PLAN):
        said.append(f"on rung {rollup.rung}")
    if rollup.HasField("metered_power_w") and rollup.metered_power_w > ceiling_w:
        said.append(
            f"{(rollup.metered_power_w / ceiling_w - 1) * 100:.1f} % above its ceiling" if ceiling_w else "power"
        )
    elif rollup.HasField("metered_power_w") and rollup.metered_power_w > NEAR_RATIO * ceiling_w:
        said.append("near its ceiling")
    silent = sum(c.silent for c in rollup.classes)
    if live.device_count and silent > SILENT_RATIO * live.device_count:
        said.append(f"{silent} silent miners")
    return said


def fleet_summary(
    operations: Operations, sites: Sequence[op.SiteSummary], loop: PlanLoop, now: Instant
) -> op.FleetSummary:
    """Totals over sites with a fresh roll-up."""
    totals = operations.fleet.totals(now, operations.fresh_s)
    change = loop.last_change
    return op.FleetSummary(
        sites=len(operations.fleet),
        sites_connected=operations.fleet.sites_connected(),
        devices_reporting=operations.fleet.devices_reporting(now, operations.fresh_s),
        power_w=totals.power_w,
        mining_power_w=totals.mining_power_w,
        ai_power_w=totals.ai_power_w,
        overhead_power_w=totals.overhead_power_w,
        hashrate_hs=totals.hashrate_hs,
        margin_usd_per_h=sum(s.margin_usd_per_h for s in sites if s.HasField("margin_usd_per_h")),
        hashprice_usd_per_ph_day=operations.book.hashprice(now)[0],
        last_dispatch_at_unix_ms=None if change is None else change[0].unix_ms,
        last_dispatch_reason="" if change is None else change[1],
        reports_received=operations.records_committed(),
    )
