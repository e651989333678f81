"""Settings of a pool that is a namespace on labelled nodes of a Kubernetes cluster. Times in seconds."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from gridpivot.settings import Section
from gridpivot.vocabulary import AiPriority

NAME = r"^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$"  # DNS subdomain, RFC 1123
ANNOTATION = r"^([a-z0-9.-]{1,253}/)?[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?$"


class KubernetesSettings(Section):
    """One pool. `priorities` gives every priority class its class here; one that it does not name is guaranteed."""

    namespace: str = Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")
    node_selector: str = Field(min_length=1, max_length=500)  # as kubectl get nodes -l takes it
    api_url: str | None = Field(default=None, pattern=r"^https?://[^\s/]{1,253}$")  # none = the cluster we run in
    ca_file: Path | None = None
    token_file: Path | None = None
    priorities: dict[str, AiPriority] = Field(default={})
    gpu_resource: str = Field(default="nvidia.com/gpu", pattern=ANNOTATION)
    local_queue: str | None = Field(default=None, pattern=NAME)  # Kueue; spot and standard work only
    cluster_queue: str | None = Field(default=None, pattern=NAME)
    kueue_version: Literal["v1beta1", "v1beta2"] = "v1beta1"
    checkpoint_evidence: str | None = Field(default=None, pattern=ANNOTATION)  # that a job writes on a pod of its own
    checkpoint_wait_s: float = Field(default=60.0, gt=0, le=3600)
    deadline_s: float = Field(default=5.0, gt=0, le=60)  # of one request
    ends_within_s: float = Field(default=60.0, gt=0, le=3600)  # terminationGracePeriodSeconds passes in it

    @model_validator(mode="after")
    def _one_queue(self) -> Self:
        if self.local_queue is not None and self.cluster_queue is not None:
            raise ValueError("give one of local_queue and cluster_queue: admission is closed in one place")
        return self

    def priority_of(self, priority_class: str) -> AiPriority:
        """Class of a pod by its priorityClassName. What is not known is not touched: guaranteed."""
        return self.priorities.get(priority_class, AiPriority.GUARANTEED)
