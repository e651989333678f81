"""`make chaos` in its short form, one test a scenario: those of each family that fit into CI's time. `make chaos` has them all."""

import asyncio
from pathlib import Path

import pytest

from gridpivot.limits import raise_file_limit
from sim.chaos.__main__ import attempt
from sim.chaos.outcome import broken
from sim.chaos.scenarios import SCENARIOS

pytestmark = [pytest.mark.system, pytest.mark.slow]

# Virtual time costs a second each; processes ten to thirty, so that of each family the sharpest are here.
IN_CI = [
    *(name for name in SCENARIOS if name.startswith(("meter_", "counter_", "phase_", "blackout", "cooling"))),
    "controller_stopped",
    "older_database",
    "forty_reconnect",
    "database_locked",
    "outage_backlog",
    "two_agents",
    "old_plan",
    "agent_clock_behind",
    "agent_disk_full",
    "agent_killed",
    "silent_connections",
    "plaintext",
    "bad_certificates",
    "revoked_certificate",
    "weak_suites",
    "stolen_token",
]


@pytest.mark.timeout(130)  # a scenario has 120 s; most need ten
@pytest.mark.parametrize("name", IN_CI)
def test_fault_loses_nothing_acknowledged_and_passes_no_limit(name: str, tmp_path: Path) -> None:
    raise_file_limit(1_000_000)
    outcome = asyncio.run(attempt(name, SCENARIOS[name], short=True))
    assert broken(outcome) == [], outcome  # bars on time and memory are for `make chaos`


def test_everything_that_ci_runs_exists() -> None:
    assert set(IN_CI) <= SCENARIOS.keys()
