"""Every scenario by name, in the order in which they run."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

from sim.chaos import agents, clocks, crash, full_disk, link, meters
from sim.chaos.outcome import Outcome

Scenario = Callable[[Path, bool], Awaitable[Outcome]]  # a new directory, whether the short form is wanted

SCENARIOS: Mapping[str, Scenario] = {
    **crash.SCENARIOS,
    **link.SCENARIOS,
    **meters.SCENARIOS,
    **agents.SCENARIOS,
    **clocks.SCENARIOS,
    **full_disk.SCENARIOS,
}
