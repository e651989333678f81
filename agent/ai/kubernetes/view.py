"""A cluster's objects as a pool's work: which jobs run where, of which class, who holds what, how much waits. Pure.

A job is what would make its pods again: `Job/name`, `ReplicaSet/name`. Pods of other namespaces on the pool's nodes are shown
too, as guaranteed: they draw power, and they are not ours to move.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from agent.ai.kubernetes.marks import held_by, marks_on
from agent.ai.kubernetes.records import Job, Metadata, Node, Pod, Queue, count_of
from agent.ai.kubernetes.settings import KubernetesSettings
from agent.ai.work import OWNER, PoolWork, Waiting, WorkJob, WorkNode
from gridpivot.vocabulary import AiPriority

DEADLINE = f"{OWNER}/deadline"  # on a Job, RFC 3339
CHECKPOINT = f"{OWNER}/checkpoint"  # on a pod, any value: it watches this annotation; we write the order into it
_PROTECTED_FIRST = (AiPriority.GUARANTEED, AiPriority.STANDARD, AiPriority.SPOT)


@dataclass(frozen=True, slots=True)
class Cluster:
    """What was read at one moment [Unix s]: the pool's nodes, pods that are not over of all namespaces, the namespace's jobs."""

    unix_s: float
    nodes: tuple[Node, ...]
    pods: tuple[Pod, ...]
    jobs: tuple[Job, ...]
    queue: Queue | None = None

    def job(self, job_id: str) -> Job | None:
        """The Job of an id, None when it is not there or no Job."""
        return next((job for job in self.jobs if id_of_job(job) == job_id), None)


def id_of_job(job: Job) -> str:
    """The id under which levers know it."""
    return f"Job/{job.metadata.name}"


def id_of_pod(pod: Pod, namespace: str) -> str:
    """The id of the job that a pod belongs to; a pod that nothing would make again is a job of its own."""
    owner = pod.metadata.controller
    name = f"Pod/{pod.metadata.name}" if owner is None else f"{owner.kind}/{owner.name}"
    return name if pod.metadata.namespace == namespace else f"{pod.metadata.namespace}/{name}"


def pods_of(cluster: Cluster, settings: KubernetesSettings) -> dict[str, list[Pod]]:
    """By job: its pods that hold GPUs of the pool's nodes."""
    names = {node.metadata.name for node in cluster.nodes}
    found: dict[str, list[Pod]] = {}
    for pod in cluster.pods:
        if not pod.over and pod.spec.node_name in names and pod.spec.gpus(settings.gpu_resource):
            found.setdefault(id_of_pod(pod, settings.namespace), []).append(pod)
    return found


def class_of(job: Job | None, pods: Sequence[Pod], settings: KubernetesSettings) -> AiPriority:
    """The best protected class among a job's pods; of its template while there are none. Another namespace's are guaranteed.

    Pods come first, since a cluster may give them a default class that no template names.
    """
    if any(pod.metadata.namespace != settings.namespace for pod in pods):
        return AiPriority.GUARANTEED
    classes = {settings.priority_of(pod.spec.priority_class_name) for pod in pods}
    if job is not None and not pods:
        classes.add(settings.priority_of(job.spec.template.spec.priority_class_name))
    return next((priority for priority in _PROTECTED_FIRST if priority in classes), AiPriority.GUARANTEED)


def steered_by(job: Job) -> str:
    """Who would undo a suspension of ours, such as a JobSet; empty = nobody. A CronJob only makes Jobs."""
    owner = job.metadata.controller
    return "" if owner is None or owner.kind == "CronJob" else f"{owner.kind}/{owner.name}"


def checkpoints(pods: Iterable[Pod], settings: KubernetesSettings) -> bool:
    """Whether it says that it watches for the wish to save itself, and there is a place where evidence would show."""
    return settings.checkpoint_evidence is not None and any(CHECKPOINT in p.metadata.annotations for p in pods)


def pool_work(cluster: Cluster, settings: KubernetesSettings, read_at_s: float) -> PoolWork:
    """As levers see it."""
    running = pods_of(cluster, settings)
    busy = Counter[str]()
    for pod in (pod for pods in running.values() for pod in pods):
        busy[pod.spec.node_name] += pod.spec.gpus(settings.gpu_resource)
    others = Counter(pod.spec.node_name for pod in cluster.pods if _other_work(pod, settings))
    nodes = tuple(_node(node, busy[node.metadata.name], others[node.metadata.name], settings) for node in cluster.nodes)
    jobs = {id_of_job(job): job for job in cluster.jobs}
    queue = cluster.queue
    queue_open = queue is None or queue.spec.stop_policy == "None"
    return PoolWork(
        read_at_s=read_at_s,
        nodes=nodes,
        jobs=tuple(_job(job_id, pods, jobs.get(job_id), cluster.unix_s, settings) for job_id, pods in running.items()),
        waiting=_waiting(cluster, running, settings),
        admitting=queue_open and any(not node.held for node in nodes),
        admission_ours=queue is not None and not queue_open and bool(marks_on(queue.metadata)),
        suspended=tuple(id_of_job(job) for job in cluster.jobs if kept_waiting(job, running)),
    )


def kept_waiting(job: Job, running: Mapping[str, Sequence[Pod]]) -> bool:
    """Whether it carries our mark and has no pod left."""
    return bool(marks_on(job.metadata)) and not job.over and id_of_job(job) not in running


def _other_work(pod: Pod, settings: KubernetesSettings) -> bool:
    """Whether it would be lost with its node and holds no GPU: what every node has of itself (DaemonSet, static) is none."""
    owner = pod.metadata.controller
    of_the_node = owner is not None and owner.kind in ("DaemonSet", "Node")
    return not pod.over and not of_the_node and not pod.spec.gpus(settings.gpu_resource)


def _node(node: Node, busy: int, others: int, settings: KubernetesSettings) -> WorkNode:
    gpus = count_of(node.status.capacity.get(settings.gpu_resource))
    held = node.spec.unschedulable
    owner = (held_by(marks_on(node.metadata)) or "cordoned by another") if held else ""
    return WorkNode(node.metadata.name, gpus, min(gpus, busy), node.ready, held, owner, others)


def _job(job_id: str, pods: Sequence[Pod], job: Job | None, unix_s: float, settings: KubernetesSettings) -> WorkJob:
    priority = class_of(job, pods, settings)
    began = [pod.status.start_time.timestamp() for pod in pods if pod.status.start_time is not None]
    return WorkJob(
        job_id=job_id,
        priority=priority,
        nodes=tuple(sorted({pod.spec.node_name for pod in pods})),
        gpus=sum(pod.spec.gpus(settings.gpu_resource) for pod in pods),
        running_s=max(0.0, unix_s - min(began)) if began else None,
        requeueable=job is not None and not steered_by(job) and priority is not AiPriority.GUARANTEED,
        checkpoints=checkpoints(pods, settings) and priority is not AiPriority.GUARANTEED,
        due_in_s=None if job is None else due_in_s(job.metadata, unix_s),
    )


def due_in_s(metadata: Metadata, unix_s: float) -> float | None:
    """Until the deadline that a Job names [s]; one that cannot be read counts as now, which leaves the job alone."""
    text = metadata.annotations.get(DEADLINE)
    if text is None:
        return None
    try:
        due = datetime.fromisoformat(text)
    except ValueError:
        return 0.0
    return (due if due.tzinfo is not None else due.replace(tzinfo=UTC)).timestamp() - unix_s


def _waiting(
    cluster: Cluster, running: Mapping[str, Sequence[Pod]], settings: KubernetesSettings
) -> tuple[Waiting, ...]:
    """GPU-hours of the namespace's Jobs up to their activeDeadlineSeconds: an upper bound. A Job without makes its sum unknown.

    A Job that somebody suspended by hand is no demand. Deferrable is what waits, has no deadline and is not guaranteed.
    """
    sums: dict[AiPriority, list[float | None]] = {priority: [0.0, 0.0, 0.0] for priority in AiPriority}
    for job in cluster.jobs:
        if job.over or (job.spec.suspend and not job.queue and not marks_on(job.metadata)):
            continue
        here = running.get(id_of_job(job), ())
        hours = sums[class_of(job, here, settings)]
        limit_s = job.spec.active_deadline_seconds or job.spec.template.spec.active_deadline_seconds
        ran_s = 0.0 if job.status.start_time is None else cluster.unix_s - job.status.start_time.timestamp()
        left_s = None if limit_s is None else max(0.0, limit_s - ran_s)
        hours[0] = _plus(hours[0], sum(pod.spec.gpus(settings.gpu_resource) for pod in here), left_s)
        missing = max(0, _pods_wanted(job) - len(here))
        gpus = missing * job.spec.template.spec.gpus(settings.gpu_resource)
        hours[1] = _plus(hours[1], gpus, limit_s)
        if DEADLINE not in job.metadata.annotations:
            hours[2] = _plus(hours[2], gpus, limit_s)
    sums[AiPriority.GUARANTEED][2] = 0.0
    return tuple(Waiting(priority, *hours) for priority, hours in sums.items())


def _pods_wanted(job: Job) -> int:
    if job.spec.completions is None:
        return job.spec.parallelism
    return min(job.spec.parallelism, max(0, job.spec.completions - job.status.succeeded))


def _plus(hours: float | None, gpus: int, seconds: float | None) -> float | None:
    if hours is None or (seconds is None and gpus):
        return None
    return hours + gpus * (seconds or 0.0) / 3600.0
