"""The same documents as tables for people. A dash is unknown."""

from __future__ import annotations

from rich.console import Group
from rich.table import Table

from gridpivot import shapes
from gridpivot.shapes_site import SiteShape
from gridpivot.tables import DASH, age, at, hashes, mw, table, usd, yes

NEAR_PERIODS = 16  # the next two hours: 5 min each for an hour, then 15


def sites_table(shape: shapes.SitesShape) -> Group:
    """One line per site, totals under it."""
    columns = ("site", "region", "link", "ceiling", "metered", "mining", "AI", "overhead", "hashrate", "plan", "$/MWh")
    rows = table("", *columns, "shadow", "$/h", "notes", numbers=(*columns[3:9], "$/MWh", "shadow", "$/h"))
    for s in shape.sites:
        rows.add_row(
            s.site,
            s.region,
            s.link if s.report_age_s is None else f"{s.link} {age(s.report_age_s)}",
            mw(s.ceiling_w),
            mw(s.metered_power_w),
            mw(s.mining_power_w),
            mw(s.ai_power_w),
            mw(s.overhead_power_w),
            hashes(s.hashrate_hs),
            f"{s.plan_status or DASH} {age(s.plan_age_s) if s.plan_age_s is not None else ''}".strip(),
            usd(s.price_usd_per_mwh),
            usd(s.shadow_price_usd_per_mwh),
            usd(s.margin_usd_per_h),
            "; ".join(s.notes),
        )
    f = shape.fleet
    when = f.last_dispatch_at.strftime("%H:%M:%SZ") if f.last_dispatch_at else "never"
    return Group(
        rows,
        f"{f.sites_connected} of {f.sites} sites connected, {f.devices_reporting:,} devices reporting, {mw(f.power_w)} "
        f"(mining {mw(f.mining_power_w)}, AI {mw(f.ai_power_w)}, overhead {mw(f.overhead_power_w)}), "
        f"{hashes(f.hashrate_hs)}, {usd(f.margin_usd_per_h)} $/h",
        f"last reallocation {when}: {f.last_dispatch_reason or 'none yet'}",
    )


def mwh(energy_j: int) -> str:
    """Megawatt-hours with two digits."""
    return f"{energy_j / 3.6e9:,.2f} MWh"


def _energy_rows(shape: SiteShape) -> list[tuple[str, str]]:
    energy = shape.energy
    if energy is None:
        return []
    loads = " / ".join(map(mwh, (energy.mining_j, energy.ai_j, energy.overhead_j, energy.unattributed_j)))
    estimated = f", and {mwh(energy.unmetered_j)} estimated" if energy.unmetered_j else ""
    return [("energy", mwh(energy.import_j) + estimated), ("mining / AI / overhead / other", loads)]


def site_table(shape: SiteShape) -> Group:
    """One site, its classes and pools."""
    facts = table(shape.site, "", " ")
    for name, value in (
        ("region", shape.region),
        ("link", f"{shape.link}, last roll-up {age(shape.report_age_s)} ago"),
        ("ceiling", f"{mw(shape.ceiling_w)} of {mw(shape.site_ceiling_w)}"),
        ("metered", f"{mw(shape.metered_power_w)} (meter {shape.meter_trust or 'unknown'})"),
        (
            "mining / AI / overhead",
            " / ".join(map(mw, (shape.mining_power_w, shape.ai_power_w, shape.overhead_power_w))),
        ),
        ("hashrate", hashes(shape.hashrate_hs)),
        *_energy_rows(shape),
        (
            "plan",
            f"{shape.plan_epoch or DASH}.{shape.plan_version or DASH} {shape.plan_status or DASH}, {age(shape.plan_age_s)} old",
        ),
        ("rung, stage", f"{shape.rung or DASH}, {shape.stage or DASH}"),
        (
            "commands",
            f"{shape.commands or 0}, {shape.commands_confirmed or 0} confirmed, {shape.commands_short or 0} short",
        ),
        ("price", f"{usd(shape.price_usd_per_mwh)} $/MWh, {age(shape.price_age_s)} old"),
        ("margin", f"{usd(shape.margin_usd_per_h)} $/h"),
        (
            "binds",
            f"{shape.binding}, {usd(shape.shadow_price_usd_per_mwh)} $ for one more MWh" if shape.binding else DASH,
        ),
        ("notes", "; ".join(shape.notes) or DASH),
    ):
        facts.add_row(name, value)
    classes = table(
        "",
        "class",
        "power",
        "hashrate",
        "available",
        "silent",
        "states",
        numbers=("power", "hashrate", "available", "silent"),
    )
    for c in shape.classes:
        states = ", ".join(f"{n} {word}" for word, n in c.state_counts.items() if n)
        classes.add_row(c.name, mw(c.power_w), hashes(c.hashrate_hs), str(c.available), str(c.silent), states)
    pools = table("", "pool", "power", "limit", "demand", "GPUs", numbers=("power", "limit", "demand", "GPUs"))
    for p in shape.pools:
        pools.add_row(p.name, mw(p.power_w), mw(p.limit_w), mw(p.demand_w), str(p.gpus_present))
    return Group(facts, *([classes] if shape.classes else []), *([pools] if shape.pools else []))


def plan_table(shape: shapes.PlanShape) -> Group:
    """A plan and its fate."""
    if shape.epoch is None:
        return Group(f"{shape.site}: no plan yet; it has not reported since the controller started")
    classes = table(
        "", "class", "sleep", "low", "normal", "turbo", "$/MWh", numbers=("sleep", "low", "normal", "turbo", "$/MWh")
    )
    for c in shape.classes:
        counts = (c.sleep_machines, c.low_machines, c.normal_machines, c.turbo_machines)
        classes.add_row(c.name, *(f"{n:.1f}" for n in counts), usd(c.value_usd_per_mwh))
    numbers = ("most", "expected", "fallback", "$/MWh")
    pools = table("", "pool", *numbers, "admits", "nodes", numbers=(*numbers, "nodes"))
    for p in shape.pools:
        watts = map(mw, (p.max_w, p.expected_w, p.fallback_w))
        pools.add_row(p.name, *watts, usd(p.value_usd_per_mwh), yes(p.admits), str(len(p.nodes) or DASH))
    lines = [
        f"{shape.site} plan {shape.epoch}.{shape.version}, issued {at(shape.issued_at)}: {shape.reason}",
        f"ceiling {mw(shape.ceiling_w)}, expected {mw(shape.expected_power_w)}, "
        f"fallback {shape.fallback_posture} at {mw(shape.fallback_ceiling_w)}",
    ]
    lines += [
        f"event {e.event_id}: {mw(e.ceiling_w)} from {at(e.starts_at)} to {at(e.ends_at) if e.ends_at else 'release'}: {e.reason}"
        for e in shape.events
    ]
    fate = [f"{s.epoch}.{s.version} {s.status} {s.reason}".rstrip() for s in shape.statuses[-5:]]
    return Group(*lines, classes, *([pools] if shape.pools else []), f"heard: {', '.join(fate) or 'nothing yet'}")


def explain_table(shape: shapes.ExplainShape, every: bool = False) -> Group:
    """Why, and what is ahead: the near periods in which something binds or changes, or `every` one."""
    merit = table("", "name", "load", "$/MWh", "planned", "available", "why", numbers=("$/MWh", "planned", "available"))
    for m in shape.merit:
        merit.add_row(m.name, m.load, usd(m.value_usd_per_mwh), mw(m.planned_w), mw(m.available_w), m.why)
    binding = [f"binds: {b.name}, worth {usd(b.shadow_price_usd_per_mwh)} $/MWh" for b in shape.binding]
    return Group(
        f"{shape.site}, as dispatch sees it{f' (rung {shape.rung})' if shape.rung else ''}:",
        *shape.sentences,
        *(binding or ["nothing binds"]),
        merit,
        *([_queues(shape)] if shape.queues else []),
        *([_outlook(shape, every)] if shape.outlook else []),
        f"decided {at(shape.decided_at)}: {shape.trigger}",
    )


def _queues(shape: shapes.ExplainShape) -> Table:
    numbers = ("run", "wait", "deferrable", "due, h", "GPUs", "wants", "in 1 h", "in 4 h")
    out = table("", "queue, GPU-h", *numbers, "backlog", "admits", numbers=numbers)
    for q in shape.queues:
        hours = (f"{h:,.0f}" for h in (q.running_gpu_h, q.pending_gpu_h, q.deferrable_gpu_h))
        due = DASH if q.due_in_s is None else f"{q.due_in_s / 3600:.1f}"
        gpus = DASH if q.busy_gpus is None else f"{q.busy_gpus:.0f}"
        watts = map(mw, (q.demand_w, q.demand_in_1_h_w, q.demand_in_4_h_w))
        out.add_row(q.pool, *hours, due, gpus, *watts, q.backlog or DASH, yes(q.admits))
    return out


def _outlook(shape: shapes.ExplainShape, every: bool) -> Table:
    numbers = ("min", "$/MWh", "ceiling", "import", "mining", "AI")
    out = table("", "from", *numbers, "binds, $/MWh", numbers=numbers)
    for o in shape.outlook if every else shape.outlook[:NEAR_PERIODS]:
        out.add_row(
            at(o.starts_at),
            f"{o.width_s / 60:.0f}",
            usd(o.price_usd_per_mwh),
            *map(mw, (o.ceiling_w, o.import_w, o.mining_w, o.ai_w)),
            ", ".join(f"{s.name} {usd(s.usd_per_mwh)}" for s in o.shadow) or DASH,
        )
    return out
