"""What `gridpivot site NAME --ai --json` prints."""

from __future__ import annotations

from gridpivot.shapes import Document, Figures


class LeverFigures(Figures):
    """A lever in force, or under way."""

    order_id: str
    lever: str
    state: str
    outcome: str
    promised_w: float
    delivered_w: float
    short_w: float
    promised_s: float
    work_lost_gpu_h: float
    subjects: int
    detail: str = ""


class WorkFigures(Figures):
    """Work of one class [GPU-hours at full throughput]; null = unknown."""

    priority: str
    running_gpu_h: float | None = None
    pending_gpu_h: float | None = None
    deferrable_gpu_h: float | None = None


class CurvePointFigures(Figures):
    """Throughput kept at a wall power of the pool."""

    power_w: float
    throughput_ratio: float
    throughput_sd: float | None = None


class AiPoolFigures(Figures):
    """One pool: what it draws, what levers promised, what its meter showed."""

    name: str
    power_w: float | None = None
    limit_w: float
    demand_w: float | None = None
    gpus_present: int
    power_provenance: str = ""
    admitting: bool | None = None
    workload_trouble: str = ""
    promised_w: float  # by levers in force
    delivered_w: float
    promised_total_w: float  # since the agent started
    delivered_total_w: float
    levers: list[LeverFigures]
    work: list[WorkFigures]
    curve: list[CurvePointFigures]


class SiteAiShape(Document):
    """`gridpivot site NAME --ai --json`. `report_age_s` null = never heard of."""

    site: str
    report_age_s: float | None = None
    ai_power_w: float | None = None
    pools: list[AiPoolFigures]
