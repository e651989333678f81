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
