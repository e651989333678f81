"""`make chaos` in its short form: every fault, a few to a test, since each has to be over within a minute."""

import asyncio
from pathlib import Path

import pytest

from gridpivot.limits import raise_file_limit
from sim.chaos.__main__ import attempt
from sim.chaos.outcome import summary
from sim.chaos.scenarios import SCENARIOS

pytestmark = [pytest.mark.system, pytest.mark.slow]


@pytest.mark.timeout(130)  # a scenario has 120 s; most need ten
@pytest.mark.parametrize("name", SCENARIOS)
def test_fault_loses_nothing_acknowledged_and_passes_no_limit(name: str, tmp_path: Path) -> None:
    raise_file_limit(1_000_000)
    outcome = asyncio.run(attempt(name, SCENARIOS[name], short=True))
    assert summary([outcome], short=True)["misses"] == [], outcome
