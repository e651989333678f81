"""What a client asks an API server before it asks for anything: its groups, its resources, its version. Pure."""

from __future__ import annotations

from typing import Any

from sim.kube.store import RESOURCES, Resource

VERBS = ["create", "delete", "get", "list", "patch"]


def discovery(path: str) -> dict[str, Any] | None:
    """The answer for a discovery path, None for any other."""
    parts = [part for part in path.split("/") if part]
    if parts == ["version"]:
        return {"major": "1", "minor": "30", "gitVersion": "v1.30.0-gridpivot-sim", "platform": "linux/amd64"}
    if parts == ["api"]:
        return {"kind": "APIVersions", "versions": ["v1"]}
    if parts == ["apis"]:
        return {"kind": "APIGroupList", "apiVersion": "v1", "groups": _groups()}
    if parts == ["api", "v1"]:
        return _resources("", "v1")
    if len(parts) == 3 and parts[0] == "apis":
        return _resources(parts[1], parts[2])
    return None


def _groups() -> list[dict[str, Any]]:
    pairs = sorted({(resource.group, resource.version) for resource in RESOURCES if resource.group})
    groups = []
    for group, version in pairs:
        named = {"groupVersion": f"{group}/{version}", "version": version}
        groups.append({"name": group, "versions": [named], "preferredVersion": named})
    return groups


def _resources(group: str, version: str) -> dict[str, Any] | None:
    found = [resource for resource in RESOURCES if (resource.group, resource.version) == (group, version)]
    if not found:
        return None
    listed = [_entry(resource) for resource in found]
    if not group:
        eviction = {"name": "pods/eviction", "group": "policy", "version": "v1", "kind": "Eviction"}
        listed.append({**eviction, "singularName": "", "namespaced": True, "verbs": ["create"]})
    name = f"{group}/{version}" if group else version
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": name, "resources": listed}


def _entry(resource: Resource) -> dict[str, Any]:
    return {
        "name": resource.name,
        "singularName": resource.kind.lower(),
        "namespaced": resource.namespaced,
        "kind": resource.kind,
        "verbs": VERBS,
    }
