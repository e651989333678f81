"""Every scenario by name, in the order in which they run."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

from sim.chaos import (
    agents,
    certificates,
    clocks,
    connections,
    crash,
    dead_agent,
    full_disk,
    hostile,
    link,
    meters,
    misled,
)
from sim.chaos.outcome import Outcome

Scenario = Callable[[Path, bool], Awaitable[Outcome]]  # a new directory, whether the short form is wanted

SCENARIOS: Mapping[str, Scenario] = {
    **crash.SCENARIOS,
    **link.SCENARIOS,
    **agents.SCENARIOS,
    **dead_agent.SCENARIOS,
    **clocks.SCENARIOS,
    **full_disk.SCENARIOS,
    **meters.SCENARIOS,
    **hostile.SCENARIOS,
    **connections.SCENARIOS,
    **certificates.SCENARIOS,
    **misled.SCENARIOS,
}
