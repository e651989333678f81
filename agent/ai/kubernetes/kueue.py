"""Kueue: admission closed by a queue's stop policy, jobs taken off by the same or by making their Workload inactive.

Kueue owns the suspension of the jobs that it admits, so those are never suspended by us. Only what carries our mark is
given back; a queue that another stopped stays stopped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

from agent.ai.kubernetes.api import Api
from agent.ai.kubernetes.marks import Mark, marks_on, without_order
from agent.ai.kubernetes.records import Job, KueueWorkload, Pod, Queue, read, read_all
from agent.ai.kubernetes.settings import KubernetesSettings
from agent.ai.kubernetes.switches import Switch, free_switch, queue_switch, set_switch, workload_switch
from agent.ai.kubernetes.view import Cluster, class_of, id_of_job, pods_of
from agent.ai.workload import Step, WorkloadRefused
from gridpivot.vocabulary import AiPriority, LeverOutcome


class Kueue:
    """The queue of one pool, where there is one."""

    def __init__(self, settings: KubernetesSettings, api: Api) -> None:
        self._settings, self._api = settings, api
        self._base = f"/apis/kueue.x-k8s.io/{settings.kueue_version}"

    @property
    def queue(self) -> Switch | None:
        """The queue of the settings."""
        if self._settings.local_queue is not None:
            name = self._settings.local_queue
            return queue_switch(name, f"{self._base}/namespaces/{self._settings.namespace}/localqueues/{name}")
        if self._settings.cluster_queue is not None:
            name = self._settings.cluster_queue
            return queue_switch(name, f"{self._base}/clusterqueues/{name}")
        return None

    async def look(self) -> Queue | None:
        """The queue as it is; raises WorkloadRefused when settings name one that is not there."""
        queue = self.queue
        if queue is None:
            return None
        answer = await self._api.get(queue.path)
        if not answer.ok:
            outcome = LeverOutcome.FAILED if answer.status == 404 else answer.outcome
            raise WorkloadRefused(outcome, f"queue {queue.subject}: {answer.said}; correct the pool's settings")
        return read(Queue, answer.body)

    async def close(self, cluster: Cluster, mark: Mark) -> Step:
        """Admit nothing new. Blocked where guaranteed work stands in the queue."""
        queue = self.queue
        if queue is None:
            return Step(
                "pool", LeverOutcome.UNSUPPORTED, "name local_queue or cluster_queue: nothing else closes admission"
            )
        running = pods_of(cluster, self._settings)
        if guaranteed := [job for job in self._in_queue(cluster) if self._guaranteed(job, running)]:
            named = id_of_job(guaranteed[0])
            return Step(queue.subject, LeverOutcome.BLOCKED, f"guaranteed work uses it: {named}")
        return await set_switch(self._api, queue, mark)

    async def release(self, cluster: Cluster, order_id: str | None) -> tuple[Step, ...]:
        """Give the queue back where an order holds it."""
        queue, namespace = self.queue, self._settings.namespace
        if queue is None or cluster.queue is None:
            return ()
        marks = marks_on(cluster.queue.metadata)
        if without_order(marks, order_id, namespace) == marks:
            return ()
        return (await free_switch(self._api, queue, order_id, namespace),)

    def drainable(
        self, cluster: Cluster, running: Mapping[str, Sequence[Pod]], asked: Sequence[Job], mark: Mark
    ) -> tuple[Job, ...]:
        """The jobs that HoldAndDrain of the LocalQueue may take off: all that run in it are asked for, none is guaranteed.

        A ClusterQueue is never drained: it may serve namespaces that we do not see.
        """
        inside = self._in_queue(cluster)
        if cluster.queue is not None and any(m.drain and _same(m, mark) for m in marks_on(cluster.queue.metadata)):
            return tuple(job for job in asked if job in inside)  # drained by this order already: to wait for longer
        going = [job for job in inside if id_of_job(job) in running]
        if (
            self._settings.local_queue is None
            or len(going) < 2
            or not all(job in asked for job in going)
            or any(self._guaranteed(job, running) for job in inside)
            or (cluster.queue is not None and _stopped_by_another(cluster.queue))
        ):
            return ()
        return tuple(going)

    async def drain(self, mark: Mark) -> Step:
        """Take off what runs in the queue, and admit nothing."""
        queue = self.queue
        assert queue is not None
        return await set_switch(self._api, queue, replace(mark, drain=True))

    async def deactivate(self, job: Job, mark: Mark) -> Step:
        """Take one job off and keep it from being admitted."""
        workload = await self._workload_of(job)
        if workload is None:
            return Step(id_of_job(job), LeverOutcome.FAILED, "Kueue keeps no Workload for it; is Kueue running?")
        return await set_switch(self._api, self._switch_of(job, workload), mark)

    async def activate(self, job: Job, order_id: str | None) -> Step:
        """Let it be admitted again, if we kept it from that."""
        workload = await self._workload_of(job)
        if workload is None or not marks_on(workload.metadata):
            return Step(id_of_job(job), LeverOutcome.DONE, "may be admitted")
        return await free_switch(self._api, self._switch_of(job, workload), order_id, self._settings.namespace)

    async def _workload_of(self, job: Job) -> KueueWorkload | None:
        path = f"{self._base}/namespaces/{self._settings.namespace}/workloads"
        found = await self._api.items(path, partial(read_all, KueueWorkload))
        return next((w for w in found if any(o.uid == job.metadata.uid for o in w.metadata.owner_references)), None)

    def _switch_of(self, job: Job, workload: KueueWorkload) -> Switch:
        return workload_switch(self._base, self._settings.namespace, workload.metadata.name, id_of_job(job))

    def _in_queue(self, cluster: Cluster) -> list[Job]:
        """Unfinished jobs of the pool's queue; of a ClusterQueue all that Kueue has in the namespace."""
        name = self._settings.local_queue
        return [job for job in cluster.jobs if not job.over and job.queue and name in (None, job.queue)]

    def _guaranteed(self, job: Job, running: Mapping[str, Sequence[Pod]]) -> bool:
        return class_of(job, running.get(id_of_job(job), ()), self._settings) is AiPriority.GUARANTEED


def _same(one: Mark, other: Mark) -> bool:
    return (one.order_id, one.namespace) == (other.order_id, other.namespace)


def _stopped_by_another(queue: Queue) -> bool:
    return queue.spec.stop_policy != "None" and not marks_on(queue.metadata)
