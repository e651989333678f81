"""What the doctor finds of the AI half: each thing that a pool names is tried once and says what to do."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from agent.doctor_ai import ai_checks
from agent.settings import AgentSettings
from tests.unit.ai.test_commands import SCHEDULER, state

pytestmark = pytest.mark.unit


def checks(**pool: Any) -> dict[str, tuple[str, str]]:
    given = {"site": "t-1", "gpu": {"pools": [{"name": "lent", **pool}]}}
    return {c.name: (c.outcome, f"{c.detail} | {c.remedy}") for c in ai_checks(AgentSettings.model_validate(given))}


def commands(file: Path) -> dict[str, Any]:
    own = [sys.executable, str(SCHEDULER), str(file)]
    return {verb: [*own, verb] for verb in ("status", "pause", "resume")}


EXPORTER = {"urls": ["http://127.0.0.1:1/metrics"], "gpus_expected": 8}


def test_scheduler_that_answers_is_told_with_what_it_runs(tmp_path: Path) -> None:
    file = tmp_path / "scheduler.json"
    file.write_text(json.dumps(state()))
    found = checks(dcgm=EXPORTER, commands=commands(file))
    assert found["scheduler of lent"] == ("ok", "4 nodes, 16 of 32 GPUs busy, 2 jobs run | ")
    assert found["GPUs"][0] == "skipped" and found["GPU guard"][0] == "skipped"


def test_scheduler_that_does_not_answer_says_what_to_do(tmp_path: Path) -> None:
    outcome, said = checks(dcgm=EXPORTER, commands=commands(tmp_path / "none.json"))["scheduler of lent"]
    assert outcome == "failed" and "by hand as the agent's user" in said


def test_exporter_query_and_meter_that_are_not_there_are_named() -> None:
    found = checks(
        dcgm=EXPORTER,
        throughput={"prometheus_url": "http://127.0.0.1:1", "query": "up"},
        meter={"host": "127.0.0.1", "port": 1, "power_address": 0},
    )
    assert found["exporters of lent"][0] == "failed" and "0 of 8 GPUs seen" in found["exporters of lent"][1]
    assert found["throughput of lent"] == ("failed", found["throughput of lent"][1])
    assert "unreachable" in found["throughput of lent"][1] and "127.0.0.1:1" in found["meter of lent"][1]
