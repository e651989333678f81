"""The controller's answers as the documents that `--json` prints. Absent fields become null, never zero."""

from __future__ import annotations

from typing import Any

from google.protobuf.message import Message

from gridpivot import dispatch_shapes as decided
from gridpivot import shapes
from gridpivot.shapes import utc
from gridpivot.shapes_site import EnergyFigures, SiteShape
from gridpivot.v1 import operator_pb2 as op
from gridpivot.v1 import plan_pb2
from gridpivot.v1 import telemetry_pb2 as pb
from gridpivot.vocabulary import COMMANDABLE_MODES, DeviceState


def _known(message: Message, field: str) -> Any:
    return getattr(message, field) if message.HasField(field) else None


def _figures(site: op.SiteSummary) -> dict[str, Any]:
    figures: dict[str, Any] = {
        "site": site.site,
        "region": site.region,
        "link": site.link,
        "plan_status": site.plan_status or None,
        "device_count": site.device_count,
        "notes": list(site.notes),
        "binding": site.binding,
        "shadow_price_usd_per_mwh": _known(site, "shadow_price_usd_per_mwh"),
    }
    for field in ("report_age_s", "plan_age_s", "price_usd_per_mwh", "price_age_s", "margin_usd_per_h"):
        figures[field] = _known(site, field)
    return figures | (_rollup(site.rollup) if site.HasField("rollup") else {})


def _rollup(rollup: pb.SiteRollup) -> dict[str, Any]:
    measured = (
        "metered_power_w",
        "mining_power_w",
        "ai_power_w",
        "overhead_power_w",
        "unattributed_power_w",
        "hashrate_hs",
    )
    return {field: _known(rollup, field) for field in measured} | {
        "ceiling_w": rollup.live_ceiling_w,
        "site_ceiling_w": rollup.site_ceiling_w,
        "assumed_power_w": rollup.assumed_power_w,
        "meter_trust": rollup.meter_trust or None,
        "rung": rollup.rung or None,
        "stage": rollup.stage or None,
        "plan_epoch": rollup.plan_epoch or None,
        "plan_version": rollup.plan_version or None,
        "spool_records": rollup.spool_records,
        "commands": rollup.commands_total,
        "commands_confirmed": rollup.commands_confirmed_total,
        "commands_short": rollup.commands_short_total,
    }


def sites_shape(answer: op.ListSitesResponse) -> shapes.SitesShape:
    """`sites`."""
    fleet = answer.fleet
    same = (
        "sites",
        "sites_connected",
        "devices_reporting",
        "power_w",
        "mining_power_w",
        "ai_power_w",
        "overhead_power_w",
        "hashrate_hs",
        "margin_usd_per_h",
        "last_dispatch_reason",
        "reports_received",
    )
    return shapes.SitesShape(
        fleet=shapes.FleetFigures(
            **{field: getattr(fleet, field) for field in same},
            hashprice_usd_per_ph_day=_known(fleet, "hashprice_usd_per_ph_day"),
            last_dispatch_at=utc(_known(fleet, "last_dispatch_at_unix_ms")),
        ),
        sites=[shapes.SiteFigures(**_figures(site)) for site in answer.sites],
    )


def site_shape(site: op.SiteSummary) -> SiteShape:
    """`site NAME`."""
    states, modes = [s.value for s in DeviceState], [m.value for m in COMMANDABLE_MODES]
    return SiteShape(
        **_figures(site),
        classes=[
            shapes.ClassFigures(
                name=c.name,
                state_counts=dict(zip(states, c.state_counts, strict=False)),
                mode_counts=dict(zip(modes, c.mode_counts, strict=False)),
                power_w=c.power_w,
                hashrate_hs=c.hashrate_hs,
                available=c.available,
                silent=c.silent,
            )
            for c in site.rollup.classes
        ],
        pools=[
            shapes.PoolFigures(
                name=p.name,
                power_w=_known(p, "power_w"),
                limit_w=p.limit_w,
                demand_w=_known(p, "demand_w"),
                gpus_present=p.gpus_present,
            )
            for p in site.rollup.pools
        ],
        energy=_energy(site.rollup.energy) if site.rollup.HasField("energy") else None,
    )


def _energy(totals: pb.EnergyTotals) -> EnergyFigures:
    same = [name for name in EnergyFigures.model_fields if name != "ledger"]
    return EnergyFigures(ledger=totals.ledger_id.hex(), **{name: getattr(totals, name) for name in same})


def plan_shape(site: str, answer: op.GetPlanResponse) -> shapes.PlanShape:
    """`plan SITE`."""
    statuses = [
        shapes.StatusFigures(
            epoch=s.epoch,
            version=s.version,
            status=s.status,
            reason=s.reason,
            metered_power_w=_known(s, "metered_power_w"),
            clipped_to_w=dict(s.clipped_to_w),
        )
        for s in answer.statuses
    ]
    if not answer.HasField("plan"):
        return shapes.PlanShape(site=site, statuses=statuses)
    plan = answer.plan
    class_fields = tuple(shapes.ClassTargetFigures.model_fields)
    return shapes.PlanShape(
        site=plan.site,
        epoch=plan.epoch,
        version=plan.version,
        issued_at=utc(plan.issued_at_unix_ms),
        not_before=utc(plan.not_before_unix_ms),
        valid_for_ms=plan.valid_for_ms,
        ceiling_w=plan.ceiling_w,
        expected_power_w=plan.expected_power_w,
        drop_ramp_w_per_min=plan.drop_ramp_w_per_min,
        pick_up_ramp_w_per_min=plan.pick_up_ramp_w_per_min,
        fallback_posture=plan.fallback.posture,
        fallback_ceiling_w=plan.fallback.ceiling_w,
        reason=plan.reason,
        classes=[shapes.ClassTargetFigures(**{f: getattr(c, f) for f in class_fields}) for c in plan.classes],
        pools=[_pool_target(p) for p in plan.pools],
        events=[
            shapes.WindowFigures(
                event_id=e.event_id,
                ceiling_w=e.ceiling_w,
                starts_at=utc(e.starts_at_unix_ms),
                ends_at=utc(_known(e, "ends_at_unix_ms")),
                reason=e.reason,
            )
            for e in plan.events
        ],
        statuses=statuses,
    )


def _pool_target(pool: plan_pb2.PoolTarget) -> shapes.PoolTargetFigures:
    same = ("name", "max_w", "expected_w", "fallback_w", "value_usd_per_mwh")
    return shapes.PoolTargetFigures(
        **{field: getattr(pool, field) for field in same},
        admits=_known(pool, "admits"),
        nodes=[shapes.NodeFallbackFigures(name=n.name, fallback_w=n.fallback_w) for n in pool.nodes],
    )


def explain_shape(answer: op.ExplainResponse) -> shapes.ExplainShape:
    """`explain SITE`."""
    binding_fields, merit_fields = tuple(shapes.BindingFigures.model_fields), tuple(shapes.MeritFigures.model_fields)
    return shapes.ExplainShape(
        site=answer.site,
        decided_at=utc(answer.decided_at_unix_ms),
        trigger=answer.trigger,
        binding=[shapes.BindingFigures(**{f: getattr(b, f) for f in binding_fields}) for b in answer.binding],
        merit=[shapes.MeritFigures(**{f: getattr(m, f) for f in merit_fields}) for m in answer.merit],
        sentences=list(answer.sentences),
        rung=answer.rung or None,
        rung_reason=answer.rung_reason,
        worth=_worth(answer.worth) if answer.HasField("worth") else None,
        outlook=[_period(period, answer.decided_at_unix_ms) for period in answer.outlook],
        queues=[_queue(entry) for entry in answer.queues],
    )


def _queue(entry: op.QueueEntry) -> shapes.QueueFigures:
    told = ("pool", "running_gpu_h", "pending_gpu_h", "deferrable_gpu_h", "admitting", "backlog")
    unknown = ("busy_gpus", "due_in_s", "demand_w", "demand_in_1_h_w", "demand_in_4_h_w", "admits")
    figures = {field: getattr(entry, field) for field in told} | {field: _known(entry, field) for field in unknown}
    return shapes.QueueFigures(**figures)


def _period(period: op.OutlookPeriod, decided_at_unix_ms: int) -> shapes.OutlookFigures:
    same = ("width_s", "price_usd_per_mwh", "ceiling_w", "import_w", "mining_w", "ai_w")
    return shapes.OutlookFigures(
        starts_at=utc(decided_at_unix_ms + round(period.starts_in_s * 1000)),
        **{field: getattr(period, field) for field in same},
        shadow=[shapes.ShadowFigures(name=s.name, kind=s.kind, usd_per_mwh=s.usd_per_mwh) for s in period.shadow],
    )


def _worth(worth: op.Worth) -> shapes.WorthFigures:
    return shapes.WorthFigures(
        interconnect_usd_per_mw=worth.interconnect_usd_per_mw,
        feeder_usd_per_mw={e.name: e.usd for e in worth.feeders},
        promised_gpu_usd={e.name: e.usd for e in worth.promised_gpus},
        sold_usd_per_mw={e.name: e.usd for e in worth.sold},
        notice_usd={e.name: e.usd for e in worth.notice},
    )


def preview_shape(answer: op.PreviewEventResponse) -> decided.PreviewShape:
    """`plan preview`."""
    modes = [m.value for m in COMMANDABLE_MODES]
    same = [f for f in decided.SitePreviewFigures.model_fields if f not in ("classes", "pools")]
    pool_fields = tuple(decided.PoolPreviewFigures.model_fields)
    sites = []
    for s in answer.sites:
        classes = []
        for c in s.classes:
            before = {f"{mode}_machines_before": n for mode, n in zip(modes, c.before, strict=True)}
            after = {f"{mode}_machines_after": n for mode, n in zip(modes, c.after, strict=True)}
            classes.append(decided.ClassPreviewFigures(name=c.name, **before, **after))
        pools = [decided.PoolPreviewFigures(**{f: getattr(p, f) for f in pool_fields}) for p in s.pools]
        figures = {field: getattr(s, field) for field in same}
        sites.append(decided.SitePreviewFigures(**figures, classes=classes, pools=pools))
    return decided.PreviewShape(
        cost_usd=answer.cost_usd,
        notice_usd=answer.notice_usd,
        horizon_s=answer.horizon_s,
        solve_s=answer.solve_s,
        sites=sites,
        left_out=list(answer.left_out),
    )


def decisions_shape(answer: op.ListDecisionsResponse) -> decided.DecisionsShape:
    """`decisions`."""
    return decided.DecisionsShape(
        decisions=[
            decided.DecisionFigures(
                decision_id=d.decision_id,
                decided_at=utc(d.decided_at_unix_ms),
                trigger=d.trigger,
                rung=d.rung or None,
                objective_usd=_known(d, "objective_usd"),
                plans=d.plans,
            )
            for d in answer.decisions
        ]
    )


def replay_shape(answer: op.ReplayDecisionResponse) -> decided.ReplayShape:
    """`replay DECISION`."""
    return decided.ReplayShape(
        decision_id=answer.decision_id,
        decided_at=utc(answer.decided_at_unix_ms),
        same=answer.same,
        differences=list(answer.differences),
        sites=answer.sites,
        plans=answer.plans,
        solver=answer.solver,
        solve_s=answer.solve_s,
    )
