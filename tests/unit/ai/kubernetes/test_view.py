"""Objects of a cluster become a pool's work; marks are ours or nobody's; nonsense is refused with its place."""

from __future__ import annotations

import re
import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.ai.kubernetes.evictions import would_fail
from agent.ai.kubernetes.marks import Mark, mark_of, marks_on, text_of, with_mark, without_order
from agent.ai.kubernetes.records import Job, Metadata, Node, Pod, PodSpec, read
from agent.ai.kubernetes.settings import KubernetesSettings
from agent.ai.kubernetes.view import Cluster, pool_work
from agent.ai.work import Waiting
from agent.ai.workload import Order, WorkloadRefused
from agent.settings import GpuPoolSettings
from gridpivot.vocabulary import AiPriority
from tests.conftest import ROOT

pytestmark = pytest.mark.unit

NOON_UNIX_S = 1_767_268_800.0
SETTINGS = KubernetesSettings(
    namespace="train", node_selector="pool=train", priorities={"batch": AiPriority.STANDARD, "low": AiPriority.SPOT}
)
MARKS = st.builds(
    Mark,
    st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", fullmatch=True),
    st.integers(min_value=0, max_value=10**11),
    st.from_regex(r"[a-z0-9][a-z0-9-]{0,30}", fullmatch=True),
    st.booleans(),
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


def gpus(count: int) -> dict[str, Any]:
    return {"containers": [{"resources": {"limits": {"nvidia.com/gpu": str(count)}}}]}


def job(name: str, priority_class: str = "batch", annotations: dict[str, str] | None = None, **spec: Any) -> Job:
    template = {"spec": {**gpus(4), "priorityClassName": priority_class}}
    meta = {"name": name, "namespace": "train", "annotations": annotations}
    return read(Job, {"metadata": meta, "spec": {"template": template, **spec}, "status": None})


def pod(name: str, owner: str, node: str = "n1", **status: Any) -> Pod:
    meta = {
        "name": name,
        "namespace": "train",
        "ownerReferences": [{"kind": "Job", "name": owner, "uid": owner, "controller": True}],
    }
    spec = {**gpus(4), "nodeName": node, "priorityClassName": "batch"}
    return read(Pod, {"metadata": meta, "spec": spec, "status": {"phase": "Running", **status}})


def node(name: str = "n1") -> Node:
    status = {"capacity": {"nvidia.com/gpu": "8"}, "conditions": [{"type": "Ready", "status": "True"}]}
    return read(Node, {"metadata": {"name": name}, "status": status})


def cluster(jobs: tuple[Job, ...] = (), pods: tuple[Pod, ...] = ()) -> Cluster:
    return Cluster(NOON_UNIX_S, (node(),), pods, jobs)


def standard(found: Cluster) -> Waiting:
    (waiting,) = [w for w in pool_work(found, SETTINGS, 0.0).waiting if w.priority is AiPriority.STANDARD]
    return waiting


def test_gpu_hours_are_counted_up_to_their_limit() -> None:
    hour_ago = "2026-01-01T11:00:00Z"
    running = read(
        Job,
        {
            **job("a", parallelism=2, completions=3, activeDeadlineSeconds=7200).model_dump(by_alias=True),
            "status": {"startTime": hour_ago, "succeeded": 1},
        },
    )
    waiting = standard(cluster((running,), (pod("a-1", "a"),)))
    assert waiting.running_gpu_h == pytest.approx(4 * 1.0)
    assert waiting.pending_gpu_h == waiting.deferrable_gpu_h == pytest.approx(4 * 2.0)  # the second of two pods


def test_job_without_a_limit_makes_the_sum_unknown() -> None:
    waiting = standard(cluster((job("a", activeDeadlineSeconds=3600), job("b"))))
    assert (waiting.running_gpu_h, waiting.pending_gpu_h) == (0.0, None)


def test_job_that_somebody_suspended_is_no_demand_and_one_of_ours_is() -> None:
    theirs = job("a", suspend=True, activeDeadlineSeconds=3600)
    ours = job("b", suspend=True, activeDeadlineSeconds=3600, annotations={"gridpivot/orders": "o=1@train"})
    assert standard(cluster((theirs,))).pending_gpu_h == 0.0
    assert standard(cluster((ours,))).pending_gpu_h == pytest.approx(4.0)
    assert pool_work(cluster((theirs, ours)), SETTINGS, 0.0).suspended == ("Job/b",)


def test_what_has_a_deadline_is_not_deferrable() -> None:
    due = job("a", activeDeadlineSeconds=3600, annotations={"gridpivot/deadline": "2026-01-01T20:00:00Z"})
    waiting = standard(cluster((due,)))
    assert (waiting.pending_gpu_h, waiting.deferrable_gpu_h) == (pytest.approx(4.0), 0.0)


@pytest.mark.parametrize(
    ("text", "due_in_s"),
    [("2026-01-01T14:00:00Z", 7200.0), ("2026-01-01T14:00:00", 7200.0), ("tomorrow", 0.0), ("", 0.0)],
)
def test_deadline_that_cannot_be_read_counts_as_now(text: str, due_in_s: float) -> None:
    found = cluster((job("a", annotations={"gridpivot/deadline": text}),), (pod("a-1", "a"),))
    assert pool_work(found, SETTINGS, 0.0).jobs[0].due_in_s == due_in_s


def test_pods_that_are_over_or_wait_hold_no_gpus() -> None:
    found = cluster(
        (job("a"),), (pod("a-1", "a", phase="Succeeded"), pod("a-2", "a", node=""), pod("a-3", "a", node="x"))
    )
    work = pool_work(found, SETTINGS, 0.0)
    assert work.jobs == () and work.nodes[0].busy_gpus == 0


def test_job_of_a_jobset_is_left_to_it() -> None:
    owned = job("a").model_dump(by_alias=True)
    owned["metadata"]["ownerReferences"] = [{"kind": "JobSet", "name": "big", "controller": True}]
    (found,) = pool_work(cluster((read(Job, owned),), (pod("a-1", "a"),)), SETTINGS, 0.0).jobs
    assert not found.requeueable and found.priority is AiPriority.STANDARD


def test_gpus_of_containers_sidecars_and_init_containers_are_counted_as_a_scheduler_does() -> None:
    def container(count: int, **more: Any) -> dict[str, Any]:
        return {"resources": {"requests": {"nvidia.com/gpu": str(count)}}, **more}

    def total(main: list[Any], init: list[Any]) -> int:
        return read(PodSpec, {"containers": main, "initContainers": init}).gpus("nvidia.com/gpu")

    assert total([container(2), container(1)], []) == 3
    assert total([container(2)], [container(4)]) == 4
    assert total([container(2)], [container(1, restartPolicy="Always")]) == 3


@pytest.mark.parametrize(
    ("spec", "pods", "fails"),
    [
        ({}, 3, False),  # backoffLimit 6 by default: two failures a pod
        ({}, 4, True),
        ({"backoffLimit": 0}, 1, True),
        ({"podFailurePolicy": {"rules": [{"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]}]}}, 99, False),
        ({"podFailurePolicy": {"rules": [{"action": "FailJob", "onPodConditions": [{"type": "DisruptionTarget"}]}]}}, 4, True),
        ({"podFailurePolicy": {"rules": [{"action": "Ignore", "onExitCodes": {"values": [1]}}]}}, 4, True),
    ],
)  # fmt: skip
def test_evictions_that_could_end_a_job_are_known_before(spec: dict[str, Any], pods: int, fails: bool) -> None:
    assert bool(would_fail(job("a", **spec), pods)) is fails


@given(st.lists(MARKS, max_size=4, unique_by=lambda m: (m.order_id, m.namespace)))
def test_marks_read_back_as_they_were_written(marks: list[Mark]) -> None:
    text = text_of(marks)
    annotations = {} if text is None else {"gridpivot/orders": text}
    assert marks_on(Metadata(name="n", annotations=annotations)) == tuple(sorted(marks))


@given(st.lists(MARKS, max_size=4, unique_by=lambda m: (m.order_id, m.namespace)), MARKS)
def test_mark_set_twice_and_taken_off_leaves_what_was(marks: list[Mark], new: Mark) -> None:
    others = tuple(sorted(m for m in marks if (m.order_id, m.namespace) != (new.order_id, new.namespace)))
    once = with_mark(others, new)
    assert with_mark(once, new) == once
    assert without_order(once, new.order_id, new.namespace) == others
    assert all(m.namespace != new.namespace for m in without_order(once, None, new.namespace))


def test_end_moves_later_and_never_earlier() -> None:
    long, short = Mark("o", 200, "train"), Mark("o", 100, "train")
    assert with_mark((long,), short) == (long,) and with_mark((short,), long) == (long,)


@pytest.mark.parametrize("text", ["", "gridpivot", "o=soon@train", "o=1@train and more", "o=1", "o=1@Train"])
def test_annotation_that_only_looks_like_ours_is_anothers(text: str) -> None:
    assert marks_on(Metadata(name="n", annotations={"gridpivot/orders": text})) == ()


@pytest.mark.parametrize("order_id", ["", "a b", "a=b", "a@b", "x" * 65, "-rf"])
def test_order_that_cannot_stand_in_an_annotation_is_refused(order_id: str) -> None:
    with pytest.raises(WorkloadRefused, match="order"):
        mark_of(Order(order_id, "", 1.0), "train")


@pytest.mark.parametrize("model", [Node, Pod, Job])
@given(metadata=JSON, spec=JSON, status=JSON)
def test_no_object_crashes(model: Any, metadata: Any, spec: Any, status: Any) -> None:
    for given_ in (metadata, {"metadata": metadata, "spec": spec, "status": status}):
        try:
            read(model, given_)
        except WorkloadRefused as error:
            assert model.__name__ in str(error) and "\n" not in str(error)


def test_nonsense_is_refused_with_its_place() -> None:
    with pytest.raises(WorkloadRefused, match=r"Job a: spec\.parallelism"):
        job("a", parallelism=-1)


def test_two_queues_are_a_settings_error() -> None:
    with pytest.raises(ValueError, match="one of local_queue and cluster_queue"):
        KubernetesSettings(namespace="a", node_selector="b", local_queue="c", cluster_queue="d")


def test_two_managers_are_a_settings_error() -> None:
    with pytest.raises(ValueError, match="one workload manager"):
        GpuPoolSettings.model_validate(
            {"name": "p", "slurm": {"partition": "a"}, "kubernetes": {"namespace": "a", "node_selector": "b"}}
        )


def test_the_pages_settings_load() -> None:
    (example,) = re.findall(r"```toml\n(.*?)```", (ROOT / "docs" / "kubernetes.md").read_text(), re.DOTALL)
    (pool,) = tomllib.loads(example)["gpu"]["pools"]
    loaded = GpuPoolSettings.model_validate(pool).kubernetes
    assert loaded is not None and loaded.priority_of("scavenge") is AiPriority.SPOT
