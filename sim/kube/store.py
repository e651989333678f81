"""Objects of the stand-in cluster as an API server keeps them: by resource and name, with a resourceVersion that only grows."""

from __future__ import annotations

import copy
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Object = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Resource:
    """One kind of object and where it lives. `group` is empty for the core."""

    name: str
    kind: str
    group: str
    version: str
    namespaced: bool

    @property
    def api_version(self) -> str:
        """As objects carry it."""
        return f"{self.group}/{self.version}" if self.group else self.version


NODES = Resource("nodes", "Node", "", "v1", False)
NAMESPACES = Resource("namespaces", "Namespace", "", "v1", False)
PODS = Resource("pods", "Pod", "", "v1", True)
JOBS = Resource("jobs", "Job", "batch", "v1", True)
BUDGETS = Resource("poddisruptionbudgets", "PodDisruptionBudget", "policy", "v1", True)
LOCAL_QUEUES = Resource("localqueues", "LocalQueue", "kueue.x-k8s.io", "v1beta1", True)
CLUSTER_QUEUES = Resource("clusterqueues", "ClusterQueue", "kueue.x-k8s.io", "v1beta1", False)
WORKLOADS = Resource("workloads", "Workload", "kueue.x-k8s.io", "v1beta1", True)
RESOURCES = (NODES, NAMESPACES, PODS, JOBS, BUDGETS, LOCAL_QUEUES, CLUSTER_QUEUES, WORKLOADS)


class Conflict(Exception):
    """The object has changed since it was read, or is there already."""


class Store:
    """All objects. What is given out is a copy; changes go through `create`, `patch` and `delete`."""

    def __init__(self) -> None:
        self._objects: dict[tuple[str, str, str], Object] = {}
        self._version = 100

    @property
    def version(self) -> str:
        """The newest resourceVersion."""
        return str(self._version)

    def create(self, resource: Resource, given: Mapping[str, Any]) -> Object:
        """A new object; raises Conflict where the name is taken."""
        made = copy.deepcopy(dict(given))
        meta = made.setdefault("metadata", {})
        key = (resource.name, meta.get("namespace", "") if resource.namespaced else "", meta["name"])
        if key in self._objects:
            raise Conflict(f"{resource.name} {meta['name']!r} already exists")
        meta.setdefault("uid", str(uuid.uuid4()))
        meta.setdefault("creationTimestamp", "2026-01-01T00:00:00Z")
        made |= {"apiVersion": resource.api_version, "kind": resource.kind}
        self._objects[key] = made
        self._grow(made)
        return copy.deepcopy(made)

    def get(self, resource: Resource, namespace: str, name: str) -> Object | None:
        """One object, None when it is not there."""
        return copy.deepcopy(self._objects.get((resource.name, namespace if resource.namespaced else "", name)))

    def all(self, resource: Resource, namespace: str | None = None) -> Iterator[Object]:
        """All of a kind, of one namespace or of all, by name."""
        for (kind, place, _), found in sorted(self._objects.items()):
            if kind == resource.name and namespace in (None, place):
                yield copy.deepcopy(found)

    def patch(self, resource: Resource, namespace: str, name: str, change: Mapping[str, Any]) -> Object:
        """A merge patch; raises KeyError when it is not there, Conflict for a resourceVersion that is not the newest."""
        there = self._objects[(resource.name, namespace if resource.namespaced else "", name)]
        wanted = (change.get("metadata") or {}).get("resourceVersion")
        if wanted is not None and wanted != there["metadata"]["resourceVersion"]:
            raise Conflict("the object has been modified; please apply your changes to the latest version")
        merged = merge(there, change)
        assert isinstance(merged, dict)
        if merged != there:
            self._objects[(resource.name, namespace if resource.namespaced else "", name)] = merged
            self._grow(merged)
        return copy.deepcopy(merged)

    def delete(self, resource: Resource, namespace: str, name: str) -> None:
        """Gone; an absent one stays absent."""
        if self._objects.pop((resource.name, namespace if resource.namespaced else "", name), None) is not None:
            self._version += 1

    def _grow(self, changed: Object) -> None:
        self._version += 1
        changed["metadata"]["resourceVersion"] = str(self._version)


def merge(there: Any, change: Any) -> Any:
    """RFC 7386; strategic merge patches of plain fields come to the same."""
    if not isinstance(change, Mapping):
        return copy.deepcopy(change)
    merged = dict(there) if isinstance(there, Mapping) else {}
    for key, value in change.items():
        if value is None:
            merged.pop(key, None)
        elif not key.startswith("$"):  # directives of strategic merge
            merged[key] = merge(merged.get(key), value)
    return merged


def matches_labels(labels: Mapping[str, str], selector: str) -> bool:
    """Equality and existence, as in `pool=train,!old,zone!=a`."""
    for term in filter(None, (part.strip() for part in selector.split(","))):
        if "!=" in term:
            key, _, value = term.partition("!=")
            good = labels.get(key) != value
        elif "=" in term:
            key, _, value = term.replace("==", "=").partition("=")
            good = labels.get(key) == value
        else:
            good = (term.lstrip("!") in labels) != term.startswith("!")
        if not good:
            return False
    return True


def matches_fields(found: Mapping[str, Any], selector: str) -> bool:
    """Fields by their dotted path; an absent one is an empty text."""
    for term in filter(None, selector.split(",")):
        unequal = "!=" in term
        path, _, value = term.replace("==", "=").partition("!=" if unequal else "=")
        here: Any = found
        for part in path.split("."):
            here = here.get(part, "") if isinstance(here, Mapping) else ""
        if (str(here) == value) == unequal:
            return False
    return True
