"""What /metrics says of dispatch: the rung in force, shadow prices by kind, what interconnect is worth, its counters.

Shadow prices carry the kind of a constraint and never its name: names hold event ids, and those are without end.
"""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from controller.dispatch.constraints import kind_of
from controller.dispatch.inputs import SiteDecision
from controller.planner import PlanLoop
from gridpivot.vocabulary import ConstraintKind, Rung

RUNGS = (Rung.PLAN, Rung.CLIPPED_PLAN, Rung.MERIT_ORDER, Rung.HOLD)  # those that dispatch can stand on


def dispatch_families(loop: PlanLoop) -> Iterator[Metric]:
    """The newest decision, and what was counted since the start. Before the first decision no gauge has a sample."""
    gauge = GaugeMetricFamily
    rung = gauge("gridpivot_dispatch_rung", "1 for the rung that the newest decision stands on.", labels=("rung",))
    own_rung = gauge(
        "gridpivot_site_dispatch_rung", "1 for the rung that a site's part of it stands on.", labels=("site", "rung")
    )
    shadow = gauge(
        "gridpivot_site_shadow_price_usd_per_megawatt_hour",
        "What one more MWh under the dearest constraint of a kind would earn now; absent where nothing was solved.",
        labels=("site", "kind"),
    )
    interconnect = gauge(
        "gridpivot_site_interconnect_worth_usd_per_megawatt",
        "What one more MW of grid connection would earn over the horizon; absent where nothing was solved.",
        labels=("site",),
    )
    last = loop.last
    if last is not None:
        for word in RUNGS:
            rung.add_metric([word], 1.0 if word is last.decision.rung else 0.0)
        for decided in last.decision.sites:
            for word in RUNGS:
                own_rung.add_metric([decided.site, word], 1.0 if word is decided.rung else 0.0)
            if decided.rung is Rung.PLAN:
                interconnect.add_metric([decided.site], decided.worth.interconnect_usd_per_mw)
                for kind, usd_per_mwh in shadow_by_kind(decided).items():
                    shadow.add_metric([decided.site, kind], usd_per_mwh)
    yield from (rung, own_rung, shadow, interconnect)
    counts = loop.counts
    yield gauge(
        "gridpivot_dispatch_last_duration_seconds", "Solving time of the newest dispatch.", value=counts.solve_s_last
    )
    for name, text, total in (
        ("dispatches", "Dispatch runs that gave an answer.", counts.dispatches),
        ("dispatch_duration_seconds", "Solving time, added up.", counts.solve_s_total),
        ("dispatch_infeasible", "Dispatch runs without a publishable optimum.", counts.infeasible),
        ("dispatch_failures", "Dispatch runs that broke.", counts.failed),
        ("dispatch_late", "Dispatch runs that missed their deadline; what they found was not published.", counts.late),
        ("dispatch_abandoned", "Solvers that were left behind because they hung.", counts.abandoned),
        ("plans_published", "Plans sent out.", counts.plans),
        ("reallocations", "Dispatch runs that changed a plan.", counts.reallocations),
    ):
        yield CounterMetricFamily(f"gridpivot_{name}", text, value=total)


def shadow_by_kind(decided: SiteDecision) -> dict[ConstraintKind, float]:
    """Dearest shadow price of each kind now [USD/MWh]; 0 where nothing of the kind binds."""
    dearest = dict.fromkeys(ConstraintKind, 0.0)
    for binding in decided.binding:
        kind = kind_of(binding.name)
        dearest[kind] = max(dearest[kind], binding.shadow_price_usd_per_mwh)
    return dearest
