"""A pool under Kubernetes over the stand-in server: the kit of every workload manager, and what only Kubernetes does."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from agent.ai.kubernetes.marks import ORDERS
from agent.ai.workload import Step
from gridpivot.vocabulary import AiPriority, LeverOutcome
from sim.kube.store import CLUSTER_QUEUES, JOBS, LOCAL_QUEUES, NODES, PODS, WORKLOADS
from tests.unit.ai.kubernetes.conftest import Site
from tests.unit.ai.workload_kit import World, nothing, passes

pytestmark = pytest.mark.unit

IGNORE = {"rules": [{"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]}]}


def outcomes(steps: Iterable[Step]) -> dict[str, LeverOutcome]:
    return {step.subject: step.outcome for step in steps}


def spec(site: Site, resource: object, name: str, namespace: str = "train") -> dict:
    found = site.cluster.store.get(resource, namespace, name)  # type: ignore[arg-type]
    assert found is not None
    return found["spec"]


def pods(site: Site, job: str) -> list[dict]:
    return [p for p in site.cluster.store.all(PODS, "train") if p["metadata"].get("labels", {}).get("job") == job]


def world(site: Site, job: str) -> World:
    async def pass_time(seconds: float) -> None:
        site.clock.unix_s += seconds

    pool = site.pool(local_queue="batch")
    return World(pool, "gpu2", "gpu3", job, "Job/serve", lambda: site.clock.unix_s, pass_time, nothing)


async def test_pool_passes_the_kit(site: Site) -> None:
    await passes(world(site, "Job/spot"))


async def test_pool_passes_the_kit_with_a_job_of_kueue(site: Site) -> None:
    site.cluster.add_job("train", "queued", priority_class="batch", node="gpu2", queue="batch", gpus=4)
    await passes(world(site, "Job/queued"))


async def test_kueue_drains_the_whole_queue_and_a_renewal_keeps_it(site: Site) -> None:
    for name in ("one", "two"):
        site.cluster.add_job("train", name, priority_class="batch", node="gpu2", queue="batch", gpus=4)
    pool, order = site.pool(local_queue="batch"), site.order()
    for _ in range(2):  # a renewal drains nothing anew
        steps = await pool.requeue(["Job/one", "Job/two"], order)
        assert outcomes(steps) == {"Job/one": LeverOutcome.DONE, "Job/two": LeverOutcome.DONE}
        assert spec(site, LOCAL_QUEUES, "batch")["stopPolicy"] == "HoldAndDrain"
    assert not any(w["spec"].get("active") is False for w in site.cluster.store.all(WORKLOADS))
    assert (await pool.observe(0.0)).suspended == ("Job/one", "Job/two")
    await pool.close_admission(site.order("o2"))
    await pool.release("o1")
    assert spec(site, LOCAL_QUEUES, "batch")["stopPolicy"] == "Hold"  # the other order goes on
    await pool.release("o2")
    assert spec(site, LOCAL_QUEUES, "batch")["stopPolicy"] == "None"
    assert {"Job/one", "Job/two"} <= {job.job_id for job in (await pool.observe(0.0)).jobs}


async def test_queue_is_not_drained_for_some_of_its_jobs(site: Site) -> None:
    for name in ("one", "two", "three"):
        site.cluster.add_job("train", name, priority_class="batch", node="gpu2", queue="batch", gpus=2)
    pool = site.pool(local_queue="batch")
    await pool.requeue(["Job/one", "Job/two"], site.order())
    assert spec(site, LOCAL_QUEUES, "batch").get("stopPolicy", "None") == "None"
    assert pods(site, "three") and not pods(site, "one") and not pods(site, "two")


async def test_queue_with_guaranteed_work_is_neither_closed_nor_drained(site: Site) -> None:
    for name in ("one", "two"):
        site.cluster.add_job("train", name, priority_class="batch", node="gpu2", queue="batch", gpus=2)
    site.cluster.add_job("train", "vital", priority_class="prod", node="gpu1", queue="batch")  # waits: gpu1 is full
    pool = site.pool(local_queue="batch")
    assert outcomes(await pool.close_admission(site.order())) == {"batch": LeverOutcome.BLOCKED}
    await pool.requeue(["Job/one", "Job/two"], site.order())
    assert spec(site, LOCAL_QUEUES, "batch").get("stopPolicy", "None") == "None"
    assert not pods(site, "one") and pods(site, "vital")


async def test_queue_that_another_stopped_stays_stopped(site: Site) -> None:
    site.cluster.store.patch(CLUSTER_QUEUES, "", "all", {"spec": {"stopPolicy": "Hold"}})
    pool = site.pool(cluster_queue="all")
    (step,) = await pool.close_admission(site.order())
    assert step.outcome is LeverOutcome.NOT_OURS and "Hold" in step.detail
    await pool.release(None)
    assert spec(site, CLUSTER_QUEUES, "all", "")["stopPolicy"] == "Hold"
    assert not (await pool.observe(0.0)).admitting and not (await pool.observe(0.0)).admission_ours


async def test_cluster_queue_is_closed_and_opened(site: Site) -> None:
    pool = site.pool(cluster_queue="all")
    assert outcomes(await pool.close_admission(site.order())) == {"all": LeverOutcome.DONE}
    assert outcomes(await pool.release("o1")) == {"all": LeverOutcome.DONE}
    assert spec(site, CLUSTER_QUEUES, "all", "")["stopPolicy"] == "None"


async def test_without_a_queue_admission_is_not_closed(site: Site) -> None:
    assert outcomes(await site.pool().close_admission(site.order())) == {"pool": LeverOutcome.UNSUPPORTED}


async def test_node_that_two_orders_hold_is_free_when_both_are_over(site: Site) -> None:
    pool = site.pool()
    await pool.hold(["gpu2"], site.order("a"))
    await pool.hold(["gpu2"], site.order("b"))
    await pool.release("a")
    assert spec(site, NODES, "gpu2", "")["unschedulable"]
    await pool.release("b")
    node = site.cluster.store.get(NODES, "", "gpu2")
    assert node is not None and not node["spec"]["unschedulable"] and ORDERS not in node["metadata"]["annotations"]


async def test_node_that_an_admin_uncordoned_is_not_cordoned_by_a_release(site: Site) -> None:
    pool = site.pool()
    await pool.hold(["gpu2"], site.order("a"))
    await pool.hold(["gpu2"], site.order("b"))
    site.cluster.store.patch(NODES, "", "gpu2", {"spec": {"unschedulable": False}})
    await pool.release("a")
    assert not spec(site, NODES, "gpu2", "")["unschedulable"]


async def test_marks_of_another_pool_stay(site: Site) -> None:
    mine, theirs = site.pool(), site.pool(namespace="other")
    await mine.hold(["gpu2"], site.order("a"))
    site.server.grants = None  # the other pool has rights of its own
    await theirs.hold(["gpu2"], site.order("b"))
    await mine.release(None)
    assert spec(site, NODES, "gpu2", "")["unschedulable"]
    await theirs.release(None)
    assert not spec(site, NODES, "gpu2", "")["unschedulable"]


async def test_node_outside_the_selector_is_none_of_ours(site: Site) -> None:
    assert outcomes(await site.pool().hold(["login"], site.order())) == {"login": LeverOutcome.GONE}
    assert not spec(site, NODES, "login", "").get("unschedulable")


async def test_evicted_job_waits_suspended_and_pods_that_linger_are_under_way(site: Site) -> None:
    pool = site.pool()
    site.cluster.linger = True
    assert outcomes(await pool.requeue(["Job/spot"], site.order())) == {"Job/spot": LeverOutcome.UNDER_WAY}
    assert spec(site, JOBS, "spot")["suspend"]
    assert (await pool.observe(0.0)).suspended == ()
    site.cluster.finish()
    work = await pool.observe(0.0)
    assert work.suspended == ("Job/spot",) and "Job/spot" not in {job.job_id for job in work.jobs}


async def test_budget_that_is_spent_blocks_and_nothing_is_touched(site: Site) -> None:
    site.cluster.add_job(
        "train", "pair", pods=2, gpus=4, priority_class="scavenge", node="gpu2", podFailurePolicy=IGNORE
    )
    site.budget("pair", 0)
    before = [p["metadata"]["uid"] for p in pods(site, "pair")]
    (step,) = await site.pool().requeue(["Job/pair"], site.order())
    assert step.outcome is LeverOutcome.BLOCKED and "disruption budget" in step.detail
    assert [p["metadata"]["uid"] for p in pods(site, "pair")] == before
    job = site.cluster.store.get(JOBS, "train", "pair")
    assert job is not None and not job["spec"]["suspend"] and ORDERS not in job["metadata"].get("annotations", {})


async def test_budget_of_the_last_pod_saves_the_first(site: Site) -> None:
    site.cluster.add_job(
        "train", "pair", pods=2, gpus=4, priority_class="scavenge", node="gpu2", podFailurePolicy=IGNORE
    )
    site.budget("leader", 0)
    first, last = (pod["metadata"] for pod in pods(site, "pair"))
    site.cluster.store.patch(PODS, "train", last["name"], {"metadata": {"labels": {"job": "leader"}}})
    assert outcomes(await site.pool().requeue(["Job/pair"], site.order())) == {"Job/pair": LeverOutcome.BLOCKED}
    assert [pod["metadata"]["uid"] for pod in pods(site, "pair")] == [first["uid"]]


async def test_budget_spent_half_way_leaves_the_job_running_and_unmarked(site: Site) -> None:
    site.cluster.add_job(
        "train", "pair", pods=2, gpus=4, priority_class="scavenge", node="gpu2", podFailurePolicy=IGNORE
    )
    site.budget("pair", 1)  # enough for each alone, not for both
    pool = site.pool()
    assert outcomes(await pool.requeue(["Job/pair"], site.order())) == {"Job/pair": LeverOutcome.BLOCKED}
    assert len(pods(site, "pair")) == 2 and not spec(site, JOBS, "pair")["suspend"]
    assert (await pool.observe(0.0)).suspended == () and await pool.release("o1") == ()


async def test_job_that_evictions_could_end_for_good_is_left_alone(site: Site) -> None:
    site.cluster.add_job("train", "frail", pods=4, gpus=1, priority_class="scavenge", node="gpu2")  # backoffLimit 6
    site.cluster.add_job(
        "train", "hardy", pods=4, gpus=1, priority_class="scavenge", node="gpu2", podFailurePolicy=IGNORE
    )
    frail, hardy = await site.pool().requeue(["Job/frail", "Job/hardy"], site.order())
    assert frail.outcome is LeverOutcome.BLOCKED and "podFailurePolicy" in frail.detail
    assert len(pods(site, "frail")) == 4
    assert hardy.outcome is LeverOutcome.DONE and not pods(site, "hardy")


async def test_work_that_nothing_can_make_wait_is_told_and_left(site: Site) -> None:
    owner = {"kind": "ReplicaSet", "name": "web", "uid": "u", "controller": True}
    site.cluster.add_pod("train", "web-1", "gpu2", ownerReferences=[owner])
    site.cluster.add_pod("other", "lodger", "gpu2")
    site.cluster.store.patch(PODS, "train", "web-1", {"spec": {"priorityClassName": "scavenge"}})
    pool = site.pool()
    jobs = {job.job_id: job for job in (await pool.observe(0.0)).jobs}
    assert jobs["ReplicaSet/web"].priority is AiPriority.SPOT and not jobs["ReplicaSet/web"].requeueable
    assert jobs["other/Pod/lodger"].priority is AiPriority.GUARANTEED
    steps = outcomes(await pool.requeue(["ReplicaSet/web", "other/Pod/lodger"], site.order()))
    assert steps == {"ReplicaSet/web": LeverOutcome.UNSUPPORTED, "other/Pod/lodger": LeverOutcome.BLOCKED}


async def test_one_guaranteed_pod_makes_the_whole_job_guaranteed(site: Site) -> None:
    site.cluster.store.patch(
        PODS, "train", pods(site, "spot")[0]["metadata"]["name"], {"spec": {"priorityClassName": "p"}}
    )
    assert outcomes(await site.pool().requeue(["Job/spot"], site.order())) == {"Job/spot": LeverOutcome.BLOCKED}
    assert pods(site, "spot")


async def test_checkpoint_counts_with_evidence_alone(site: Site) -> None:
    wish = {"gridpivot/checkpoint": ""}
    site.cluster.add_job("train", "saves", gpus=4, priority_class="scavenge", node="gpu2", annotations=wish)
    site.cluster.add_job("train", "deaf", gpus=4, priority_class="scavenge", node="gpu2", annotations=wish)
    pool = site.pool(checkpoint_evidence="gridpivot/checkpointed", checkpoint_wait_s=0.3)
    assert {j.job_id for j in (await pool.observe(0.0)).jobs if j.checkpoints} == {"Job/saves", "Job/deaf"}
    name = pods(site, "saves")[0]["metadata"]["name"]
    for evidence, outcome in (("an-older-order", LeverOutcome.IGNORED), ("o1", LeverOutcome.DONE)):
        change = {"metadata": {"annotations": {"gridpivot/checkpointed": evidence}}}
        site.cluster.store.patch(PODS, "train", name, change)
        steps = await pool.checkpoint(["Job/saves", "Job/deaf", "Job/spot", "Job/serve", "Job/none"], site.order())
        assert outcomes(steps) == {
            "Job/saves": outcome,
            "Job/deaf": LeverOutcome.IGNORED,
            "Job/spot": LeverOutcome.UNSUPPORTED,
            "Job/serve": LeverOutcome.BLOCKED,
            "Job/none": LeverOutcome.GONE,
        }
    assert pods(site, "deaf")[0]["metadata"]["annotations"]["gridpivot/checkpoint"] == "o1"


async def test_without_a_place_for_evidence_nobody_is_asked(site: Site) -> None:
    assert outcomes(await site.pool().checkpoint(["Job/spot"], site.order())) == {"Job/spot": LeverOutcome.UNSUPPORTED}


async def test_order_that_has_ended_does_nothing(site: Site) -> None:
    pool, late = site.pool(local_queue="batch"), site.order("late", -1.0)
    steps = [
        *await pool.hold(["gpu2"], late),
        *await pool.requeue(["Job/spot"], late),
        *await pool.close_admission(late),
    ]
    assert {step.outcome for step in steps} == {LeverOutcome.FAILED}
    assert {permission.verb for permission in site.server.asked} <= {"get", "list"}


async def test_pods_without_gpus_count_as_other_work_but_for_what_every_node_has_of_itself(site: Site) -> None:
    owner = {"apiVersion": "apps/v1", "kind": "DaemonSet", "name": "exporter", "uid": "u", "controller": True}
    site.cluster.add_pod("kube-system", "exporter-1", "gpu2", gpus=0, ownerReferences=[owner])
    site.cluster.add_pod("kube-system", "static", "gpu2", gpus=0, ownerReferences=[{**owner, "kind": "Node"}])
    before = {node.name: node.others for node in (await site.pool().observe(0.0)).nodes}
    site.cluster.add_pod("other", "prepares-data", "gpu2", gpus=0)
    after = {node.name: node.others for node in (await site.pool().observe(0.0)).nodes}
    assert before["gpu2"] == 0
    assert after == {**before, "gpu2": 1}
