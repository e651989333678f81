"""Previews, lists of decisions and replays as tables for people."""

from __future__ import annotations

from rich.console import Group, RenderableType

from gridpivot.dispatch_shapes import DecisionsShape, PreviewShape, ReplayShape
from gridpivot.tables import DASH, at, mw, table, usd

MODES = ("sleep", "low", "normal", "turbo")


def preview_table(shape: PreviewShape) -> Group:
    """What an event would do: watts by site, machines by class, AI by pool, dollars under it."""
    sites = table("", "site", "ceiling", "import", "mining", "AI", numbers=("ceiling", "import", "mining", "AI"))
    classes = table("", "site", "class", *MODES, numbers=MODES)
    pools = table("", "site", "pool", "priority", "power", numbers=("power",))
    over: list[str] = []
    for s in shape.sites:
        sites.add_row(
            s.site,
            mw(s.ceiling_w),
            _change(mw(s.import_before_w), mw(s.import_after_w)),
            _change(mw(s.mining_before_w), mw(s.mining_after_w)),
            _change(mw(s.ai_before_w), mw(s.ai_after_w)),
        )
        if s.over_w > 1_000.0:
            over.append(f"{s.site}: {mw(s.over_w)} above the ceiling cannot be shed; the cost holds a penalty for it")
        for c in s.classes:
            counts = [
                _change(*(f"{getattr(c, f'{mode}_machines_{when}'):.0f}" for when in ("before", "after")))
                for mode in MODES
            ]
            classes.add_row(s.site, c.name, *counts)
        for p in s.pools:
            pools.add_row(s.site, p.name, p.priority, _change(mw(p.before_w), mw(p.after_w)))
    lines: list[RenderableType] = [
        "without the event -> with it; watts are means while it lasts, machines and pools stand as it begins",
        sites,
        classes,
        *([pools] if any(s.pools for s in shape.sites) else []),
        *over,
        *(f"left out: {why}" for why in shape.left_out),
        f"it costs {usd(shape.cost_usd)} USD over the next {shape.horizon_s / 3600:.0f} h, penalties included; "
        f"the same event an hour later would cost {usd(abs(shape.notice_usd))} USD "
        f"{'less' if shape.notice_usd >= 0 else 'more'}",
        "nothing was recorded, nothing was sent",
    ]
    return Group(*lines)


def decisions_table(shape: DecisionsShape) -> Group:
    """One line per decision."""
    out = table("", "decision", "at", "rung", "USD", "plans", "why", numbers=("USD", "plans"))
    for d in shape.decisions:
        out.add_row(d.decision_id, at(d.decided_at), d.rung or DASH, usd(d.objective_usd), str(d.plans), d.trigger)
    return Group(out)


def replay_table(shape: ReplayShape) -> Group:
    """The verdict, and what differs."""
    verdict = "the same, bit for bit" if shape.same else "NOT the same"
    return Group(
        f"{shape.decision_id}, taken {at(shape.decided_at)}: {verdict} "
        f"({shape.sites} sites, {shape.plans} plans, {shape.solver}, {shape.solve_s:.2f} s)",
        *shape.differences,
    )


def _change(before: str, after: str) -> str:
    return before if before == after else f"{before} -> {after}"
