"""What happens to the forty sites: AI steps, and the tour's faults. Pure: a seed in, a timetable out.

Times are seconds after the last site connected. Steps at a site with a dead meter avoid the fault: without a meter
the governor raises nothing, by design.
"""

from __future__ import annotations

import random
from dataclasses import asdict, dataclass
from typing import Any

from sim.fleet import SiteSpec


@dataclass(frozen=True, slots=True)
class AiStep:
    """Demand of one pool becomes `demand_ratio` of its maximum."""

    at_s: float
    pool: int
    demand_ratio: float


@dataclass(frozen=True, slots=True)
class Span:
    """Something lasts from `from_s` to `to_s`."""

    from_s: float
    to_s: float


@dataclass(frozen=True, slots=True)
class CeilingCall:
    """A grid event that the demo creates through the operators' API."""

    sites: tuple[str, ...]
    at_s: float
    to_s: float
    ratio: float
    notice_s: float


@dataclass(frozen=True, slots=True)
class PriceSpike:
    """A region's price for a while [USD/MWh]."""

    region: str
    at_s: float
    to_s: float
    usd_per_mwh: float


@dataclass(frozen=True, slots=True)
class SiteStory:
    """What happens at one site."""

    steps: tuple[AiStep, ...]
    meter_dead: Span | None = None
    link_lost: Span | None = None

    def to_json(self) -> dict[str, Any]:
        """For a host process."""
        return asdict(self)

    @classmethod
    def from_json(cls, raw: dict[str, Any]) -> SiteStory:
        """From the parent process."""
        return cls(
            tuple(AiStep(**step) for step in raw["steps"]),
            Span(**raw["meter_dead"]) if raw["meter_dead"] else None,
            Span(**raw["link_lost"]) if raw["link_lost"] else None,
        )


@dataclass(frozen=True, slots=True)
class Scenario:
    """The whole timetable."""

    stories: dict[str, SiteStory]
    calls: tuple[CeilingCall, ...]
    spikes: tuple[PriceSpike, ...]


LOW, HIGH = 0.55, 0.95


def _ai_steps(
    rng: random.Random, duration_s: float, avoid: Span | None, pause_s: tuple[float, float] = (20.0, 30.0)
) -> tuple[AiStep, ...]:
    """Up and down by turns on the inference pool, `pause_s` apart (least, most)."""
    steps: list[AiStep] = []
    at_s, high = rng.uniform(4.0, 14.0), False
    while at_s < duration_s - 16.0:
        if avoid is None or not avoid.from_s - 16.0 < at_s < avoid.to_s + 10.0:
            high = not high
            level = rng.uniform(0.85, HIGH) if high else rng.uniform(0.45, LOW)
            steps.append(AiStep(round(at_s, 2), 0, round(level, 3)))
        at_s += rng.uniform(*pause_s)
    return tuple(steps)


def tour(specs: list[SiteSpec], duration_s: float, seed: int, speed: float) -> Scenario:
    """AI steps everywhere; a price spike, a lowered ceiling, dead meters and lost links, each at several sites."""
    rng = random.Random(seed)
    virtual = [s for s in specs if s.index > 0 and not s.stock_only]
    dead = {s.name for s in virtual[2::13][:3]}
    lost = {s.name for s in virtual[5::11][:3]}
    lowered = [s for s in virtual if s.region == "ercot" and s.name not in dead | lost][:4]
    stories = {}
    for spec in specs:
        meter = Span(0.22 * duration_s, 0.5 * duration_s) if spec.name in dead else None
        link = Span(0.25 * duration_s, 0.62 * duration_s) if spec.name in lost else None
        stories[spec.name] = SiteStory(_ai_steps(rng, duration_s, meter), meter, link)
    calls = []
    if lowered:
        half = max(1, len(lowered) // 2)
        at_s, to_s = 0.33 * duration_s, 0.72 * duration_s
        calls.append(CeilingCall(tuple(s.name for s in lowered[:half]), at_s, to_s, 0.88, 0.0))
        if lowered[half:]:
            calls.append(CeilingCall(tuple(s.name for s in lowered[half:]), at_s, to_s, 0.80, 20.0))
    spikes = (PriceSpike("gulf", 0.4 * duration_s, 0.7 * duration_s, 2500.0),)
    return Scenario(stories, tuple(calls), spikes)


def quiet(specs: list[SiteSpec], duration_s: float, seed: int, speed: float) -> Scenario:
    """AI steps only: the everyday."""
    rng = random.Random(seed)
    return Scenario({s.name: SiteStory(_ai_steps(rng, duration_s, None)) for s in specs}, (), ())


def day(specs: list[SiteSpec], duration_s: float, seed: int, speed: float) -> Scenario:
    """Real prices and nothing made up but AI demand, which moves every 15-45 min of data time, 5 s of ours at least."""
    rng = random.Random(seed)
    pause_s = (max(5.0, 900.0 / speed), max(10.0, 2700.0 / speed))
    return Scenario({s.name: SiteStory(_ai_steps(rng, duration_s, None, pause_s)) for s in specs}, (), ())


SCENARIOS = {"tour": tour, "quiet": quiet, "day": day}
