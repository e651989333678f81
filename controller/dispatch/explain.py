"""Why a site's plan is what it is: constraints that bind, the merit order, and sentences a person reads. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from controller.dispatch.constraints import holds_load_up, kind_of, mw, named_shadow, sentence, subject_of
from controller.dispatch.explain_queue import QueuePart, own_backlogs, queue_parts
from controller.dispatch.inputs import (
    Binding,
    ClassDecision,
    ClassState,
    Decision,
    FleetState,
    Outlook,
    PoolDecision,
    PoolState,
    SiteDecision,
    SiteState,
    Worth,
)
from gridpivot.vocabulary import COMMANDABLE_MODES, ConstraintKind, Load, Mode, Rung

WORTH_SAYING_USD = 0.01


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
class Ahead:
    """One period of the plan ahead, with the constraints that bind in it under their proper names, dearest first."""

    period: Outlook
    shadow: tuple[tuple[str, float], ...]


@dataclass(frozen=True, slots=True)
class Explanation:
    """All of it for one site; `binding` dearest first, `merit` cheapest first. Where nothing was solved `worth` is
    None and `ahead` empty, and `rung` says what stands in the solution's place."""

    site: str
    trigger: str
    binding: tuple[Binding, ...]
    merit: tuple[Merit, ...]
    sentences: tuple[str, ...]
    rung: Rung = Rung.PLAN
    rung_reason: str = ""
    ahead: tuple[Ahead, ...] = ()
    worth: Worth | None = None
    queues: tuple[QueuePart, ...] = ()


def explain(decision: Decision, fleet: FleetState, site: str, trigger: str) -> Explanation:
    """The explanation of `decision` for one site, from the state it was taken on; raises KeyError for an unknown site."""
    state = {s.name: s for s in fleet.sites}[site]
    chosen = {d.site: d for d in decision.sites}[site]
    price = state.prices[0].usd_per_mwh if state.prices else None
    binding = tuple(sorted(chosen.binding, key=lambda b: -b.shadow_price_usd_per_mwh))
    ahead = tuple(Ahead(period, named_shadow(period, state)) for period in chosen.outlook)
    merit = [_mining(c, d, price, binding) for c, d in zip(state.classes, chosen.classes, strict=True)]
    own = own_backlogs(fleet.backlogs)
    merit += [_ai(p, d, price, binding, p.backlog in own) for p, d in zip(state.pools, chosen.pools, strict=True)]
    merit.sort(key=lambda m: (m.value_usd_per_mwh, m.name))
    solved = chosen.rung is Rung.PLAN
    sentences = [trigger]
    if not solved:
        sentences.append(f"Not solved, on rung {chosen.rung.value}: {chosen.rung_reason}. {STANDS_IN[chosen.rung]}")
    sentences += _circumstances(state, chosen, fleet, price)
    if solved:
        sentences += [sentence(b) for b in binding] or ["Nothing binds: every load here runs as far as it earns."]
        sentences += [*_dearest_ahead(ahead), *_worth(chosen.worth, chosen.outlook)]
    queues = queue_parts(state, chosen, fleet)
    sentences += [f"{m.name}: {m.why}" for m in merit]
    sentences += [part.sentence() for part in queues]
    return Explanation(
        site,
        trigger,
        binding,
        tuple(merit),
        tuple(sentences),
        chosen.rung,
        chosen.rung_reason,
        ahead,
        chosen.worth if solved else None,
        queues,
    )


STANDS_IN = {
    Rung.CLIPPED_PLAN: "Its last plan stands, cut to what is allowed and there now.",
    Rung.MERIT_ORDER: "The cheapest loads give way first; nothing looks ahead.",
    Rung.HOLD: "What is commanded now stays, under the ceilings in force.",
}


def _circumstances(state: SiteState, chosen: SiteDecision, fleet: FleetState, price: float | None) -> list[str]:
    said = []
    if price is None:
        said.append("No power price has been heard here; dispatch works with its assumed one.")
    else:
        said.append(
            f"Power costs {price:.2f} USD/MWh now; hashprice is {fleet.hashprice_usd_per_ph_day:.2f} USD/PH/day."
        )
    said.append(f"Planned import is {mw(chosen.expected_power_w)} of {mw(chosen.ceiling_w)} allowed.")
    for window in sorted(state.windows, key=lambda w: w.starts_in_s):
        if window.starts_in_s > 0:
            said.append(
                f"Event {window.event_id} lowers the ceiling to {mw(window.ceiling_w)} in {window.starts_in_s:.0f} s."
            )
        elif window.ends_in_s is None or window.ends_in_s > 0:
            end = "until released" if window.ends_in_s is None else f"for another {window.ends_in_s:.0f} s"
            said.append(f"Event {window.event_id} holds the ceiling at {mw(window.ceiling_w)} {end}.")
    silent = sum(c.silent for c in state.classes)
    if silent:
        watts = sum(c.silent_power_w for c in state.classes)
        said.append(f"{silent} silent machines are charged {mw(watts)} and moved by nobody.")
    if not state.connected:
        said.append("The site is not connected: it stands on its last plan until it is.")
    return said


def _dearest_ahead(ahead: tuple[Ahead, ...]) -> list[str]:
    """Where the plan ahead is tightest, in one sentence; nothing where no later period binds."""
    later = [(usd, name, one.period) for one in ahead[1:] for name, usd in one.shadow]
    if not later:
        return []
    usd, name, period = max(later, key=lambda found: found[0])
    hours = period.starts_in_s / 3600
    worth = "one MWh of it less would save" if holds_load_up(name) else "one more MWh would be worth"
    return [f"Ahead, the {name} binds most, {hours:.1f} h from now: {worth} {usd:.2f} USD then."]


def _worth(worth: Worth, outlook: tuple[Outlook, ...]) -> list[str]:
    over = f"over the next {(outlook[-1].starts_in_s + outlook[-1].width_s) / 3600:.0f} h" if outlook else "from now on"
    lines = [(f"One more MW of interconnect {over} would be worth", worth.interconnect_usd_per_mw)]
    lines += [(f"One more MW of feeder {name} {over} would be worth", usd) for name, usd in worth.feeder_usd_per_mw]
    lines += [(f"One promised GPU less in {name} {over} would be worth", usd) for name, usd in worth.promised_gpu_usd]
    lines += [(f"One MW of {name} sold less {over} would be worth", usd) for name, usd in worth.sold_usd_per_mw]
    said = [f"{words} {usd:.2f} USD." for words, usd in lines if usd >= WORTH_SAYING_USD]
    # A pool that earns more than what it displaces is a loss to be without, promised or not.
    return said + [
        f"One promised GPU less in {name} {over} would lose {-usd:.2f} USD."
        for name, usd in worth.promised_gpu_usd
        if usd <= -WORTH_SAYING_USD
    ]


def _keeps_down(binding: tuple[Binding, ...], feeder: str, class_name: str = "") -> Binding | None:
    """The dearest constraint that can be why a load on this feeder does not run; None if there is none."""
    own = {ConstraintKind.FEEDER: feeder, ConstraintKind.ACHIEVABLE: class_name}
    for b in binding:
        kind = kind_of(b.name)
        if not holds_load_up(b.name) and (kind not in own or subject_of(b.name) == own[kind]):
            return b
    return None


def _mining(state: ClassState, chosen: ClassDecision, price: float | None, binding: tuple[Binding, ...]) -> Merit:
    modes = state.miner_class.modes
    normal_w = modes[Mode.NORMAL].power_w
    powers = [modes[m].power_w if m in modes else normal_w for m in COMMANDABLE_MODES]
    planned_w = sum(n * w for n, w in zip(chosen.machines, powers, strict=True))
    sleep, low, _, turbo = chosen.machines
    counts = [f"{n:.0f} {word}" for n, word in ((sleep, "asleep"), (low, "in low"), (turbo, "in turbo")) if n >= 0.5]
    earns = f"earns {chosen.value_usd_per_mwh:.2f} USD/MWh in normal mode"
    limit = _keeps_down(binding, state.feeder, state.miner_class.name)
    loses = price is not None and chosen.value_usd_per_mwh <= price
    if sleep < 0.5 and low < 0.5:
        why = f"all {state.available} awake{f', {counts[0]}' if counts else ''}; it {earns}"
        kept_up = next((b.name for b in binding if holds_load_up(b.name)), None)
        why += f", less than power, and runs for the {kept_up}." if loses and kept_up else "."
    elif loses:
        why = f"{', '.join(counts)} of {state.available}; it {earns}, less than power at {price:.2f}."
    elif limit is not None:
        why = f"{', '.join(counts)} of {state.available}; it {earns} and gives way under the {limit.name}."
    else:
        why = f"{', '.join(counts)} of {state.available}; it {earns}, and a change would not pay for itself."
    return Merit(chosen.name, Load.MINING, chosen.value_usd_per_mwh, planned_w, state.available * max(powers), why)


def _ai(
    state: PoolState, chosen: PoolDecision, price: float | None, binding: tuple[Binding, ...], own_backlog: bool
) -> Merit:
    pool = state.pool
    wanted_w = pool.max_w if state.demand_w is None else min(pool.max_w, max(pool.baseline_w, state.demand_w))
    short_w = wanted_w - chosen.expected_w
    limit = _keeps_down(binding, state.feeder)
    earns = f"the last megawatt-hour earns {chosen.value_usd_per_mwh:.2f} USD"
    if short_w <= 1_000.0:
        asked = "its most, as its demand is unknown" if state.demand_w is None else "all it asks for"
        why = f"{pool.priority.value} AI gets {asked}, {mw(chosen.expected_w)}; {earns}."
    elif state.backlog and not own_backlog:
        why = f"{pool.priority.value} AI works off {state.backlog} with {mw(chosen.expected_w)} and may wait; {earns}."
    elif limit is not None:
        why = f"{pool.priority.value} AI lacks {mw(short_w)} of {mw(wanted_w)} under the {limit.name}; {earns}."
    else:
        cost = "power" if price is None else f"power at {price:.2f}"
        why = f"{pool.priority.value} AI lacks {mw(short_w)} of {mw(wanted_w)}: the rest earns less than {cost}."
    return Merit(pool.name, Load.AI, chosen.value_usd_per_mwh, chosen.expected_w, wanted_w, why)
