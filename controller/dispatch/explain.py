"""Why a site's plan is what it is: constraints that bind, the merit order, and sentences a person reads. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from controller.dispatch.inputs import Binding, Decision, FleetState
from gridpivot.v1 import operator_pb2 as op
from gridpivot.vocabulary import Load


@dataclass(frozen=True, slots=True)
class Merit:
    """One line of the merit order: value before power [USD/MWh at the meter], watts planned and possible."""

    name: str
    load: Load
    value_usd_per_mwh: float
    planned_w: float
    available_w: float
    why: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """All of it for one site; `binding` dearest first, `merit` cheapest first."""

    site: str
    trigger: str
    binding: tuple[Binding, ...]
    merit: tuple[Merit, ...]
    sentences: tuple[str, ...]

    def to_proto(self, decided_at_unix_ms: int) -> op.ExplainResponse:
        """Wire form."""
        return op.ExplainResponse(
            site=self.site,
            decided_at_unix_ms=decided_at_unix_ms,
            trigger=self.trigger,
            binding=[
                op.BindingConstraint(name=b.name, limit=b.limit, shadow_price_usd_per_mwh=b.shadow_price_usd_per_mwh)
                for b in self.binding
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
                for m in self.merit
            ],
            sentences=list(self.sentences),
        )


def explain(decision: Decision, fleet: FleetState, site: str, trigger: str) -> Explanation:
    """The explanation of `decision` for one site, from the state it was taken on; raises KeyError for an unknown site."""
    raise NotImplementedError
