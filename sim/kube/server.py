"""The stand-in API server: tokens, permissions, lists by pages, patches, evictions, and faults set from outside.

It keeps what was asked in `asked`, so that a manifest of permissions can be held against it. It is checked by the real
kubectl in tests; no real API server was at hand when it was written.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlsplit

from sim.kube.cluster import Cluster
from sim.kube.discovery import discovery
from sim.kube.store import PODS, RESOURCES, Conflict, Object, Resource, matches_fields, matches_labels
from sim.miners.web import WebAnswer, WebRequest

EVICTIONS = ("policy/v1", "policy/v1beta1")  # kubectl before 1.22 sends the old one


@dataclass(frozen=True, slots=True, order=True)
class Permission:
    """One verb on one resource; `namespaced` False = in all namespaces, or of something that has none."""

    verb: str
    group: str
    resource: str  # with its subresource, as in pods/eviction
    namespaced: bool


@dataclass(slots=True)
class Fault:
    """What goes wrong with the next `times` requests of a verb on a resource."""

    verb: str
    resource: str
    status: int = 0  # the answer; 0 = none ever (`silent`), or taken and not done (`ignored`)
    times: int = 1_000_000
    retry_after_s: int | None = None
    ignored: bool = False
    body: bytes | None = None  # said with `status` in place of a true answer

    @property
    def silent(self) -> bool:
        """Whether no answer ever comes."""
        return not self.status and not self.ignored


@dataclass(frozen=True, slots=True)
class _Target:
    resource: Resource
    namespace: str | None
    name: str
    sub: str


class KubeServer:
    """One API server. `grants` None = the agent may do everything."""

    def __init__(self, cluster: Cluster, admin_token: str, agent_token: str) -> None:
        self.cluster = cluster
        self.admin_token, self.agent_token = admin_token, agent_token
        self.grants: frozenset[Permission] | None = None
        self.asked: set[Permission] = set()  # by the agent's token
        self.refused: set[Permission] = set()
        self.faults: list[Fault] = []

    def web(self, request: WebRequest) -> WebAnswer | None:
        """Answer one request; None = silence."""
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        if token not in (self.admin_token, self.agent_token):
            return _status(401, "Unauthorized")
        url = urlsplit(request.path)
        if (found := discovery(url.path)) is not None:
            return _json(200, found)
        target = _target(url.path)
        if target is None:
            return _status(404, "the server could not find the requested resource")
        query = {key: values[-1] for key, values in parse_qs(url.query).items()}
        verb = _verb(request.method, target)
        if token == self.agent_token:
            name = f"{target.resource.name}/{target.sub}" if target.sub else target.resource.name
            wanted = Permission(verb, target.resource.group, name, target.namespace is not None)
            self.asked.add(wanted)
            if self.grants is not None and not _granted(self.grants, wanted):
                self.refused.add(wanted)
                return _status(403, f"{name} is forbidden: gridpivot cannot {verb} resource {name!r}")
            fault = next((f for f in self.faults if f.times and (f.verb, f.resource) == (verb, name)), None)
            if fault is not None:
                fault.times -= 1
                if fault.silent:
                    return None
                if fault.ignored:
                    return self._get(target)
                if fault.body is not None:
                    return WebAnswer(fault.body, fault.status)
                return _status(fault.status, "set from outside", fault.retry_after_s)
        try:
            return self._do(verb, target, query, request.body)
        except KeyError:
            return _status(404, f"{target.resource.name} {target.name!r} not found")
        except Conflict as error:
            return _status(409, f"Operation cannot be fulfilled on {target.resource.name} {target.name!r}: {error}")
        except (ValueError, TypeError) as error:
            return _status(400, str(error))

    def _do(self, verb: str, target: _Target, query: dict[str, str], body: bytes) -> WebAnswer:
        store, namespace = self.cluster.store, target.namespace or ""
        if verb == "list":
            return self._list(target, query)
        if verb == "get":
            return self._get(target)
        if target.sub == "eviction":
            return self._evict(target, json.loads(body))
        if verb == "patch":
            changed = store.patch(target.resource, namespace, target.name, json.loads(body))
            self.cluster.settle()
            return _json(200, store.get(target.resource, namespace, target.name) or changed)
        if verb == "create":
            given = json.loads(body)
            given.setdefault("metadata", {}).setdefault("namespace", namespace)
            made = store.create(target.resource, given)
            self.cluster.settle()
            return _json(201, made)
        if verb == "delete":
            there = store.get(target.resource, namespace, target.name)
            if there is None:
                raise KeyError(target.name)
            if target.resource is PODS:
                self.cluster.end_pod(there)
            else:
                store.delete(target.resource, namespace, target.name)
            self.cluster.settle()
            return _json(200, there)
        return _status(405, f"{verb} is not for the stand-in")

    def _get(self, target: _Target) -> WebAnswer:
        found = self.cluster.store.get(target.resource, target.namespace or "", target.name)
        if found is None:
            raise KeyError(target.name)
        return _json(200, found)

    def _list(self, target: _Target, query: dict[str, str]) -> WebAnswer:
        resource = target.resource
        found = [
            one
            for one in self.cluster.store.all(resource, target.namespace)
            if matches_labels(one["metadata"].get("labels", {}), query.get("labelSelector", ""))
            and matches_fields(one, query.get("fieldSelector", ""))
        ]
        start, size = int(query.get("continue", "0")), int(query.get("limit", "0")) or len(found) or 1
        meta = {"resourceVersion": self.cluster.store.version}
        if start + size < len(found):
            meta["continue"] = str(start + size)
        whole = {"kind": f"{resource.kind}List", "apiVersion": resource.api_version, "metadata": meta}
        return _json(200, {**whole, "items": found[start : start + size]})

    def _evict(self, target: _Target, eviction: Object) -> WebAnswer:
        if eviction.get("kind") != "Eviction" or eviction.get("apiVersion") not in EVICTIONS:
            return _status(400, "an Eviction is wanted")
        pod = self.cluster.store.get(PODS, target.namespace or "", target.name)
        if pod is None:
            raise KeyError(target.name)
        options = eviction.get("deleteOptions") or {}
        for key, wanted in (options.get("preconditions") or {}).items():
            if pod["metadata"].get(key) != wanted:
                raise Conflict(f"Precondition failed: {key} in precondition: {wanted}")
        status, message = self.cluster.evict(pod, "All" in (options.get("dryRun") or ()))
        return _status(status, message)


def _target(path: str) -> _Target | None:
    parts = [part for part in path.split("/") if part]
    if parts[:2] == ["api", "v1"]:
        group, version, parts = "", "v1", parts[2:]
    elif len(parts) > 3 and parts[0] == "apis":
        group, version, parts = parts[1], parts[2], parts[3:]
    else:
        return None
    namespace = None
    if len(parts) > 2 and parts[0] == "namespaces":
        namespace, parts = parts[1], parts[2:]
    if not parts:
        return None
    resource = next((r for r in RESOURCES if (r.group, r.version, r.name) == (group, version, parts[0])), None)
    if resource is None or (resource.namespaced and namespace is None and len(parts) > 1):
        return None
    return _Target(resource, namespace, parts[1] if len(parts) > 1 else "", parts[2] if len(parts) > 2 else "")


def _verb(method: str, target: _Target) -> str:
    if method == "GET":
        return "get" if target.name else "list"
    return {"PATCH": "patch", "POST": "create", "DELETE": "delete"}.get(method, method.lower())


def _granted(grants: frozenset[Permission], wanted: Permission) -> bool:
    """What is granted in all namespaces is granted in one."""
    everywhere = Permission(wanted.verb, wanted.group, wanted.resource, False)
    return wanted in grants or everywhere in grants


def _json(status: int, body: dict[str, Any], headers: tuple[tuple[str, str], ...] = ()) -> WebAnswer:
    return WebAnswer(json.dumps(body).encode(), status, (("Content-Type", "application/json"), *headers))


_REASONS = {
    400: "BadRequest",
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    405: "MethodNotAllowed",
    409: "Conflict",
    429: "TooManyRequests",
    500: "InternalError",
}


def _status(status: int, message: str, retry_after_s: int | None = None) -> WebAnswer:
    body: dict[str, Any] = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "code": status, "message": message}
    body |= {"status": "Success"} if status < 300 else {"status": "Failure", "reason": _REASONS.get(status, "")}
    headers = () if retry_after_s is None else (("Retry-After", str(retry_after_s)),)
    return _json(status, body, headers)
