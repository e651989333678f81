"""Jobs taken off their nodes and kept waiting: pods evicted, then the Job suspended; through Kueue where Kueue decides.

The Job carries our mark before anything else happens to it, so that whoever comes after us sees whose it is. Budgets are
asked with dry runs for all pods first: a job that may go only in part stays whole.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from agent.ai.kubernetes.api import Api
from agent.ai.kubernetes.evictions import evict, would_fail
from agent.ai.kubernetes.kueue import Kueue
from agent.ai.kubernetes.marks import Mark, marks_on, with_mark, without_order
from agent.ai.kubernetes.records import Job, Pod
from agent.ai.kubernetes.settings import KubernetesSettings
from agent.ai.kubernetes.switches import free_switch, job_switch, mark_only, set_switch
from agent.ai.kubernetes.view import Cluster, class_of, id_of_job, kept_waiting, pods_of, steered_by
from agent.ai.workload import Step, WorkloadRefused
from gridpivot.vocabulary import AiPriority, LeverOutcome


class Requeues:
    """The jobs that one pool keeps waiting. Not safe for two calls at once: pool.py sees to that."""

    def __init__(
        self, settings: KubernetesSettings, api: Api, kueue: Kueue, look: Callable[[], Awaitable[Cluster]]
    ) -> None:
        self._settings, self._api, self._kueue, self._look = settings, api, kueue, look

    async def requeue(self, job_ids: Sequence[str], mark: Mark) -> tuple[Step, ...]:
        """Take them off. Done when no pod of theirs is left; terminationGracePeriodSeconds may pass until then."""
        cluster = await self._look()
        running = pods_of(cluster, self._settings)
        steps = {job_id: self._stands_against(cluster, running, job_id) for job_id in dict.fromkeys(job_ids)}
        asked = [job for job_id, step in steps.items() if step is None and (job := cluster.job(job_id)) is not None]
        drained = self._kueue.drainable(cluster, running, asked, mark)
        for job in asked:
            job_id = id_of_job(job)
            pods = running.get(job_id, [])
            try:
                steps[job_id] = await self._take_off(job, pods, mark, job in drained)
            except WorkloadRefused as error:
                steps[job_id] = Step(job_id, error.outcome, str(error))
        going = [job for job in drained if (s := steps[id_of_job(job)]) is not None and s.outcome is LeverOutcome.DONE]
        if going and len(going) == len(drained):
            done = await self._kueue.drain(mark)
            steps |= {id_of_job(job): Step(id_of_job(job), done.outcome, done.detail) for job in going}
        elif going:  # a budget keeps one of them: the others go alone
            for job in going:
                steps[id_of_job(job)] = await self._kueue.deactivate(job, mark)
        return await self._read_back(steps)

    async def release(self, cluster: Cluster, order_id: str | None) -> tuple[Step, ...]:
        """Let our waiting jobs run again as the scheduler, or Kueue, finds room."""
        namespace = self._settings.namespace
        steps = []
        for job in cluster.jobs:
            marks = marks_on(job.metadata)
            if without_order(marks, order_id, namespace) == marks:
                continue
            switch = job_switch(namespace, job.metadata.name, id_of_job(job))
            if job.queue:
                step = await self._kueue.activate(job, order_id)
                if step.outcome is LeverOutcome.DONE:
                    step = await mark_only(
                        self._api, switch.subject, switch.path, lambda m: without_order(m, order_id, namespace)
                    )
                steps.append(step)
            else:
                steps.append(await free_switch(self._api, switch, order_id, namespace))
        return tuple(steps)

    def _stands_against(self, cluster: Cluster, running: dict[str, list[Pod]], job_id: str) -> Step | None:
        job, pods = cluster.job(job_id), running.get(job_id, [])
        if not pods and (job is None or job.over or not kept_waiting(job, running)):
            return Step(job_id, LeverOutcome.GONE, "does not run")
        if pods and class_of(job, pods, self._settings) is AiPriority.GUARANTEED:
            return Step(job_id, LeverOutcome.BLOCKED, "guaranteed work is never taken off")
        if job is None:
            return Step(job_id, LeverOutcome.UNSUPPORTED, "only a Job can be made to wait; this one's owner is another")
        if owner := steered_by(job):
            return Step(job_id, LeverOutcome.UNSUPPORTED, f"{owner} would start it again")
        return None

    async def _take_off(self, job: Job, pods: Sequence[Pod], mark: Mark, drained: bool) -> Step:
        job_id, namespace = id_of_job(job), self._settings.namespace
        switch = job_switch(namespace, job.metadata.name, job_id)
        if why := "" if job.queue else would_fail(job, len(pods)):
            return Step(job_id, LeverOutcome.BLOCKED, why)
        for pod in pods:
            asked = await evict(self._api, pod, job_id, dry_run=True)
            if asked.outcome is not LeverOutcome.DONE:
                return asked
        marked = await mark_only(self._api, job_id, switch.path, lambda marks: with_mark(marks, mark))
        if marked.outcome is not LeverOutcome.DONE:
            return marked
        if job.queue:
            return marked if drained else await self._kueue.deactivate(job, mark)
        for pod in pods:
            step = await evict(self._api, pod, job_id)
            if step.outcome is not LeverOutcome.DONE:
                await mark_only(
                    self._api, job_id, switch.path, lambda marks: without_order(marks, mark.order_id, namespace)
                )
                return step
        return await set_switch(self._api, switch, mark)

    async def _read_back(self, steps: dict[str, Step | None]) -> tuple[Step, ...]:
        done = [job_id for job_id, step in steps.items() if step is not None and step.outcome is LeverOutcome.DONE]
        if done:
            running = pods_of(await self._look(), self._settings)
            for job_id in done:
                if job_id in running:
                    steps[job_id] = Step(job_id, LeverOutcome.UNDER_WAY, f"{len(running[job_id])} pods end")
        return tuple(step for step in steps.values() if step is not None)
