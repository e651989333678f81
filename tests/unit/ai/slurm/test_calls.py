"""Commands end at their deadline, whatever they do, and refusals have their word."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from agent.ai.slurm.calls import Commands
from agent.ai.slurm.pool import SlurmPool
from agent.ai.slurm.settings import SlurmSettings
from agent.ai.workload import Order, WorkloadRefused
from gridpivot.vocabulary import LeverOutcome
from tests.unit.ai.slurm.conftest import RECORDED

pytestmark = pytest.mark.unit


def tool(bin_dir: Path, name: str, script: str) -> None:
    path = bin_dir / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def settings(bin_dir: Path, deadline_s: float = 20) -> SlurmSettings:
    return SlurmSettings(partition="train", bin_dir=bin_dir, deadline_s=deadline_s)


async def test_hanging_command_is_slow_and_leaves_no_process(tmp_path: Path) -> None:
    tool(tmp_path, "sinfo", f"sleep 300 & echo $! > {tmp_path}/pid; wait")  # the child keeps the pipe open
    with pytest.raises(WorkloadRefused, match=r"no answer within 0\.3 s") as refused:
        await Commands(settings(tmp_path, 0.3)).ask("sinfo")
    assert refused.value.outcome is LeverOutcome.SLOW
    child = int((tmp_path / "pid").read_text())
    stat = Path(f"/proc/{child}/stat")
    assert not stat.exists() or stat.read_text().split()[2] == "Z"


async def test_cancelled_call_leaves_no_process(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "begun")
    tool(tmp_path, "sinfo", f"echo $$ > {tmp_path}/begun; sleep 300")
    call = asyncio.create_task(Commands(settings(tmp_path)).ask("sinfo"))
    begun = asyncio.create_task(asyncio.to_thread((tmp_path / "begun").read_text))
    await asyncio.wait({call, begun}, return_when=asyncio.FIRST_COMPLETED)
    assert not call.done(), call.exception()
    pid = int(begun.result())
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert not Path(f"/proc/{pid}").exists()


async def test_missing_tool_is_named(tmp_path: Path) -> None:
    with pytest.raises(WorkloadRefused, match="install slurm-client") as refused:
        await Commands(settings(tmp_path)).ask("sinfo")
    assert refused.value.outcome is LeverOutcome.FAILED


@pytest.mark.parametrize(
    ("said", "outcome"),  # as 22.05.8 printed them
    [
        ("slurm_update error: Invalid user id", LeverOutcome.NO_PERMISSION),
        ("Access/permission denied for job 10", LeverOutcome.NO_PERMISSION),
        ("Invalid job id specified for job 999", LeverOutcome.GONE),
        ("Job has already finished for job 11", LeverOutcome.GONE),
        ("slurm_update error: Invalid node name specified", LeverOutcome.GONE),
        ("delete_reservation reservationname=x: Requested reservation is invalid", LeverOutcome.GONE),
        ("Requested operation is presently disabled for job 8", LeverOutcome.BLOCKED),
        ("Job is pending execution for job 1", LeverOutcome.BLOCKED),
        ("slurm_update error: something that nobody has seen", LeverOutcome.FAILED),
        ("", LeverOutcome.FAILED),
    ],
)
async def test_refusals_have_their_word(tmp_path: Path, said: str, outcome: LeverOutcome) -> None:
    tool(tmp_path, "scontrol", f"echo '{said}' >&2; exit 1")
    answer = await Commands(settings(tmp_path)).ask("scontrol")
    assert answer.refusal is outcome and answer.detail.isprintable()


async def test_unreachable_slurmctld_is_a_refusal_of_the_whole(tmp_path: Path) -> None:
    tool(tmp_path, "scontrol", "echo 'error: Unable to contact slurm controller (connect failure)' >&2; exit 1")
    with pytest.raises(WorkloadRefused, match="is slurmctld up"):
        await Commands(settings(tmp_path)).ask("scontrol")


async def test_words_reach_the_tool_as_they_are_and_its_world_is_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SQUEUE_FORMAT", "%i")
    tool(tmp_path, "scontrol", 'printf "%s|" "$@" "$LC_ALL" "$TZ" "${SQUEUE_FORMAT-unset}"')
    answer = await Commands(settings(tmp_path)).ask("scontrol", "reason=a b; $(x) 'q'")
    assert answer.text == "reason=a b; $(x) 'q'|C|UTC|unset|"


async def test_pool_is_observed_through_recorded_answers_and_no_command_changes_anything(tmp_path: Path) -> None:
    tool(tmp_path, "sinfo", f"cat {RECORDED}/sinfo.json")
    tool(tmp_path, "squeue", f"cat {RECORDED}/squeue.json")
    tool(
        tmp_path, "scontrol",
        f'echo "$@" >> {tmp_path}/said; [ "$1" = show ] && [ "$2" = partition ] && cat {RECORDED}/partition.txt; exit 0',
    )  # fmt: skip
    pool = SlurmPool(settings(tmp_path), unix_clock=lambda: 1795421935.0)
    work = await pool.observe(3.0)
    assert len(work.nodes) == 4 and work.read_at_s == 3.0
    late = Order("o", "", 1795421934.0)
    steps = [*await pool.hold(["gpu1"], late), *await pool.requeue(["3"], late), *await pool.close_admission(late)]
    assert {step.outcome for step in steps} == {LeverOutcome.FAILED}
    (blocked,) = await pool.requeue(["3"], Order("o", "", 1795429999.0))  # a partition that settings do not name
    assert blocked.outcome is LeverOutcome.BLOCKED
    assert {line.split()[0] for line in (tmp_path / "said").read_text().splitlines()} == {"show"}


async def test_drain_that_reports_success_and_does_not_show_is_no_success(tmp_path: Path) -> None:
    tool(tmp_path, "sinfo", f"cat {RECORDED}/sinfo.json")
    tool(tmp_path, "squeue", f"cat {RECORDED}/squeue.json")
    tool(tmp_path, "scontrol", f'[ "$1" = show ] && [ "$2" = partition ] && cat {RECORDED}/partition.txt; exit 0')
    pool = SlurmPool(settings(tmp_path), unix_clock=lambda: 1795421935.0)
    (step,) = await pool.hold(["gpu1"], Order("o", "", 1795429999.0))
    assert step.outcome is LeverOutcome.FAILED and "does not show" in step.detail
