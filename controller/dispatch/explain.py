"""Why a site's plan is what it is: constraints that bind, the merit order, and sentences a person reads. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from controller.dispatch.inputs import (
    Binding,
    ClassDecision,
    ClassState,
    Decision,
    FleetState,
    PoolDecision,
    PoolState,
    SiteDecision,
    SiteState,
)
from gridpivot.v1 import operator_pb2 as op
from gridpivot.vocabulary import COMMANDABLE_MODES, Load, Mode

FLOOR = "fleet hashrate floor"


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
    pairs = {s.name: (s, d) for s, d in zip(fleet.sites, decision.sites, strict=True)}
    state, chosen = pairs[site]
    price = state.prices[0].usd_per_mwh if state.prices else None
    binding = tuple(sorted(chosen.binding, key=lambda b: -b.shadow_price_usd_per_mwh))
    limit = binding[0] if binding else None
    merit = [_mining(c, d, price, limit) for c, d in zip(state.classes, chosen.classes, strict=True)]
    merit += [_ai(p, d, price, limit) for p, d in zip(state.pools, chosen.pools, strict=True)]
    merit.sort(key=lambda m: (m.value_usd_per_mwh, m.name))
    sentences = [trigger, *_circumstances(state, chosen, fleet, price)]
    sentences += [_bound(b) for b in binding] or ["Nothing binds: every load here runs as far as it earns."]
    sentences += [f"{m.name}: {m.why}" for m in merit]
    return Explanation(site, trigger, binding, tuple(merit), tuple(sentences))


def _circumstances(state: SiteState, chosen: SiteDecision, fleet: FleetState, price: float | None) -> list[str]:
    said = []
    if price is None:
        said.append("No power price has been heard here; dispatch works with its assumed one.")
    else:
        said.append(
            f"Power costs {price:.2f} USD/MWh now; hashprice is {fleet.hashprice_usd_per_ph_day:.2f} USD/PH/day."
        )
    said.append(f"Planned import is {_mw(chosen.expected_power_w)} of {_mw(chosen.ceiling_w)} allowed.")
    for window in sorted(state.windows, key=lambda w: w.starts_in_s):
        if window.starts_in_s > 0:
            said.append(
                f"Event {window.event_id} lowers the ceiling to {_mw(window.ceiling_w)} in {window.starts_in_s:.0f} s."
            )
        elif window.ends_in_s is None or window.ends_in_s > 0:
            end = "until released" if window.ends_in_s is None else f"for another {window.ends_in_s:.0f} s"
            said.append(f"Event {window.event_id} holds the ceiling at {_mw(window.ceiling_w)} {end}.")
    silent = sum(c.silent for c in state.classes)
    if silent:
        watts = sum(c.silent_power_w for c in state.classes)
        said.append(f"{silent} silent machines are charged {_mw(watts)} and moved by nobody.")
    if not state.connected:
        said.append("The site is not connected: it stands on its last plan until it is.")
    return said


def _bound(binding: Binding) -> str:
    if binding.name.endswith("ramp"):
        limit = f"{_mw(binding.limit)} per minute"
    elif binding.name == FLOOR:
        limit = f"{binding.limit / 1e18:.2f} EH/s"
    else:
        limit = _mw(binding.limit)
    return (
        f"The {binding.name} of {limit} binds: one more MWh would be worth {binding.shadow_price_usd_per_mwh:.2f} USD."
    )


def _mining(state: ClassState, chosen: ClassDecision, price: float | None, limit: Binding | None) -> Merit:
    modes = state.miner_class.modes
    normal_w = modes[Mode.NORMAL].power_w
    powers = [modes[m].power_w if m in modes else normal_w for m in COMMANDABLE_MODES]
    planned_w = sum(n * w for n, w in zip(chosen.machines, powers, strict=True))
    sleep, low, _, turbo = chosen.machines
    counts = [f"{n:.0f} {word}" for n, word in ((sleep, "asleep"), (low, "in low"), (turbo, "in turbo")) if n >= 0.5]
    earns = f"earns {chosen.value_usd_per_mwh:.2f} USD/MWh in normal mode"
    if sleep < 0.5 and low < 0.5:
        why = f"all {state.available} awake{f', {counts[0]}' if counts else ''}; it {earns}."
    elif price is not None and chosen.value_usd_per_mwh <= price:
        why = f"{', '.join(counts)} of {state.available}; it {earns}, less than power at {price:.2f}."
    elif limit is not None:
        why = f"{', '.join(counts)} of {state.available}; it {earns} and gives way under the {limit.name}."
    else:
        why = f"{', '.join(counts)} of {state.available}; it {earns}, and a change would not pay for itself."
    return Merit(chosen.name, Load.MINING, chosen.value_usd_per_mwh, planned_w, state.available * max(powers), why)


def _ai(state: PoolState, chosen: PoolDecision, price: float | None, limit: Binding | None) -> Merit:
    pool = state.pool
    wanted_w = pool.max_w if state.demand_w is None else min(pool.max_w, max(pool.baseline_w, state.demand_w))
    short_w = wanted_w - chosen.expected_w
    earns = f"the last megawatt-hour earns {chosen.value_usd_per_mwh:.2f} USD"
    if short_w <= 1_000.0:
        asked = "its most, as its demand is unknown" if state.demand_w is None else "all it asks for"
        why = f"{pool.priority.value} AI gets {asked}, {_mw(chosen.expected_w)}; {earns}."
    elif limit is not None:
        why = f"{pool.priority.value} AI lacks {_mw(short_w)} of {_mw(wanted_w)} under the {limit.name}; {earns}."
    else:
        cost = "power" if price is None else f"power at {price:.2f}"
        why = f"{pool.priority.value} AI lacks {_mw(short_w)} of {_mw(wanted_w)}: the rest earns less than {cost}."
    return Merit(pool.name, Load.AI, chosen.value_usd_per_mwh, chosen.expected_w, wanted_w, why)


def _mw(watts: float) -> str:
    return f"{watts / 1e6:.2f} MW"
