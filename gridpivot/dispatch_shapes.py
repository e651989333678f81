"""The JSON documents about decisions that were taken, are kept, or might be: previews, lists, replays.

The rules of shapes.py hold; golden files in tests/unit/golden hold these too.
"""

from __future__ import annotations

from datetime import datetime

from gridpivot.shapes import Document, Figures


class ClassPreviewFigures(Figures):
    """Machines of one class by mode when the event begins."""

    name: str
    sleep_machines_before: float
    low_machines_before: float
    normal_machines_before: float
    turbo_machines_before: float
    sleep_machines_after: float
    low_machines_after: float
    normal_machines_after: float
    turbo_machines_after: float


class PoolPreviewFigures(Figures):
    """Wall power of one AI pool when the event begins."""

    name: str
    priority: str
    before_w: float
    after_w: float


class SitePreviewFigures(Figures):
    """One site with and without the event: means over the event's part of the horizon."""

    site: str
    ceiling_w: float
    import_before_w: float
    import_after_w: float
    mining_before_w: float
    mining_after_w: float
    ai_before_w: float
    ai_after_w: float
    classes: list[ClassPreviewFigures]
    pools: list[PoolPreviewFigures]


class PreviewShape(Document):
    """`gridpivot plan preview --json`. `cost_usd` counts what is not earned and penalties, over `horizon_s`."""

    cost_usd: float
    notice_usd: float
    horizon_s: float
    solve_s: float
    sites: list[SitePreviewFigures]
    left_out: list[str]


class DecisionFigures(Figures):
    """One run of dispatch; `objective_usd` is null where nothing was solved."""

    decision_id: str
    decided_at: datetime | None
    trigger: str
    rung: str | None
    objective_usd: float | None
    plans: int


class DecisionsShape(Document):
    """`gridpivot decisions --json`, oldest first."""

    decisions: list[DecisionFigures]


class ReplayShape(Document):
    """`gridpivot replay DECISION --json`. `differences` is empty when everything was the same, bit for bit."""

    decision_id: str
    decided_at: datetime | None
    same: bool
    differences: list[str]
    sites: int
    plans: int
    solver: str
    solve_s: float
