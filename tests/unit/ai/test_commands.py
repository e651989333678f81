"""A scheduler behind commands: the kit over a real script, and everything that a bad script can do."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.ai.commands import CommandsSettings, CommandWorkload, parse_status
from agent.ai.workload import Order, WorkloadRefused
from gridpivot.clock import SystemClock
from gridpivot.vocabulary import AiPriority, LeverOutcome
from tests.unit.ai.workload_kit import World, nothing, passes

pytestmark = pytest.mark.unit

SCHEDULER = Path(__file__).with_name("scheduler.py")


def state() -> dict[str, Any]:
    nodes = [{"name": f"gpu{n}", "gpus": 8, "busy_gpus": 8 if n < 2 else 0, "held_by": ""} for n in range(4)]
    nodes[3]["held_by"] = "alice: bad fan"
    jobs = [
        {"id": "41", "priority": "spot", "nodes": ["gpu0"], "gpus": 8, "running_s": 60.0, "checkpoints": True},
        {"id": "42", "nodes": ["gpu1"], "gpus": 8},
    ]
    return {"nodes": nodes, "jobs": jobs, "waiting": [], "admission_held_by": "", "paused": [], "until": {}}


def settings(file: Path, **more: Any) -> CommandsSettings:
    own = (sys.executable, str(SCHEDULER), str(file))
    verbs = {verb: (*own, verb) for verb in ("status", "pause", "resume", "checkpoint")}
    return CommandsSettings.model_validate({**verbs, **more})


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "scheduler.json"
    path.write_text(json.dumps(state()))
    return path


def test_script_passes_the_kit(file: Path) -> None:
    async def pass_time(seconds: float) -> None:
        loaded = json.loads(file.read_text())
        loaded["until"] = {mark: until - seconds for mark, until in loaded["until"].items()}
        file.write_text(json.dumps(loaded))

    workload = CommandWorkload(settings(file), SystemClock())
    asyncio.run(passes(World(workload, "gpu2", "gpu3", "41", "42", time.time, pass_time, nothing)))


def test_job_of_unknown_class_counts_as_guaranteed(file: Path) -> None:
    work = asyncio.run(CommandWorkload(settings(file), SystemClock()).observe(5.0))
    assert {job.job_id: job.priority for job in work.jobs} == {"41": AiPriority.SPOT, "42": AiPriority.GUARANTEED}
    assert work.read_at_s == 5.0 and work.nodes[3].held and not work.nodes[3].ours


def test_job_that_does_not_save_itself_is_told(file: Path) -> None:
    loaded = state() | {"deaf": ["41"]}
    file.write_text(json.dumps(loaded))
    workload = CommandWorkload(settings(file), SystemClock())
    steps = asyncio.run(workload.checkpoint(["41"], Order("o", "", time.time() + 60)))
    assert [s.outcome for s in steps] == [LeverOutcome.IGNORED]


def refused(command: tuple[str, ...], **more: Any) -> WorkloadRefused:
    given_ = {"status": command, "pause": ("true",), "resume": ("true",), **more}
    workload = CommandWorkload(CommandsSettings.model_validate(given_), SystemClock())
    with pytest.raises(WorkloadRefused) as caught:
        asyncio.run(workload.observe(0.0))
    return caught.value


def test_command_that_hangs_is_slow_and_is_ended_with_its_children(tmp_path: Path) -> None:
    mark = tmp_path / "pid"
    error = refused(("/bin/sh", "-c", f"sleep 50 & echo $! > {mark}; wait"), deadline_s=1.0)
    assert error.outcome is LeverOutcome.SLOW and "1 s" in str(error)
    pid = int(mark.read_text())
    deadline = time.monotonic() + 5.0
    while _lives(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not _lives(pid)


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_command_that_is_not_there_or_may_not_run_has_its_word(tmp_path: Path) -> None:
    assert refused((str(tmp_path / "none"),)).outcome is LeverOutcome.UNSUPPORTED
    plain = tmp_path / "plain"
    plain.write_text("no program")
    plain.chmod(0o644)
    assert refused((str(plain),)).outcome is LeverOutcome.NO_PERMISSION


def test_endless_output_is_refused() -> None:
    error = refused(("/bin/sh", "-c", "yes"))
    assert error.outcome is LeverOutcome.FAILED and "MiB" in str(error)


def test_exit_code_of_status_counts_as_an_answer_that_is_none() -> None:
    error = refused(("/bin/sh", "-c", "echo {}; echo no database >&2; exit 3"))
    assert error.outcome is LeverOutcome.FAILED and "no database" in str(error)


@pytest.mark.parametrize(
    ("broken", "word"),
    [
        (b"", "output"),
        (b"[]", "output"),
        (b'{"nodes": [], "jobs": [{"id": "1", "gpus": -4}]}', "jobs.0.gpus"),
        (b'{"nodes": [{"name": "a", "gpus": 1e99, "busy_gpus": 0}], "jobs": []}', "nodes.0.gpus"),
        (b'{"nodes": [], "jobs": [], "waiting": [{"priority": "gold"}]}', "waiting.0.priority"),
        (b'{"nodes": [], "jobs": [], "waiting": [{"priority": "spot", "pending_gpu_h": NaN}]}', "waiting"),
    ],
)
def test_nonsense_is_refused_with_its_place(broken: bytes, word: str) -> None:
    with pytest.raises(WorkloadRefused) as caught:
        parse_status(broken)
    assert word in str(caught.value) or "JSON" in str(caught.value)


@given(st.binary(max_size=200))
def test_no_output_crashes(output: bytes) -> None:
    try:
        parse_status(output)
    except WorkloadRefused as error:
        assert error.outcome is LeverOutcome.FAILED
