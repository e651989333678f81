"""What the controllers of a cluster do after each change: Jobs make pods, the scheduler binds them, Kueue admits and evicts.

Everything settles at once, except pods that `linger`: they end only when `finish` is called, as with a grace period.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sim.kube.store import (
    BUDGETS,
    CLUSTER_QUEUES,
    JOBS,
    LOCAL_QUEUES,
    NODES,
    PODS,
    WORKLOADS,
    Object,
    Store,
    matches_labels,
)

GPU = "nvidia.com/gpu"
QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
NOW = "2026-01-01T00:00:00Z"


class Cluster:
    """Controllers over a store."""

    def __init__(self) -> None:
        self.store = Store()
        self.linger = False
        self._made = 0

    def add_node(self, name: str, gpus: int = 8, labels: Mapping[str, str] | None = None) -> None:
        """A node that is ready."""
        status = {"capacity": {GPU: str(gpus)}, "conditions": [{"type": "Ready", "status": "True"}]}
        self.store.create(
            NODES, {"metadata": {"name": name, "labels": dict(labels or {})}, "spec": {}, "status": status}
        )

    def add_job(
        self,
        namespace: str,
        name: str,
        gpus: int = 8,
        pods: int = 1,
        priority_class: str = "",
        node: str = "",
        queue: str = "",
        annotations: Mapping[str, str] | None = None,
        **spec: Any,
    ) -> None:
        """A Job of `pods` pods with `gpus` each; `node` pins it. Further words go into its spec."""
        pod_spec: Object = {"containers": [{"name": "main", "resources": {"limits": {GPU: str(gpus)}}}]}
        if priority_class:
            pod_spec["priorityClassName"] = priority_class
        if node:
            pod_spec["nodeSelector"] = {"kubernetes.io/hostname": node}
        template = {"metadata": {"labels": {"job": name}, "annotations": dict(annotations or {})}, "spec": pod_spec}
        meta = {"namespace": namespace, "name": name, "labels": {QUEUE_LABEL: queue} if queue else {}}
        whole = {"parallelism": pods, "completions": pods, "suspend": bool(queue), "template": template, **spec}
        self.store.create(JOBS, {"metadata": meta, "spec": whole, "status": {"startTime": NOW}})
        self.settle()

    def add_pod(self, namespace: str, name: str, node: str, gpus: int = 1, **meta: Any) -> None:
        """A pod that no Job made."""
        spec = {"nodeName": node, "containers": [{"resources": {"limits": {GPU: str(gpus)}}}]}
        self.store.create(
            PODS,
            {
                "metadata": {"namespace": namespace, "name": name, **meta},
                "spec": spec,
                "status": {"phase": "Running", "startTime": NOW},
            },
        )

    def settle(self) -> None:
        """Let every controller see what changed."""
        for _ in range(3):
            for job in self.store.all(JOBS):
                if not _over(job):
                    self._admit(job)
            for job in self.store.all(JOBS):
                self._make_pods(job)
            for pod in self.store.all(PODS):
                if not pod["spec"].get("nodeName"):
                    self._bind(pod)

    def finish(self) -> None:
        """Let pods end that are asked to."""
        for pod in self.store.all(PODS):
            if pod["metadata"].get("deletionTimestamp"):
                self.store.delete(PODS, pod["metadata"]["namespace"], pod["metadata"]["name"])
        self.settle()

    def end_pod(self, pod: Object) -> None:
        """Delete a pod, with its grace period where pods linger."""
        meta = pod["metadata"]
        if self.linger:
            self.store.patch(PODS, meta["namespace"], meta["name"], {"metadata": {"deletionTimestamp": NOW}})
        else:
            self.store.delete(PODS, meta["namespace"], meta["name"])

    def evict(self, pod: Object, dry_run: bool) -> tuple[int, str]:
        """What the Eviction API answers: 201, 429 where a budget is spent, 500 where two budgets meet."""
        meta = pod["metadata"]
        budgets = [
            budget
            for budget in self.store.all(BUDGETS, meta["namespace"])
            if matches_labels(meta.get("labels", {}), _selector(budget))
        ]
        if len(budgets) > 1:
            return (
                500,
                "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.",
            )
        if budgets:
            allowed = int(budgets[0].get("status", {}).get("disruptionsAllowed", 0))
            if allowed <= 0:
                return 429, "Cannot evict pod as it would violate the pod's disruption budget."
            if not dry_run:
                status = {"status": {"disruptionsAllowed": allowed - 1}}
                self.store.patch(BUDGETS, meta["namespace"], budgets[0]["metadata"]["name"], status)
        if not dry_run:
            self.end_pod(pod)
            self._count_failure(pod)
            self.settle()
        return 201, ""

    def _count_failure(self, pod: Object) -> None:
        """A deleted pod is a failure of its Job, unless the policy ignores disruptions; too many end the Job."""
        owner = next((o for o in pod["metadata"].get("ownerReferences", []) if o["kind"] == "Job"), None)
        job = None if owner is None else self.store.get(JOBS, pod["metadata"]["namespace"], owner["name"])
        if job is None or any(
            r["action"] == "Ignore" for r in job["spec"].get("podFailurePolicy", {}).get("rules", [])
        ):
            return
        failed = job["status"].get("failed", 0) + 1
        status: Object = {"failed": failed}
        if failed > job["spec"].get("backoffLimit", 6):
            status["conditions"] = [{"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded"}]
        self.store.patch(JOBS, job["metadata"]["namespace"], job["metadata"]["name"], {"status": status})

    def _admit(self, job: Object) -> None:
        """Kueue: a job of a queue runs while its Workload is active and nothing above it is stopped."""
        meta = job["metadata"]
        queue = meta.get("labels", {}).get(QUEUE_LABEL)
        if not queue:
            return
        workload = self._workload_of(job)
        local = self.store.get(LOCAL_QUEUES, meta["namespace"], queue)
        above = None if local is None else self.store.get(CLUSTER_QUEUES, "", local["spec"]["clusterQueue"])
        policies = {"Hold" if q is None else q["spec"].get("stopPolicy", "None") for q in (local, above)}
        active = workload.get("spec", {}).get("active", True)
        suspended = job["spec"].get("suspend", False)
        if suspended and active and policies == {"None"}:
            self.store.patch(JOBS, meta["namespace"], meta["name"], {"spec": {"suspend": False}})
        elif not suspended and (not active or "HoldAndDrain" in policies):
            self.store.patch(JOBS, meta["namespace"], meta["name"], {"spec": {"suspend": True}})

    def _workload_of(self, job: Object) -> Object:
        meta = job["metadata"]
        name = f"job-{meta['name']}-0a1b2"
        there = self.store.get(WORKLOADS, meta["namespace"], name)
        owner = {"kind": "Job", "name": meta["name"], "uid": meta["uid"], "controller": True}
        return there or self.store.create(
            WORKLOADS,
            {"metadata": {"namespace": meta["namespace"], "name": name, "ownerReferences": [owner]}, "spec": {}},
        )

    def _make_pods(self, job: Object) -> None:
        meta, spec = job["metadata"], job["spec"]
        pods = [p for p in self.store.all(PODS, meta["namespace"]) if _owned(p, meta["uid"])]
        if _over(job) or spec.get("suspend"):
            for pod in pods:
                self.end_pod(pod)
            return
        for _ in range(spec.get("parallelism", 1) - sum("deletionTimestamp" not in p["metadata"] for p in pods)):
            self._made += 1
            owner = {"kind": "Job", "name": meta["name"], "uid": meta["uid"], "controller": True}
            pod_meta = {
                **spec["template"]["metadata"],
                "namespace": meta["namespace"],
                "name": f"{meta['name']}-{self._made:05x}",
                "ownerReferences": [owner],
            }
            self.store.create(
                PODS, {"metadata": pod_meta, "spec": spec["template"]["spec"], "status": {"phase": "Pending"}}
            )

    def _bind(self, pod: Object) -> None:
        wanted = pod["spec"].get("nodeSelector", {}).get("kubernetes.io/hostname")
        for node in self.store.all(NODES):
            name = node["metadata"]["name"]
            if node["spec"].get("unschedulable") or wanted not in (None, name):
                continue
            taken = sum(_gpus(p) for p in self.store.all(PODS) if p["spec"].get("nodeName") == name)
            if taken + _gpus(pod) <= int(node["status"]["capacity"][GPU]):
                meta = pod["metadata"]
                change = {"spec": {"nodeName": name}, "status": {"phase": "Running", "startTime": NOW}}
                self.store.patch(PODS, meta["namespace"], meta["name"], change)
                return


def _gpus(pod: Object) -> int:
    return sum(int(c.get("resources", {}).get("limits", {}).get(GPU, 0)) for c in pod["spec"]["containers"])


def _owned(pod: Object, uid: str) -> bool:
    return any(owner.get("uid") == uid for owner in pod["metadata"].get("ownerReferences", []))


def _over(job: Object) -> bool:
    return any(c["type"] in ("Failed", "Complete") for c in job.get("status", {}).get("conditions", []))


def _selector(budget: Object) -> str:
    labels = budget["spec"]["selector"].get("matchLabels", {})
    return ",".join(f"{key}={value}" for key, value in labels.items())
