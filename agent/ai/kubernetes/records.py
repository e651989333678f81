"""What an API server tells, as records: the few fields of nodes, pods, jobs and Kueue's objects that matter here. Pure.

Nonsense is refused with its place; fields that we do not know are left alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.alias_generators import to_camel

from agent.ai.workload import WorkloadRefused
from gridpivot.vocabulary import LeverOutcome

QUEUE_LABEL = "kueue.x-k8s.io/queue-name"


class _Part(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, alias_generator=to_camel, populate_by_name=True)

    @model_validator(mode="before")
    @classmethod
    def _null_is_absent(cls, given: Any) -> Any:
        return {k: v for k, v in given.items() if v is not None} if isinstance(given, Mapping) else given


class Owner(_Part):
    """Whom an object belongs to."""

    kind: str
    name: str
    uid: str = ""
    controller: bool = False


class Metadata(_Part):
    """Of every object."""

    name: str = Field(min_length=1, max_length=253)
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    owner_references: tuple[Owner, ...] = ()
    deletion_timestamp: datetime | None = None

    @property
    def controller(self) -> Owner | None:
        """The owner that would make it again."""
        return next((owner for owner in self.owner_references if owner.controller), None)


class Condition(_Part):
    """A condition of a status, or the pattern of one."""

    type: str
    status: str = "True"


class _NodeSpec(_Part):
    unschedulable: bool = False


class _NodeStatus(_Part):
    capacity: dict[str, str] = {}
    conditions: tuple[Condition, ...] = ()


class Node(_Part):
    """A node."""

    metadata: Metadata
    spec: _NodeSpec = _NodeSpec()
    status: _NodeStatus = _NodeStatus()

    @property
    def ready(self) -> bool:
        """Whether its kubelet is heard; an unknown one is not."""
        return any(c.type == "Ready" and c.status == "True" for c in self.status.conditions)


class _Resources(_Part):
    requests: dict[str, str] = {}
    limits: dict[str, str] = {}


class _Container(_Part):
    resources: _Resources = _Resources()
    restart_policy: str = ""  # "Always" makes an init container a sidecar


class PodSpec(_Part):
    """Of a pod, or of a job's template."""

    node_name: str = ""
    priority_class_name: str = ""
    active_deadline_seconds: float | None = Field(default=None, ge=0, le=1e9)
    containers: tuple[_Container, ...] = ()
    init_containers: tuple[_Container, ...] = ()

    def gpus(self, resource: str) -> int:
        """GPUs that a scheduler counts for it: all containers and sidecars, or the largest init container."""
        main = sum(_count(c, resource) for c in self.containers)
        side = sum(_count(c, resource) for c in self.init_containers if c.restart_policy == "Always")
        first = max((_count(c, resource) for c in self.init_containers), default=0)
        return max(main + side, first)


class _PodStatus(_Part):
    phase: str = ""
    start_time: datetime | None = None


class Pod(_Part):
    """A pod."""

    metadata: Metadata
    spec: PodSpec = PodSpec()
    status: _PodStatus = _PodStatus()

    @property
    def over(self) -> bool:
        """Whether it holds no GPU any more."""
        return self.status.phase in ("Succeeded", "Failed")


class _Template(_Part):
    spec: PodSpec = PodSpec()


class _FailureRule(_Part):
    action: str
    on_pod_conditions: tuple[Condition, ...] = ()


class _FailurePolicy(_Part):
    rules: tuple[_FailureRule, ...] = ()


class _JobSpec(_Part):
    parallelism: int = Field(default=1, ge=0, le=100_000)
    completions: int | None = Field(default=None, ge=0, le=10_000_000)
    suspend: bool = False
    active_deadline_seconds: float | None = Field(default=None, ge=0, le=1e9)
    backoff_limit: int = Field(default=6, ge=0)  # 6 is the API's own default
    pod_failure_policy: _FailurePolicy = _FailurePolicy()
    template: _Template = _Template()


class _JobStatus(_Part):
    succeeded: int = 0
    failed: int = 0
    start_time: datetime | None = None
    conditions: tuple[Condition, ...] = ()


class Job(_Part):
    """A Job of batch/v1."""

    metadata: Metadata
    spec: _JobSpec = _JobSpec()
    status: _JobStatus = _JobStatus()

    @property
    def over(self) -> bool:
        """Complete or failed for good."""
        return any(c.type in ("Complete", "Failed") and c.status == "True" for c in self.status.conditions)

    @property
    def queue(self) -> str:
        """Kueue's LocalQueue that decides when it runs; empty = none does."""
        return self.metadata.labels.get(QUEUE_LABEL, "")

    @property
    def forgives_evictions(self) -> bool:
        """Whether an eviction is no failure to it: the first rule that speaks of DisruptionTarget says Ignore."""
        for rule in self.spec.pod_failure_policy.rules:
            if any(c.type == "DisruptionTarget" and c.status == "True" for c in rule.on_pod_conditions):
                return rule.action == "Ignore"
        return False


class _QueueSpec(_Part):
    stop_policy: str = "None"


class Queue(_Part):
    """A LocalQueue or ClusterQueue of Kueue."""

    metadata: Metadata
    spec: _QueueSpec = _QueueSpec()


class _KueueWorkloadSpec(_Part):
    active: bool = True


class KueueWorkload(_Part):
    """What Kueue keeps beside each job."""

    metadata: Metadata
    spec: _KueueWorkloadSpec = _KueueWorkloadSpec()


Record = TypeVar("Record", bound=_Part)


def read(model: type[Record], given: Any) -> Record:
    """One object; raises WorkloadRefused with the object, the place and the reason."""
    try:
        return model.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        named = given.get("metadata") if isinstance(given, Mapping) else None
        name = str(named.get("name", "")) if isinstance(named, Mapping) else ""
        where = ".".join(map(str, first["loc"]))
        what = f"{model.__name__} {name[:60]}".strip()
        raise WorkloadRefused(LeverOutcome.FAILED, f"{what}: {where}: {first['msg']}") from None


def read_all(model: type[Record], given: Iterable[Any]) -> tuple[Record, ...]:
    """All objects of a list."""
    return tuple(read(model, one) for one in given)


def count_of(quantity: str | None) -> int:
    """Whole devices of a quantity; extended resources are always whole. Raises WorkloadRefused for anything else."""
    if quantity is None:
        return 0
    if not (quantity.isascii() and quantity.isdigit()) or len(quantity) > 6:
        raise WorkloadRefused(LeverOutcome.FAILED, f"a count of GPUs of {quantity[:40]!r} is no whole number")
    return int(quantity)


def _count(container: _Container, resource: str) -> int:
    return count_of(container.resources.requests.get(resource, container.resources.limits.get(resource)))
