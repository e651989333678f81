"""AI pools of a roll-up as documents and tables: the same for the controller's operators and for a technician at the site."""

from __future__ import annotations

from rich.console import Group
from rich.markup import escape

from gridpivot.shapes_ai import AiPoolFigures, CurvePointFigures, LeverFigures, SiteAiShape, WorkFigures
from gridpivot.tables import DASH, age, mw, table, yes
from gridpivot.v1 import telemetry_pb2 as pb


def pool_figures(pool: pb.PoolRollup) -> AiPoolFigures:
    """One pool as a roll-up carries it."""
    levers = [_lever(lever) for lever in pool.levers]
    return AiPoolFigures(
        name=pool.name,
        power_w=pool.power_w if pool.HasField("power_w") else None,
        limit_w=pool.limit_w,
        demand_w=pool.demand_w if pool.HasField("demand_w") else None,
        gpus_present=pool.gpus_present,
        power_provenance=pool.power_provenance,
        admitting=pool.admitting if pool.HasField("admitting") else None,
        workload_trouble=pool.workload_trouble,
        promised_w=sum(lever.promised_w for lever in levers),
        delivered_w=sum(min(lever.delivered_w, lever.promised_w) for lever in levers),
        promised_total_w=pool.promised_total_w,
        delivered_total_w=pool.delivered_total_w,
        levers=levers,
        work=[_work(work) for work in pool.work],
        curve=[_point(point) for point in pool.curve],
    )


def _lever(lever: pb.LeverRollup) -> LeverFigures:
    short_w = max(0.0, lever.promised_w - lever.delivered_w) if lever.state == "short" else 0.0
    return LeverFigures(
        order_id=lever.order_id,
        lever=lever.lever,
        state=lever.state,
        outcome=lever.outcome,
        promised_w=lever.promised_w,
        delivered_w=lever.delivered_w,
        short_w=short_w,
        promised_s=lever.promised_s,
        work_lost_gpu_h=lever.work_lost_gpu_h,
        subjects=lever.subjects,
        detail=lever.detail,
    )


def _work(work: pb.WorkRollup) -> WorkFigures:
    known = {field.name: value for field, value in work.ListFields() if field.name in _WORK}
    return WorkFigures(priority=work.priority, **known)


_WORK = ("running_gpu_h", "pending_gpu_h", "deferrable_gpu_h")


def _point(point: pb.PoolPoint) -> CurvePointFigures:
    sd = point.throughput_sd if point.HasField("throughput_sd") else None
    return CurvePointFigures(power_w=point.power_w, throughput_ratio=point.throughput_ratio, throughput_sd=sd)


def ai_table(shape: SiteAiShape) -> Group:
    """For people."""
    numbers = ("power", "limit", "demand", "GPUs", "promised", "delivered")
    pools = table("", "pool", "by", *numbers, "admits", "work running / waiting / deferrable, GPU-h", numbers=numbers)
    for p in shape.pools:
        pools.add_row(
            p.name,
            p.power_provenance or DASH,
            *map(mw, (p.power_w, p.limit_w, p.demand_w)),
            str(p.gpus_present),
            *map(mw, (p.promised_w, p.delivered_w)),
            yes(p.admitting),
            "; ".join(map(_spoken, p.work)) or escape(p.workload_trouble) or DASH,
        )
    columns = ("promised", "delivered", "seconds", "lost GPU-h", "of")
    levers = table("", "pool", "lever", "state", "outcome", *columns, "detail", numbers=columns)
    for p in shape.pools:
        for one in p.levers:
            levers.add_row(
                p.name,
                one.lever,
                one.state,
                one.outcome,
                mw(one.promised_w),
                mw(one.delivered_w),
                f"{one.promised_s:.0f}",
                f"{one.work_lost_gpu_h:.1f}",
                str(one.subjects),
                escape(one.detail),
            )
    pulled = [levers] if any(p.levers for p in shape.pools) else ["no lever is pulled"]
    heard = f"{shape.site}: AI {mw(shape.ai_power_w)}, last roll-up {age(shape.report_age_s)} ago"
    return Group(heard, *([pools, *pulled] if shape.pools else ["no AI pools here"]))


def _spoken(work: WorkFigures) -> str:
    figures = (work.running_gpu_h, work.pending_gpu_h, work.deferrable_gpu_h)
    return f"{work.priority} " + " / ".join(DASH if f is None else f"{f:,.0f}" for f in figures)
