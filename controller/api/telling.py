"""What dispatch explains, previews and remembers, in the words of the wire. No decisions are taken here."""

from __future__ import annotations

from controller.dispatch.constraints import kind_of
from controller.dispatch.explain import Ahead, Explanation
from controller.dispatch.explain_queue import QueuePart
from controller.dispatch.inputs import Worth
from controller.dispatch.preview import Preview, SitePreview
from controller.events.windows import Order
from controller.replay import Replay
from controller.store.ledger import AuditEntry, DecisionLine, DecisionRecord
from gridpivot.v1 import operator_pb2 as op

Named = tuple[tuple[str, float], ...]


def explained(told: Explanation, decided_at_unix_ms: int, notice_usd: Named = ()) -> op.ExplainResponse:
    """An explanation; `notice_usd` is what an hour more notice of each coming event would be worth."""
    return op.ExplainResponse(
        site=told.site,
        decided_at_unix_ms=decided_at_unix_ms,
        trigger=told.trigger,
        binding=[
            op.BindingConstraint(name=b.name, limit=b.limit, shadow_price_usd_per_mwh=b.shadow_price_usd_per_mwh)
            for b in told.binding
        ],
        merit=[
            op.MeritEntry(
                name=m.name,
                load=m.load.value,
                value_usd_per_mwh=m.value_usd_per_mwh,
                planned_w=m.planned_w,
                available_w=m.available_w,
                why=m.why,
            )
            for m in told.merit
        ],
        sentences=[
            *told.sentences,
            *(
                f"One hour more notice of event {event} (the same event an hour later) would be worth {usd:.2f} USD."
                for event, usd in notice_usd
            ),
        ],
        rung=told.rung.value,
        rung_reason=told.rung_reason,
        outlook=[_period(one) for one in told.ahead],
        worth=None if told.worth is None else _worth(told.worth, notice_usd),
        queues=[_queue(part) for part in told.queues],
    )


def _queue(part: QueuePart) -> op.QueueEntry:
    return op.QueueEntry(
        pool=part.pool,
        running_gpu_h=part.queue.running_gpu_h,
        pending_gpu_h=part.queue.pending_gpu_h,
        deferrable_gpu_h=part.queue.deferrable_gpu_h,
        busy_gpus=part.queue.busy_gpus,
        admitting=part.queue.admitting,
        backlog=part.backlog,
        due_in_s=part.due_in_s,
        demand_w=part.demand_w,
        demand_in_1_h_w=part.demand_in_1_h_w,
        demand_in_4_h_w=part.demand_in_4_h_w,
        admits=part.admits,
    )


def _period(one: Ahead) -> op.OutlookPeriod:
    p = one.period
    return op.OutlookPeriod(
        starts_in_s=p.starts_in_s,
        width_s=p.width_s,
        price_usd_per_mwh=p.price_usd_per_mwh,
        ceiling_w=p.ceiling_w,
        import_w=p.import_w,
        mining_w=p.mining_w,
        ai_w=p.ai_w,
        shadow=[op.ShadowPrice(name=name, kind=kind_of(name).value, usd_per_mwh=usd) for name, usd in one.shadow],
    )


def _worth(worth: Worth, notice_usd: Named) -> op.Worth:
    return op.Worth(
        interconnect_usd_per_mw=worth.interconnect_usd_per_mw,
        feeders=_entries(worth.feeder_usd_per_mw),
        promised_gpus=_entries(worth.promised_gpu_usd),
        sold=_entries(worth.sold_usd_per_mw),
        notice=_entries(notice_usd),
    )


def _entries(named: Named) -> list[op.WorthEntry]:
    return [op.WorthEntry(name=name, usd=usd) for name, usd in named]


def previewed(preview: Preview) -> op.PreviewEventResponse:
    """A preview."""
    return op.PreviewEventResponse(
        sites=[_site(site) for site in preview.sites],
        left_out=list(preview.left_out),
        cost_usd=preview.cost_usd,
        notice_usd=preview.notice_usd,
        horizon_s=preview.horizon_s,
        solve_s=preview.solve_s,
    )


def _site(site: SitePreview) -> op.SitePreview:
    (import_before, mining_before, ai_before), (import_after, mining_after, ai_after) = site.before_w, site.after_w
    return op.SitePreview(
        site=site.site,
        ceiling_w=site.ceiling_w,
        import_before_w=import_before,
        import_after_w=import_after,
        mining_before_w=mining_before,
        mining_after_w=mining_after,
        ai_before_w=ai_before,
        ai_after_w=ai_after,
        over_w=site.over_w,
        classes=[op.ClassPreview(name=c.name, before=c.before, after=c.after) for c in site.classes],
        pools=[
            op.PoolPreview(name=p.name, priority=p.priority.value, before_w=p.before_w, after_w=p.after_w)
            for p in site.pools
        ],
    )


def listed(lines: list[DecisionLine]) -> op.ListDecisionsResponse:
    """Decisions, oldest first."""
    return op.ListDecisionsResponse(
        decisions=[
            op.DecisionLine(
                decision_id=line.decision_id,
                decided_at_unix_ms=line.decided_at_unix_ms,
                trigger=line.trigger,
                rung=line.rung or "",
                objective_usd=line.objective_usd,
                plans=line.plans,
            )
            for line in lines
        ]
    )


def replayed(record: DecisionRecord, done: Replay) -> op.ReplayDecisionResponse:
    """Whether a decision came out the same."""
    return op.ReplayDecisionResponse(
        decision_id=record.decision_id,
        decided_at_unix_ms=record.decided_at.unix_ms,
        same=done.same,
        differences=list(done.differences),
        sites=len(done.decision.sites),
        plans=done.plans,
        solver=done.decision.solver,
        solve_s=done.decision.solve_s,
    )


def events(lines: list[tuple[Order, str, float]]) -> op.ListEventsResponse:
    """Orders with state and lowest ceiling [W]."""
    return op.ListEventsResponse(
        events=[
            op.EventLine(
                event_id=order.order_id,
                kind=order.kind.value,
                sites=order.sites,
                state=state,
                starts_at_unix_ms=order.starts_at_unix_ms,
                ends_at_unix_ms=order.ends_at_unix_ms,
                ceiling_w=ceiling_w,
                reason=order.reason,
                product=order.product,
            )
            for order, state, ceiling_w in lines
        ]
    )


def audited(entries: list[AuditEntry]) -> op.ListAuditResponse:
    """Audit records, oldest first."""
    return op.ListAuditResponse(
        lines=[
            op.AuditLine(
                audit_id=entry.audit_id,
                at_unix_ms=entry.at_unix_ms,
                actor=entry.actor,
                role=entry.role,
                origin=entry.origin,
                action=entry.action,
                reason=entry.reason,
                request=entry.request,
            )
            for entry in entries
        ]
    )
