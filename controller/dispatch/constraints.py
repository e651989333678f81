"""The names that constraints carry in bindings and outlooks: what kind each is, and what it says to a person. Pure.

`shadow.py` gives the names; metrics want the kind, since the names hold event ids and are without end.
"""

from __future__ import annotations

from controller.dispatch.inputs import Binding, Outlook, SiteState
from gridpivot.vocabulary import ConstraintKind

EXACT = {
    "site ceiling": ConstraintKind.CEILING,
    "pick-up ramp": ConstraintKind.RAMP,
    "drop ramp": ConstraintKind.RAMP,
    "fleet hashrate floor": ConstraintKind.FLOOR,
    "demand charge": ConstraintKind.DEMAND_CHARGE,
}
PREFIXED = {
    "event": ConstraintKind.EVENT,
    "feeder": ConstraintKind.FEEDER,
    "sold": ConstraintKind.SOLD,
    "achievable": ConstraintKind.ACHIEVABLE,
    "backlog": ConstraintKind.BACKLOG,
}
DROP_RAMP = "drop ramp"
SAME_CEILING_W = 1.0


def kind_of(name: str) -> ConstraintKind:
    """The kind of a constraint by its name; raises KeyError for a name that `shadow.py` does not give."""
    return EXACT[name] if name in EXACT else PREFIXED[name.split(" ", 1)[0]]


def subject_of(name: str) -> str:
    """What it is about: the feeder, class, event, product or backlog; empty for those of which there is one."""
    return "" if name in EXACT else name.split(" ", 1)[1]


def holds_load_up(name: str) -> bool:
    """Whether it keeps load running that would not pay for itself, rather than keeping load down."""
    return name == DROP_RAMP or kind_of(name) in (ConstraintKind.FLOOR, ConstraintKind.SOLD, ConstraintKind.BACKLOG)


def sentence(binding: Binding) -> str:
    """A constraint that binds, for a person: its limit in its own unit, and what one more MWh would be worth."""
    worth = f"one more MWh would be worth {binding.shadow_price_usd_per_mwh:.2f} USD"
    subject = subject_of(binding.name)
    match kind_of(binding.name):
        case ConstraintKind.RAMP:
            return f"The {binding.name} of {mw(binding.limit)} per minute binds: {worth}."
        case ConstraintKind.FLOOR:
            return (
                f"The fleet hashrate floor of {binding.limit / 1e18:.2f} EH/s binds and keeps load running: "
                f"one MWh of it less would save {binding.shadow_price_usd_per_mwh:.2f} USD."
            )
        case ConstraintKind.SOLD:
            return (
                f"{mw(binding.limit)} sold as {subject} must run to be sheddable: "
                f"one MWh of it less would save {binding.shadow_price_usd_per_mwh:.2f} USD."
            )
        case ConstraintKind.ACHIEVABLE:
            return f"Containers and PDUs let class {subject} draw {mw(binding.limit)}, and that binds: {worth}."
        case ConstraintKind.DEMAND_CHARGE:
            return f"The billing period's peak of {mw(binding.limit)} is not exceeded, to save the charge: {worth}."
        case ConstraintKind.BACKLOG:
            return (
                f"The deadline of backlog {subject} ({binding.limit:.0f} GPU-h waiting) drives AI on: "
                f"one MWh less of it would save {binding.shadow_price_usd_per_mwh:.2f} USD."
            )
        case _:
            return f"The {binding.name} of {mw(binding.limit)} binds: {worth}."


def named_shadow(period: Outlook, site: SiteState) -> tuple[tuple[str, float], ...]:
    """What binds in a period, a ceiling under the name of the event that holds it there.

    A solution names ceilings after the first period. An event that begins later is recognised by its ceiling in force
    during the period; where a long period averages two ceilings the lower event is named.
    """
    held = "site ceiling"
    if period.ceiling_w < site.ceiling_w - SAME_CEILING_W:
        ends_s = period.starts_in_s + period.width_s
        inside = [
            w
            for w in site.windows
            if w.starts_in_s < ends_s and (w.ends_in_s is None or w.ends_in_s > period.starts_in_s)
        ]
        if inside:
            held = f"event {min(inside, key=lambda w: (w.ceiling_w, w.event_id)).event_id}"
    ceilings = (ConstraintKind.CEILING, ConstraintKind.EVENT)
    return tuple((held if kind_of(name) in ceilings else name, usd) for name, usd in period.shadow)


def mw(watts: float) -> str:
    """Megawatts with two digits."""
    return f"{watts / 1e6:.2f} MW"
