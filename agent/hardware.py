"""What one site's agent is given: the faces of its equipment, how often things happen, and what is counted meanwhile."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from agent.ai.runner import AiDesk
from agent.backends import Coils, Fallbacks, Meter, Miners, Pools
from agent.energy import Counter


@dataclass(frozen=True, slots=True)
class Beats:
    """How often things happen [s]."""

    governor_s: float = 1.0
    rollup_s: float = 2.0
    devices_s: float = 15.0


USUAL_BEATS = Beats()


@dataclass(slots=True)
class SiteCounters:
    """For metrics and summaries."""

    ticks_total: int = 0
    tick_s_last: float = 0.0
    tick_s_max: float = 0.0
    late_ticks_total: int = 0
    rollups_total: int = 0
    reports_total: int = 0
    events_total: int = 0
    left_alone: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Hardware:
    """The faces of a site's equipment; fans and switches where a site has them."""

    miners: Miners
    pools: Pools
    meter: Meter
    fans: Coils | None = None  # by container
    switches: Coils | None = None  # by level:name
    counter: Counter | None = None  # the meter's; None = one that never rolls over
    fallbacks: Fallbacks | None = None  # who sets GPU limits when this agent is gone
    ai: AiDesk | None = None  # levers over AI pools
