"""Fields that keep work away, set and given back under our mark: a node's cordon, a job's suspension, a queue's stop policy.

One way for all: read, change with the resourceVersion that was read, read back. A 409 means that somebody else wrote
meanwhile, so everything is looked at anew. What is set without a mark of ours belongs to another and stays.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from agent.ai.kubernetes.api import Answer, Api
from agent.ai.kubernetes.marks import ORDERS, Mark, Marks, held_by, marks_on, text_of, with_mark, without_order
from agent.ai.kubernetes.records import Metadata, read
from agent.ai.workload import Step, WorkloadRefused
from gridpivot.vocabulary import LeverOutcome

TRIES = 5  # a node's status alone changes every few seconds on a busy cluster


@dataclass(frozen=True, slots=True)
class Switch:
    """One field of one object's spec. `value_of` says what it has to be under some marks; under none it is in service."""

    subject: str
    path: str
    field: str
    value_of: Callable[[Marks], Any]
    default: Any  # what an absent field means

    def now(self, body: Mapping[str, Any]) -> Any:
        """The field's value in an object."""
        spec = body.get("spec")
        found = spec.get(self.field) if isinstance(spec, Mapping) else None
        return self.default if found is None else found

    @property
    def free(self) -> Any:
        """Its value in service."""
        return self.value_of(())


def node_switch(name: str) -> Switch:
    """A node's cordon."""
    return Switch(name, f"/api/v1/nodes/{name}", "unschedulable", bool, False)


def job_switch(namespace: str, name: str, job_id: str) -> Switch:
    """A Job's suspension."""
    return Switch(job_id, f"/apis/batch/v1/namespaces/{namespace}/jobs/{name}", "suspend", bool, False)


def workload_switch(base: str, namespace: str, name: str, job_id: str) -> Switch:
    """Kueue's switch of one job: an inactive Workload is taken off and not admitted again."""
    return Switch(job_id, f"{base}/namespaces/{namespace}/workloads/{name}", "active", lambda marks: not marks, True)


def queue_switch(name: str, path: str) -> Switch:
    """A Kueue queue's stop policy: Hold admits nothing, HoldAndDrain takes off what runs as well."""
    return Switch(name, path, "stopPolicy", _stop_policy, "None")


def _stop_policy(marks: Marks) -> str:
    return "HoldAndDrain" if any(mark.drain for mark in marks) else "Hold" if marks else "None"


async def set_switch(api: Api, switch: Switch, mark: Mark) -> Step:
    """Set it under our mark, or move our mark's end later. Done only when reading back shows it."""
    return await _write(api, switch, lambda marks: with_mark(marks, mark), taking=True)


async def free_switch(api: Api, switch: Switch, order_id: str | None, namespace: str) -> Step:
    """Take an order's marks off (None = all of the namespace's); in service again when none is left."""
    return await _write(api, switch, lambda marks: without_order(marks, order_id, namespace), taking=False)


async def mark_only(api: Api, subject: str, path: str, change: Callable[[Marks], Marks]) -> Step:
    """Change the marks on an object and nothing else."""
    return await _write(api, Switch(subject, path, "", lambda _: None, None), change, taking=True)


async def _write(api: Api, switch: Switch, change: Callable[[Marks], Marks], taking: bool) -> Step:
    try:
        for _ in range(TRIES):
            answer = await api.get(switch.path)
            if not answer.ok:
                return refusal(switch.subject, answer)
            meta, now, marks = _state(switch, answer.body)
            foreign = now != switch.free and not marks
            if foreign:
                return Step(switch.subject, LeverOutcome.NOT_OURS, f"{switch.field} is {now}, set by another")
            wanted = change(marks)
            reopened = not taking and now == switch.free  # by somebody else, whose wish counts
            value = now if reopened else switch.value_of(wanted)
            if wanted == marks and (now == value or not taking):
                return Step(switch.subject, LeverOutcome.DONE, held_by(marks))
            answer = await api.patch(switch.path, _patch(switch, meta, wanted, value, now))
            if answer.status == 409:
                continue
            if not answer.ok:
                return refusal(switch.subject, answer)
            return await _read_back(api, switch, wanted, value)
    except WorkloadRefused as error:
        return Step(switch.subject, error.outcome, str(error))
    return Step(switch.subject, LeverOutcome.FAILED, f"409 {TRIES} times: others write to it all the time; try later")


def _patch(switch: Switch, meta: Metadata, wanted: Marks, value: Any, now: Any) -> dict[str, Any]:
    body: dict[str, Any] = {
        "metadata": {"resourceVersion": meta.resource_version, "annotations": {ORDERS: text_of(wanted)}}
    }
    if switch.field and value != now:
        body["spec"] = {switch.field: value}
    return body


async def _read_back(api: Api, switch: Switch, wanted: Marks, value: Any) -> Step:
    answer = await api.get(switch.path)
    if not answer.ok:
        return refusal(switch.subject, answer)
    _, now, marks = _state(switch, answer.body)
    if now == value and marks == wanted:
        return Step(switch.subject, LeverOutcome.DONE, held_by(marks))
    return Step(
        switch.subject,
        LeverOutcome.IGNORED,
        f"the server took the change, and {switch.field or 'mark'} does not show it",
    )


def _state(switch: Switch, body: Mapping[str, Any]) -> tuple[Metadata, Any, Marks]:
    meta = read(Metadata, body.get("metadata") or {})
    return meta, switch.now(body) if switch.field else None, marks_on(meta)


def refusal(subject: str, answer: Answer) -> Step:
    """A server's no to one object, as a step."""
    return Step(subject, answer.outcome, answer.said)
