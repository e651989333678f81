"""Jobs taken off their nodes and kept waiting until the order ends, at most.

`requeuehold` alone would hold a job for ever if we died. So: note in the job's AdminComment whose it is, requeuehold, wait
until it is pending and held, then turn the hold into a start time (the order's end) and let go. A later order moves that
time, a release brings it back to now, and without us Slurm starts the job by itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from agent.ai.slurm.calls import Commands
from agent.ai.slurm.marks import JobNote, Mark, clock, mark_of, read_note
from agent.ai.slurm.parse import JobRecord
from agent.ai.slurm.reading import Look
from agent.ai.slurm.settings import SlurmSettings
from agent.ai.slurm.view import Cluster, class_of, deferred_by
from agent.ai.workload import Order, Step
from gridpivot.vocabulary import AiPriority, LeverOutcome

FIRST_BEAT_S, LAST_BEAT_S = 0.1, 2.0  # between looks: soon at first, then kind to slurmctld
AT_ONCE = 8  # commands beside each other: slurmctld takes one lock for all of them


class Requeues:
    """The jobs that one pool keeps waiting. Not safe for two calls at once: pool.py sees to that."""

    def __init__(self, settings: SlurmSettings, commands: Commands, look: Look) -> None:
        self._settings = settings
        self._commands = commands
        self._look = look
        self._slots = asyncio.Semaphore(AT_ONCE)

    async def requeue(self, job_ids: Sequence[str], order: Order) -> tuple[Step, ...]:
        """Take jobs off and defer them. Done when Slurm shows them waiting; killing takes KillWait (30 s by default)."""
        mark = mark_of(order, self._settings.partition)
        cluster = await self._look()
        wanted = list(dict.fromkeys(job_ids))
        if order.until_unix_s <= cluster.unix_s:
            return tuple(Step(job_id, LeverOutcome.FAILED, "the order has ended") for job_id in wanted)
        begun = await asyncio.gather(*(self._begin(cluster.job(job_id), job_id, mark) for job_id in wanted))
        steps: dict[str, Step | None] = dict(zip(wanted, begun, strict=True))
        loop = asyncio.get_running_loop()
        deadline_s, beat_s = loop.time() + self._settings.requeue_wait_s, FIRST_BEAT_S
        while any(step is None for step in steps.values()):
            cluster = await self._look()
            late = loop.time() >= deadline_s
            under_way = [job_id for job_id, step in steps.items() if step is None]
            found = await asyncio.gather(
                *(self._follow(cluster.job(job_id), job_id, mark, late) for job_id in under_way)
            )
            steps.update(zip(under_way, found, strict=True))
            if any(step is None for step in found):
                await asyncio.sleep(beat_s)
                beat_s = min(LAST_BEAT_S, 1.5 * beat_s)
        return tuple(step for step in steps.values() if step is not None)

    async def release(self, cluster: Cluster, order_id: str | None) -> tuple[Step, ...]:
        """Let our waiting jobs start again, not before their old credentials are void; take our notes off the others."""
        noted = [
            (job, note)
            for job in cluster.jobs
            if (job.pending or job.running)
            and (note := read_note(job.admin_comment)) is not None
            and note.mark.partition == self._settings.partition
            and order_id in (None, note.mark.order_id)
        ]
        if not noted:
            return ()
        refused = await asyncio.gather(*(self._give_back(job, note, cluster.unix_s) for job, note in noted))
        cluster = await self._look()
        steps = []
        for (job, _), step in zip(noted, refused, strict=True):
            now = cluster.job(job.job_id)
            if now is None or not (now.pending or now.running):
                steps.append(Step(job.job_id, LeverOutcome.GONE, "ended, or taken out of the queue"))
            elif step is not None:
                steps.append(step)
            elif read_note(now.admin_comment) is not None:
                steps.append(Step(job.job_id, LeverOutcome.FAILED, "our note is still on it"))
            elif job.pending:
                steps.append(Step(job.job_id, LeverOutcome.DONE, f"{'held by another' if now.held else 'may start'}"))
        return tuple(steps)

    async def _begin(self, job: JobRecord | None, job_id: str, mark: Mark) -> Step | None:
        """Note and requeue; None when it is to be followed. The note comes first: it fails for a job that has just ended,
        which requeuehold would start anew."""
        if job is None or not (job.running or job.pending):
            return Step(job_id, LeverOutcome.GONE, "does not run")
        if class_of(job, self._settings) is AiPriority.GUARANTEED:
            return Step(job_id, LeverOutcome.BLOCKED, "guaranteed work is never requeued")
        note = read_note(job.admin_comment)
        if note is not None and note.mark.partition != mark.partition:
            return Step(job_id, LeverOutcome.NOT_OURS, f"kept waiting by {note.mark}")
        if job.pending and deferred_by(job, mark.partition) is None and job.held:
            return Step(job_id, LeverOutcome.DONE, "waits already, held by another")
        if job.pending or job.leaving:
            return None if note is not None or job.pending else Step(job_id, LeverOutcome.GONE, "is ending")
        if not job.requeueable:
            return Step(job_id, LeverOutcome.BLOCKED, "was submitted with --no-requeue")
        before = job.admin_comment if note is None else note.before
        if step := await self._scontrol(
            job_id, "update", f"jobid={job_id}", f"admincomment={JobNote(mark, 0, before)}"
        ):
            return step
        if step := await self._scontrol(job_id, "requeuehold", job_id):
            await self._scontrol(job_id, "update", f"jobid={job_id}", f"admincomment={before}")
            return step
        return None

    async def _follow(self, job: JobRecord | None, job_id: str, mark: Mark, late: bool) -> Step | None:
        """One look at a job that we requeued; None while it is on its way."""
        if job is None or not (job.running or job.pending):
            return Step(job_id, LeverOutcome.GONE, "ended, or taken out of the queue")
        if not job.pending:
            if not late:
                return None
            if job.leaving:
                return Step(job_id, LeverOutcome.UNDER_WAY, "still ending; KillWait and epilog decide")
            return Step(job_id, LeverOutcome.IGNORED, "runs on after requeuehold")
        note = read_note(job.admin_comment)
        if note is not None and note.earliest_unix_s and not _earlier(note.mark, mark):
            waits_until_s = job.eligible_unix_s or job.start_unix_s or 0.0
            if waits_until_s >= mark.until_unix_s:
                return Step(job_id, LeverOutcome.DONE, f"waits until {clock(int(waits_until_s))}")
        if late:
            return Step(job_id, LeverOutcome.DONE, "held; its start time does not show, so it waits for a release")
        return await self._defer(job, note, mark)

    async def _defer(self, job: JobRecord, note: JobNote | None, mark: Mark) -> Step | None:
        """Turn our hold into a start time; what was deferred before is moved."""
        if note is None:  # it was pending, not held: nothing runs that credentials could confuse
            note = JobNote(mark, int(job.eligible_unix_s or 1), job.admin_comment)
            ours = False
        else:
            ours = job.held and not note.earliest_unix_s
            note = replace(note, mark=mark, earliest_unix_s=note.earliest_unix_s or int(job.eligible_unix_s or 1))
        start = clock(max(mark.until_unix_s, note.earliest_unix_s))
        words = (f"jobid={job.job_id}", f"starttime={start}", f"admincomment={note}")
        if step := await self._scontrol(job.job_id, "update", *words):
            return step
        return await self._scontrol(job.job_id, "release", job.job_id) if ours else None

    async def _give_back(self, job: JobRecord, note: JobNote, unix_s: float) -> Step | None:
        words = [f"jobid={job.job_id}", f"admincomment={note.before}"]
        if job.pending and note.earliest_unix_s:
            words.append(f"starttime={clock(note.earliest_unix_s) if note.earliest_unix_s > unix_s else 'now'}")
        ours = job.held and not note.earliest_unix_s
        if ours and (step := await self._scontrol(job.job_id, "release", job.job_id)):
            return step
        return await self._scontrol(job.job_id, "update", *words)

    async def _scontrol(self, job_id: str, *words: str) -> Step | None:
        async with self._slots:
            answer = await self._commands.ask("scontrol", *words)
        return None if answer.refusal is None else Step(job_id, answer.refusal, answer.detail)


def _earlier(one: Mark, other: Mark) -> bool:
    return one.until_unix_s < other.until_unix_s
