"""The JSON documents about one site's ground: itself with its energy. A room beside `shapes`; the same rules hold."""

from __future__ import annotations

from pydantic import Field

from gridpivot.shapes import ClassFigures, Document, Figures, PoolFigures, SiteFigures


class EnergyFigures(Figures):
    """Energy since the site's ledger began [J]; `ledger` is its identity (hex). Mining, AI, overhead and unattributed
    add up to the import; `unmetered_j` is an estimate and not in it."""

    ledger: str
    import_j: int
    mining_j: int
    ai_j: int
    overhead_j: int
    unattributed_j: int
    unmetered_j: int
    counter_changes: int


class SiteShape(SiteFigures, Document):
    """`gridpivot site NAME --json`. `energy` is null where no meter counts."""

    classes: list[ClassFigures] = Field(default_factory=list)
    pools: list[PoolFigures] = Field(default_factory=list)
    energy: EnergyFigures | None = None


class FeederTestFigures(Figures):
    """The step test of one feeder. Times [s] from the command until the meter had moved half; null = it did not."""

    feeder: str
    verdict: str
    meaning: str
    machines: int
    feeder_w: float
    expected_w: float
    fell_w: float | None
    fell_after_s: float | None
    rose_w: float | None
    rose_after_s: float | None
    woke: bool
    left_asleep: int


class CommissionShape(Document):
    """`gridpivot-agent commission --json`. `feeder` and `phase` are null while none is tested; `stage` is the one that the
    site stands on, `stage_reason` why it is lower than the settings allow."""

    running: bool
    feeder: str | None
    phase: str | None
    feeders_left: int
    stage: str
    stage_reason: str
    trouble: str = ""
    results: list[FeederTestFigures] = Field(default_factory=list)
