"""Jobs asked to save their work, and whether they did: the signal proves nothing, a file or a comment that changed does.

Only jobs that say they expect the signal get it (SIGUSR1 ends a process that does not), and no guaranteed ones.
"""

from __future__ import annotations

import asyncio
import glob
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from agent.ai.slurm.calls import Commands
from agent.ai.slurm.marks import mark_of
from agent.ai.slurm.parse import JobRecord
from agent.ai.slurm.reading import Look
from agent.ai.slurm.settings import SlurmSettings
from agent.ai.slurm.view import Cluster, checkpoints, class_of
from agent.ai.workload import Order, Step
from gridpivot.vocabulary import AiPriority, LeverOutcome

FIRST_BEAT_S, LAST_BEAT_S = 0.1, 2.0
_SCOPES: Mapping[str, tuple[str, ...]] = {"full": ("--full",), "batch": ("--batch",), "steps": ()}


@dataclass(frozen=True, slots=True)
class Trace:
    """What a checkpoint leaves: the comment, or the newest file of the pattern with its time [ns] and size [bytes]."""

    text: str = ""
    changed_ns: int = 0
    size: int = 0


class Checkpoints:
    """Signals and evidence of one pool. Remembers whom it signalled for which order, so that a second call sends none."""

    def __init__(self, settings: SlurmSettings, commands: Commands, look: Look) -> None:
        self._settings = settings
        self._commands = commands
        self._look = look
        self._files = ThreadPoolExecutor(1, "slurm-evidence")  # a hung file system blocks this thread and nothing else
        self._before: dict[str, dict[str, Trace]] = {}  # by order, by job

    async def checkpoint(self, job_ids: Sequence[str], order: Order) -> tuple[Step, ...]:
        """Signal jobs and wait for evidence, at most checkpoint_wait_s and the order's end; all jobs beside each other."""
        mark_of(order, self._settings.partition)
        cluster = await self._look()
        wanted = list(dict.fromkeys(job_ids))
        steps = {job_id: self._stands_against(cluster.job(job_id), job_id) for job_id in wanted}
        asked = [job for job_id in wanted if steps[job_id] is None and (job := cluster.job(job_id)) is not None]
        self._before = {order.order_id: self._before.get(order.order_id, {})}  # one order at a time is remembered
        before = self._before[order.order_id]
        fresh = [job for job in asked if job.job_id not in before]
        now = await self._traces(fresh)
        if now is None:
            silent = "the evidence's file system does not answer, so no job was signalled"
            return tuple(steps[job_id] or Step(job_id, LeverOutcome.SLOW, silent) for job_id in wanted)
        for job, refused in zip(fresh, await asyncio.gather(*map(self._signal, fresh)), strict=True):
            steps[job.job_id] = refused
            if refused is None:
                before[job.job_id] = now[job.job_id]
        wait_s = min(self._settings.checkpoint_wait_s, max(0.0, order.until_unix_s - cluster.unix_s))
        await self._wait(steps, before, wait_s)
        return tuple(step for step in steps.values() if step is not None)

    def close(self) -> None:
        """Let the thread go; one that a dead file system keeps is left behind."""
        self._files.shutdown(wait=False, cancel_futures=True)

    def _stands_against(self, job: JobRecord | None, job_id: str) -> Step | None:
        if job is None or not job.running or job.leaving:
            return Step(job_id, LeverOutcome.GONE, "does not run")
        if class_of(job, self._settings) is AiPriority.GUARANTEED:
            return Step(job_id, LeverOutcome.BLOCKED, "guaranteed work is left alone")
        if self._settings.checkpoint_evidence is None:
            return Step(
                job_id, LeverOutcome.UNSUPPORTED, "set checkpoint_evidence: without it nothing proves a checkpoint"
            )
        if not checkpoints(job, self._settings):
            word = self._settings.checkpoint_comment
            return Step(
                job_id, LeverOutcome.UNSUPPORTED, f"its --comment does not say {word!r}: the signal could end it"
            )
        return None

    async def _signal(self, job: JobRecord) -> Step | None:
        signal = f"--signal={self._settings.checkpoint_signal}"
        answer = await self._commands.ask("scancel", signal, *_SCOPES[self._settings.checkpoint_scope], job.job_id)
        return None if answer.refusal is None else Step(job.job_id, answer.refusal, answer.detail)

    async def _wait(self, steps: dict[str, Step | None], before: Mapping[str, Trace], wait_s: float) -> None:
        """Fill in the steps that are None. Evidence is a change that stands still for two looks: written to its end."""
        loop = asyncio.get_running_loop()
        deadline_s, beat_s = loop.time() + wait_s, FIRST_BEAT_S
        last: Mapping[str, Trace] = {}
        while waiting := [job_id for job_id, step in steps.items() if step is None]:
            cluster = await self._look()
            jobs = [job for job_id in waiting if (job := cluster.job(job_id)) is not None]
            traces = await self._traces(jobs)
            for job_id in waiting:
                trace = None if traces is None else traces.get(job_id)
                if trace is not None and trace == last.get(job_id) and _newer(trace, before[job_id]):
                    steps[job_id] = Step(job_id, LeverOutcome.DONE, f"evidence: {trace.text}")
                elif _ended(cluster, job_id):
                    steps[job_id] = Step(job_id, LeverOutcome.GONE, "ended without evidence of a checkpoint")
                elif loop.time() >= deadline_s:
                    why = "no evidence" if traces is not None else "the evidence's file system does not answer"
                    steps[job_id] = Step(job_id, LeverOutcome.IGNORED, f"signalled, {why} within {wait_s:g} s")
            last = traces or {}
            if any(step is None for step in steps.values()):
                await asyncio.sleep(beat_s)
                beat_s = min(LAST_BEAT_S, 1.5 * beat_s)

    async def _traces(self, jobs: Sequence[JobRecord]) -> Mapping[str, Trace] | None:
        """By job; None when the file system did not answer within the deadline."""
        evidence = self._settings.checkpoint_evidence or "comment"
        if evidence == "comment":
            return {job.job_id: Trace(job.comment) for job in jobs}
        patterns = {job.job_id: pattern_of(evidence, job) for job in jobs}
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._settings.deadline_s):
                return await loop.run_in_executor(self._files, _newest_of_all, patterns)
        except TimeoutError:
            return None


def pattern_of(evidence: str, job: JobRecord) -> str:
    """The path pattern with %j (job), %A (array, or job), %a (task), %u (user) filled in as sbatch does; * and ? stay."""
    fills = {"%j": job.job_id, "%A": job.array_id or job.job_id, "%a": job.array_task or "0", "%u": job.user}
    for word, value in fills.items():
        evidence = evidence.replace(word, glob.escape(value.replace("/", "_")))
    return evidence


def _newest_of_all(patterns: Mapping[str, str]) -> dict[str, Trace]:
    return {job_id: _newest(pattern) for job_id, pattern in patterns.items()}


def _newest(pattern: str) -> Trace:
    newest = Trace()
    for path in Path("/").glob(pattern.lstrip("/")):
        try:
            status = path.stat()
        except OSError:
            continue
        if status.st_mtime_ns > newest.changed_ns:
            newest = Trace(str(path), status.st_mtime_ns, status.st_size)
    return newest


def _newer(trace: Trace, before: Trace) -> bool:
    """Compared with what stood there before, never with our clock: the file server has its own."""
    if trace.changed_ns == 0:  # comments
        return bool(trace.text) and trace.text != before.text
    return trace.changed_ns > before.changed_ns and trace.size > 0


def _ended(cluster: Cluster, job_id: str) -> bool:
    job = cluster.job(job_id)
    return job is None or not job.running
