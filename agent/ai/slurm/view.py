"""A pool's work out of Slurm's records. Pure: records and the time in, `PoolWork` out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from agent.ai.slurm.marks import ADMISSION, Mark, read_mark, read_note, read_reservation_name
from agent.ai.slurm.parse import JobRecord, NodeRecord, Partition, Reservation
from agent.ai.slurm.settings import SlurmSettings
from agent.ai.work import PoolWork, Waiting, WorkJob, WorkNode
from gridpivot.vocabulary import AiPriority


@dataclass(frozen=True, slots=True)
class Cluster:
    """What Slurm said in one go, all nodes and jobs of it. `unix_s`: when."""

    unix_s: float
    nodes: tuple[NodeRecord, ...]
    jobs: tuple[JobRecord, ...]
    reservations: tuple[Reservation, ...]
    partition: Partition

    def running(self) -> tuple[Reservation, ...]:
        """Reservations in force. Slurm says ACTIVE for some seconds after the end, when it holds nothing any more."""
        return tuple(r for r in self.reservations if r.active and r.end_unix_s > self.unix_s)

    def members(self) -> dict[str, NodeRecord]:
        """Nodes of the partition by name."""
        return {node.name: node for node in self.nodes if self.partition.name in node.partitions}

    def job(self, job_id: str) -> JobRecord | None:
        """A job by its number, None when Slurm has forgotten it."""
        return next((job for job in self.jobs if job.job_id == job_id), None)


def pool_work(cluster: Cluster, settings: SlurmSettings, read_at_s: float) -> PoolWork:
    """The pool's nodes, every running job on them whoever owns it, and what of the pool's own waits."""
    members = cluster.members()
    holders = _holders(cluster)
    nodes = tuple(_node(node, holders.get(node.name, ()), settings) for node in members.values())
    closed = {
        node
        for reservation in cluster.running()
        if (ours := read_reservation_name(reservation.name)) is not None
        and ours.kind == ADMISSION
        and ours.partition == settings.partition
        for node in reservation.nodes
    }
    return PoolWork(
        read_at_s=read_at_s,
        nodes=nodes,
        jobs=tuple(
            _job(job, cluster.unix_s, settings)
            for job in cluster.jobs
            if job.running and not members.keys().isdisjoint(job.nodes)
        ),
        waiting=_waiting(cluster, settings),
        admitting=cluster.partition.up and any(not node.held for node in nodes),
        admission_ours=bool(members) and members.keys() <= closed,
        suspended=tuple(job.job_id for job in cluster.jobs if deferred_by(job, settings.partition) is not None),
    )


def deferred_by(job: JobRecord, partition: str) -> Mark | None:
    """The mark under which we keep a job waiting; None when it runs, or waits for other reasons."""
    note = read_note(job.admin_comment)
    return note.mark if note is not None and note.mark.partition == partition and job.pending else None


def drained_by(node: NodeRecord, partition: str) -> Mark | None:
    """The mark under which we drained a node for this pool; None when it is in service, or another drained it."""
    mark = read_mark(node.reason) if node.drained else None
    return mark if mark is not None and mark.partition == partition else None


def class_of(job: JobRecord, settings: SlurmSettings) -> AiPriority:
    """A job's class: its partition's; the least harmful of several; a job that the pool's filter leaves out is guaranteed."""
    rank = list(AiPriority)
    of_partitions = min((settings.priority_of(name) for name in job.partitions), key=rank.index)
    if settings.partition in job.partitions and not of_pool(job, settings):
        return AiPriority.GUARANTEED
    return of_partitions


def of_pool(job: JobRecord, settings: SlurmSettings) -> bool:
    """Whether partition, QOS and account make it the pool's own."""
    return (
        settings.partition in job.partitions
        and (settings.qos is None or job.qos == settings.qos)
        and (settings.account is None or job.account == settings.account)
    )


def checkpoints(job: JobRecord, settings: SlurmSettings) -> bool:
    """Whether it may be sent the signal: it says so in its comment, and there is a place where evidence would show.

    A job that does not expect SIGUSR1 dies of it, so silence is a no.
    """
    if settings.checkpoint_evidence is None:
        return False
    return settings.checkpoint_comment is None or settings.checkpoint_comment in job.comment


def gpus_of(job: JobRecord, settings: SlurmSettings) -> int:
    """GPUs it has or asks for; whole nodes where Slurm does not count GPUs."""
    if job.gpus is not None:
        return job.gpus
    return (settings.gpus_per_node or 0) * max(len(job.nodes), job.node_count)


def shared_with_guaranteed(node: NodeRecord, settings: SlurmSettings) -> tuple[str, ...]:
    """Partitions of a node, other than the pool's, whose work must not be kept waiting."""
    return tuple(
        name
        for name in node.partitions
        if name != settings.partition and settings.priority_of(name) is AiPriority.GUARANTEED
    )


def others_reservations(cluster: Cluster) -> dict[str, str]:
    """By node: the name of a running reservation that somebody else made."""
    return {
        node: reservation.name
        for reservation in cluster.running()
        if read_reservation_name(reservation.name) is None
        for node in reservation.nodes
    }


def _holders(cluster: Cluster) -> Mapping[str, tuple[str, ...]]:
    """By node: running reservations on it, others' first."""
    holders: dict[str, list[str]] = {}
    for reservation in sorted(cluster.running(), key=lambda r: read_reservation_name(r.name) is not None):
        for node in reservation.nodes:
            holders.setdefault(node, []).append(reservation.name)
    return {node: tuple(names) for node, names in holders.items()}


def _node(node: NodeRecord, holders: Sequence[str], settings: SlurmSettings) -> WorkNode:
    gpus = node.gpus if node.gpus is not None else settings.gpus_per_node or 0
    if node.gpus is not None and node.busy_gpus is not None:
        busy = min(gpus, node.busy_gpus)
    else:
        busy = gpus if node.busy_cpus else 0
    others = [name for name in holders if read_reservation_name(name) is None]
    if node.drained and read_mark(node.reason) is None:
        reason = f"{node.reason_by or 'somebody'}: {node.reason or 'no reason given'}"
    elif others:
        reason = f"reservation {others[0]}"
    elif node.drained:
        reason = node.reason
    else:
        reason = holders[0] if holders else ""
    return WorkNode(node.name, gpus, busy, not node.down, node.drained or bool(holders), reason)


def _job(job: JobRecord, unix_s: float, settings: SlurmSettings) -> WorkJob:
    priority = class_of(job, settings)
    return WorkJob(
        job_id=job.job_id,
        priority=priority,
        nodes=job.nodes,
        gpus=gpus_of(job, settings),
        running_s=None if job.start_unix_s is None else max(0.0, unix_s - job.start_unix_s),
        requeueable=job.requeueable and priority is not AiPriority.GUARANTEED,
        checkpoints=checkpoints(job, settings) and priority is not AiPriority.GUARANTEED,
        due_in_s=None if job.deadline_unix_s is None else job.deadline_unix_s - unix_s,
    )


def _waiting(cluster: Cluster, settings: SlurmSettings) -> tuple[Waiting, ...]:
    """GPU-hours up to the time limits: an upper bound. One job without a limit makes its sum unknown.

    What somebody else holds is no demand. Deferrable is what waits and has no deadline that deferring would break.
    """
    running: float | None = 0.0
    pending: float | None = 0.0
    deferrable: float | None = 0.0
    for job in cluster.jobs:
        if not of_pool(job, settings):
            continue
        if job.running and not job.leaving:
            left_s = (
                None if job.limit_s is None or job.end_unix_s is None else max(0.0, job.end_unix_s - cluster.unix_s)
            )
            running = _plus(running, gpus_of(job, settings), left_s)
        elif job.pending and (not job.held or deferred_by(job, settings.partition) is not None):
            pending = _plus(pending, gpus_of(job, settings) * job.tasks, job.limit_s)
            if job.deadline_unix_s is None or job.deadline_unix_s - cluster.unix_s > 2 * (job.limit_s or 0.0):
                deferrable = _plus(deferrable, gpus_of(job, settings) * job.tasks, job.limit_s)
    if settings.priority is AiPriority.GUARANTEED:
        deferrable = 0.0
    return (Waiting(settings.priority, running, pending, deferrable),)


def _plus(hours: float | None, gpus: int, seconds: float | None) -> float | None:
    if hours is None or (seconds is None and gpus):
        return None
    return hours + gpus * (seconds or 0.0) / 3600.0
