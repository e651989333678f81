"""Pods asked off their nodes through the Eviction API, which asks PodDisruptionBudgets first. 429 is an answer, not an error."""

from __future__ import annotations

from agent.ai.kubernetes.api import Answer, Api
from agent.ai.kubernetes.records import Job, Pod, read
from agent.ai.kubernetes.switches import TRIES
from agent.ai.workload import Step
from gridpivot.vocabulary import LeverOutcome


def would_fail(job: Job, pods: int) -> str:
    """Why evicting that many pods could end the Job for good; empty = it cannot.

    A Job counts deleted pods as failures against backoffLimit unless its podFailurePolicy ignores DisruptionTarget
    (batch/v1, since 1.26). Each pod may count twice: evicted, and its successor deleted when the Job is suspended.
    """
    room = job.spec.backoff_limit - job.status.failed
    if job.forgives_evictions or room >= 2 * pods:
        return ""
    return f"evicting {pods} pods could fail it for good (backoffLimit leaves {room}); give it a podFailurePolicy that ignores DisruptionTarget"


async def evict(api: Api, pod: Pod, subject: str, dry_run: bool = False) -> Step:
    """One pod. Done = the server took it, or it is gone. Only this very pod: a successor of the same name is another."""
    meta = pod.metadata
    path = f"/api/v1/namespaces/{meta.namespace}/pods/{meta.name}"
    version = meta.resource_version
    for _ in range(TRIES):
        answer = await api.create(f"{path}/eviction", _eviction(meta.name, meta.namespace, meta.uid, version, dry_run))
        if answer.ok or answer.status == 404:
            return Step(subject, LeverOutcome.DONE)
        if answer.status != 409:
            return _refused(subject, meta.name, answer)
        now = await api.get(path)
        if now.status == 404:
            return Step(subject, LeverOutcome.DONE)
        if not now.ok:
            return _refused(subject, meta.name, now)
        there = read(Pod, now.body)
        if there.metadata.uid != meta.uid:
            return Step(subject, LeverOutcome.DONE, "replaced meanwhile")
        version = there.metadata.resource_version
    return Step(subject, LeverOutcome.FAILED, f"pod {meta.name}: 409 {TRIES} times; try later")


def _eviction(name: str, namespace: str, uid: str, version: str, dry_run: bool) -> dict[str, object]:
    options: dict[str, object] = {"preconditions": {"uid": uid, "resourceVersion": version}}
    if dry_run:
        options["dryRun"] = ["All"]
    return {
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": name, "namespace": namespace},
        "deleteOptions": options,
    }


def _refused(subject: str, pod: str, answer: Answer) -> Step:
    return Step(subject, answer.outcome, f"pod {pod}: {answer.said}")
