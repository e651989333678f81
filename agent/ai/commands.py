"""Any scheduler behind commands of the settings: `status` tells, `pause` and `resume` act. Implements `agent.ai.workload`.

docs/commands.md gives the shape of what `status` prints. Exit codes are not evidence: after every act `status` is asked
again, and what it says is the answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from agent.ai.process import run_command
from agent.ai.work import OWNER, PoolWork, Waiting, WorkJob, WorkNode
from agent.ai.workload import Order, Step, WorkloadRefused
from gridpivot.clock import Clock
from gridpivot.settings import Section
from gridpivot.vocabulary import AiPriority, LeverOutcome

Command = Annotated[tuple[str, ...], Field(min_length=1, max_length=32)]
Name = Annotated[str, Field(min_length=1, max_length=253)]
GpuHours = Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)]
Seconds = Annotated[float, Field(ge=-1e9, le=1e9, allow_inf_nan=False)]


class CommandsSettings(Section):
    """Commands as lists of arguments; `checkpoint` where jobs can be told to save themselves."""

    status: Command
    pause: Command
    resume: Command
    checkpoint: Command | None = None
    deadline_s: float = Field(default=10.0, gt=0, le=120)
    ends_within_s: float = Field(default=60.0, gt=0, le=3600)  # a paused job is gone after this


class _Part(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class _Node(_Part):
    name: Name
    gpus: int = Field(ge=0, le=1024)
    busy_gpus: int = Field(ge=0, le=1024)
    answers: bool = True
    held_by: str = Field(default="", max_length=500)


class _Job(_Part):
    id: Name
    priority: str = "guaranteed"
    nodes: tuple[Name, ...] = ()
    gpus: int = Field(ge=0, le=100_000)
    running_s: Seconds | None = None
    due_in_s: Seconds | None = None
    checkpoints: bool = False


class _Waiting(_Part):
    priority: AiPriority
    running_gpu_h: GpuHours | None = None
    pending_gpu_h: GpuHours | None = None
    deferrable_gpu_h: GpuHours | None = None


class _Paused(_Part):
    id: Name
    held_by: str = Field(max_length=500)


class Status(_Part):
    """What `status` prints."""

    nodes: tuple[_Node, ...] = Field(max_length=10_000)
    jobs: tuple[_Job, ...] = Field(max_length=100_000)
    waiting: tuple[_Waiting, ...] = Field(default=(), max_length=3)
    admission_held_by: str = Field(default="", max_length=500)
    paused: tuple[_Paused, ...] = Field(default=(), max_length=100_000)


def parse_status(output: bytes) -> Status:
    """One JSON object; raises WorkloadRefused with the place and the reason. Unknown keys are left alone."""
    try:
        return Status.model_validate_json(output)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "output"
        raise WorkloadRefused(LeverOutcome.FAILED, f"status: {where}: {first['msg']}") from None


def work_of(status: Status, now_s: float) -> PoolWork:
    """As levers see it. A job of a class that is not ours to know counts as guaranteed: it is left alone."""
    known = set(AiPriority)
    return PoolWork(
        now_s,
        tuple(
            WorkNode(n.name, n.gpus, min(n.busy_gpus, n.gpus), n.answers, bool(n.held_by), n.held_by)
            for n in status.nodes
        ),
        tuple(
            WorkJob(
                j.id,
                AiPriority(j.priority) if j.priority in known else AiPriority.GUARANTEED,
                j.nodes,
                j.gpus,
                j.running_s,
                True,
                j.checkpoints,
                j.due_in_s,
            )
            for j in status.jobs
        ),
        tuple(Waiting(w.priority, w.running_gpu_h, w.pending_gpu_h, w.deferrable_gpu_h) for w in status.waiting),
        not status.admission_held_by,
        status.admission_held_by.startswith(OWNER),
        tuple(p.id for p in status.paused if p.held_by.startswith(OWNER)),
    )


class CommandWorkload:
    """One pool."""

    def __init__(self, settings: CommandsSettings, clock: Clock) -> None:
        self._settings, self._clock = settings, clock

    async def observe(self, now_s: float) -> PoolWork:
        """Ask `status`."""
        return work_of(await self._status(), now_s)

    async def hold(self, nodes: Sequence[str], order: Order) -> tuple[Step, ...]:
        """`pause ORDER UNTIL node NAME...`, for nodes that nobody else holds."""
        before = {n.name: n.held_by for n in (await self._status()).nodes}
        mine = [n for n in nodes if n in before and (not before[n] or before[n].startswith(OWNER))]
        if mine:
            await self._act(self._settings.pause, order.mark, f"{order.until_unix_s:.0f}", "node", *mine)
        after = {n.name: n.held_by for n in (await self._status()).nodes}
        return tuple(Step(n, *_held(after.get(n))) for n in nodes)

    async def checkpoint(self, jobs: Sequence[str], order: Order) -> tuple[Step, ...]:
        """`checkpoint ORDER JOB...`; it prints the jobs that have saved themselves, a line each."""
        if self._settings.checkpoint is None:
            return tuple(Step(job, LeverOutcome.UNSUPPORTED, "no checkpoint command in the settings") for job in jobs)
        ended = await run_command([*self._settings.checkpoint, order.mark, *jobs], self._settings.deadline_s)
        saved = set(ended.output.decode("utf-8", "replace").split())
        return tuple(Step(job, LeverOutcome.DONE if job in saved else LeverOutcome.IGNORED) for job in jobs)

    async def requeue(self, jobs: Sequence[str], order: Order) -> tuple[Step, ...]:
        """`pause ORDER UNTIL job ID...`; guaranteed work is refused here, whoever asks."""
        before = await self._status()
        running = {j.job_id: j for j in work_of(before, 0.0).jobs}
        paused = {p.id for p in before.paused if p.held_by == order.mark}  # asked for again: to wait for longer
        may = [j for j in jobs if j in paused or (j in running and running[j].priority is not AiPriority.GUARANTEED)]
        if may:
            await self._act(self._settings.pause, order.mark, f"{order.until_unix_s:.0f}", "job", *may)
        after = {j.id for j in (await self._status()).jobs}
        steps = []
        for job in jobs:
            if job in running and job not in may:
                steps.append(Step(job, LeverOutcome.UNSUPPORTED, "guaranteed work is not taken off"))
            elif job not in running and job not in paused:
                steps.append(Step(job, LeverOutcome.GONE))
            else:
                steps.append(Step(job, LeverOutcome.UNDER_WAY if job in after else LeverOutcome.DONE))
        return tuple(steps)

    async def close_admission(self, order: Order) -> tuple[Step, ...]:
        """`pause ORDER UNTIL admission`."""
        held_by = (await self._status()).admission_held_by
        if not held_by or held_by.startswith(OWNER):
            await self._act(self._settings.pause, order.mark, f"{order.until_unix_s:.0f}", "admission")
            held_by = (await self._status()).admission_held_by
        return (Step("pool", *_held(held_by)),)

    async def release(self, order_id: str | None) -> tuple[Step, ...]:
        """`resume ORDER`, for one order or for all that is marked as ours."""
        marks = await self._marks()
        wanted = sorted(m for m in marks if order_id is None or m == f"{OWNER}:{order_id}")
        for mark in wanted:
            await self._act(self._settings.resume, mark)
        left = await self._marks() if wanted else marks
        return tuple(Step(mark, LeverOutcome.IGNORED if mark in left else LeverOutcome.DONE) for mark in wanted)

    async def close(self) -> None:
        """Nothing stands open between commands."""

    async def _marks(self) -> set[str]:
        status = await self._status()
        held = [n.held_by for n in status.nodes] + [p.held_by for p in status.paused] + [status.admission_held_by]
        return {mark for mark in held if mark.startswith(f"{OWNER}:")}

    async def _status(self) -> Status:
        ended = await run_command(self._settings.status, self._settings.deadline_s)
        if ended.code:
            raise WorkloadRefused(LeverOutcome.FAILED, f"status: exit code {ended.code}: {ended.error[:200]}")
        return parse_status(ended.output)

    async def _act(self, command: Sequence[str], *arguments: str) -> None:
        """What it says does not count; what `status` says afterwards does."""
        await run_command([*command, *arguments], self._settings.deadline_s)


def _held(held_by: str | None) -> tuple[LeverOutcome, str]:
    if held_by is None:
        return LeverOutcome.GONE, ""
    if not held_by:
        return LeverOutcome.IGNORED, "still takes work"
    return (LeverOutcome.DONE if held_by.startswith(OWNER) else LeverOutcome.NOT_OURS), held_by
