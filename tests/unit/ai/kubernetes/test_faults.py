"""What an API server can do to us: 409, 429, 500, silence, an expired token, missing rights, garbage. Each has its word."""

from __future__ import annotations

import pytest

from agent.ai.kubernetes.api import MOST_BYTES, PAGE_BYTES
from agent.ai.workload import WorkloadRefused
from gridpivot.vocabulary import LeverOutcome
from sim.kube.store import JOBS, NODES, PODS
from sim.miners.web import WebAnswer, WebRequest
from tests.unit.ai.kubernetes.conftest import Site

pytestmark = pytest.mark.unit


def node(site: Site, name: str = "gpu2") -> dict:
    found = site.cluster.store.get(NODES, "", name)
    assert found is not None
    return found


async def test_conflict_is_tried_anew_and_then_told(site: Site) -> None:
    pool = site.pool()
    site.fail("patch", "nodes", status=409, times=2)
    (step,) = await pool.hold(["gpu2"], site.order())
    assert step.outcome is LeverOutcome.DONE
    await pool.release(None)
    site.fail("patch", "nodes", status=409, times=50)
    (step,) = await pool.hold(["gpu2"], site.order())
    assert step.outcome is LeverOutcome.FAILED and "409" in step.detail
    assert not node(site)["spec"].get("unschedulable")


async def test_conflict_on_an_eviction_is_tried_anew(site: Site) -> None:
    site.fail("create", "pods/eviction", status=409, times=2)
    (step,) = await site.pool().requeue(["Job/spot"], site.order())
    assert step.outcome is LeverOutcome.DONE


async def test_429_is_an_answer_and_keeps_when_to_come_again(site: Site) -> None:
    site.fail("create", "pods/eviction", status=429, retry_after_s=10)
    (step,) = await site.pool().requeue(["Job/spot"], site.order())
    assert step.outcome is LeverOutcome.BLOCKED and "retry after 10 s" in step.detail


@pytest.mark.parametrize(
    ("status", "outcome"),
    [(500, LeverOutcome.FAILED), (503, LeverOutcome.FAILED), (504, LeverOutcome.SLOW), (404, LeverOutcome.GONE)],
)
async def test_refused_write_is_a_step_of_its_own(site: Site, status: int, outcome: LeverOutcome) -> None:
    site.fail("patch", "nodes", status=status, times=1)
    first, second = await site.pool().hold(["gpu2", "gpu0"], site.order())
    assert sorted([first.outcome, second.outcome]) == sorted([outcome, LeverOutcome.DONE])


async def test_500_on_an_eviction_leaves_the_job_unmarked(site: Site) -> None:
    pool = site.pool()
    site.fail("create", "pods/eviction", status=500)
    (step,) = await pool.requeue(["Job/spot"], site.order())
    assert step.outcome is LeverOutcome.FAILED and "pod spot-" in step.detail
    job = site.cluster.store.get(JOBS, "train", "spot")
    assert job is not None and not job["spec"]["suspend"] and await pool.release(None) == ()


async def test_write_that_is_taken_and_not_done_is_no_success(site: Site) -> None:
    site.fail("patch", "nodes", ignored=True)
    (step,) = await site.pool().hold(["gpu2"], site.order())
    assert step.outcome is LeverOutcome.IGNORED


async def test_silent_write_is_slow(site: Site) -> None:
    site.fail("patch", "nodes")
    (step,) = await site.pool(deadline_s=3).hold(
        ["gpu2"], site.order()
    )  # long enough for a handshake on a busy machine
    assert step.outcome is LeverOutcome.SLOW and "PATCH" in step.detail and "3 s" in step.detail


async def test_silent_list_is_slow(site: Site) -> None:
    site.fail("list", "pods")
    with pytest.raises(WorkloadRefused, match=r"/api/v1/pods: no answer within 3 s") as refused:
        await site.pool(deadline_s=3).observe(0.0)
    assert refused.value.outcome is LeverOutcome.SLOW


@pytest.mark.parametrize(("status", "outcome"), [(500, LeverOutcome.FAILED), (429, LeverOutcome.BLOCKED)])
@pytest.mark.parametrize("resource", ["nodes", "pods", "jobs"])
async def test_half_a_look_is_none(site: Site, resource: str, status: int, outcome: LeverOutcome) -> None:
    site.fail("list", resource, status=status)
    with pytest.raises(WorkloadRefused) as refused:
        await site.pool().observe(0.0)
    assert refused.value.outcome is outcome and resource in str(refused.value)


async def test_expired_token_is_told_and_a_new_one_is_taken_up(site: Site) -> None:
    pool = site.pool()
    site.server.agent_token = "the-next-one"
    with pytest.raises(WorkloadRefused, match="expired") as refused:
        await pool.observe(0.0)
    assert refused.value.outcome is LeverOutcome.NO_PERMISSION
    (site.directory / "token").write_text("the-next-one")
    assert (await pool.observe(0.0)).nodes


async def test_missing_rights_name_the_manifest(site: Site) -> None:
    site.server.grants = frozenset()
    with pytest.raises(WorkloadRefused, match=r"rbac\.yaml") as refused:
        await site.pool().observe(0.0)
    assert refused.value.outcome is LeverOutcome.NO_PERMISSION
    site.server.refused.clear()


async def test_files_that_are_not_there_are_named(site: Site) -> None:
    with pytest.raises(WorkloadRefused, match="token_file"):
        await site.pool(token_file=site.directory / "none").observe(0.0)
    with pytest.raises(WorkloadRefused, match="ca_file"):
        await site.pool(ca_file=site.directory / "none").observe(0.0)


async def test_server_of_another_ca_is_refused(site: Site) -> None:
    pool = site.pool(ca_file=None)
    with pytest.raises(WorkloadRefused, match="certificate") as refused:
        await pool.observe(0.0)
    assert refused.value.outcome is LeverOutcome.FAILED and not site.server.asked


async def test_nobody_there_is_failed(site: Site) -> None:
    pool = site.pool()
    await site.port.close()
    with pytest.raises(WorkloadRefused, match="is the API server up"):
        await pool.observe(0.0)


async def test_queue_that_is_not_there_is_named(site: Site) -> None:
    with pytest.raises(WorkloadRefused, match="queue nope"):
        await site.pool(local_queue="nope").observe(0.0)


@pytest.mark.parametrize("quantity", ["many", "-1", "1e9", "8k", "1.5", "٣"])
async def test_absurd_count_of_gpus_is_refused(site: Site, quantity: str) -> None:
    site.cluster.store.patch(NODES, "", "gpu2", {"status": {"capacity": {"nvidia.com/gpu": quantity}}})
    with pytest.raises(WorkloadRefused, match="GPUs"):
        await site.pool().observe(0.0)


async def test_node_that_vanishes_while_it_is_held_is_gone(site: Site) -> None:
    site.fail("get", "nodes", status=404, times=1)
    (step,) = await site.pool().hold(["gpu2"], site.order())
    assert step.outcome is LeverOutcome.GONE


async def test_hundreds_of_pods_come_page_by_page(site: Site) -> None:
    for n in range(1203):
        site.cluster.add_pod("other", f"p{n:04}", "login", gpus=0)
    site.cluster.add_pod("other", "zz-last", "gpu2", gpus=3)
    work = await site.pool().observe(0.0)
    assert {n.name: n.busy_gpus for n in work.nodes}["gpu2"] == 3


def answers(site: Site, path: str) -> list[int]:
    """Sizes of answers [bytes] about a path from now on, as they come."""
    sizes: list[int] = []
    true_web = site.server.web

    def web(request: WebRequest) -> WebAnswer | None:
        answer = true_web(request)
        if answer is not None and request.path.startswith(path):
            sizes.append(len(answer.body))
        return answer

    site.server.web = web  # type: ignore[method-assign]
    return sizes


async def test_pages_stay_small_in_bytes_so_that_parsing_one_does_not_hold_the_loop(site: Site) -> None:
    for n in range(300):
        site.cluster.add_pod("other", f"p{n:04}", "login", gpus=0, annotations={"note": "x" * 10_000})
    sizes = answers(site, "/api/v1/pods")
    await site.pool().observe(0.0)
    assert sum(sizes) > 3_000_000 and max(sizes[1:]) <= 1.1 * PAGE_BYTES


async def test_page_that_would_be_too_long_is_asked_for_in_smaller_ones(site: Site) -> None:
    for n in range(60):
        site.cluster.add_pod("other", f"p{n:04}", "login", gpus=0, annotations={"note": "x" * 200_000})
    site.cluster.add_pod("other", "zz-last", "gpu2", gpus=3)
    sizes = answers(site, "/api/v1/pods")
    work = await site.pool().observe(0.0)
    assert sizes[0] > MOST_BYTES >= max(sizes[1:])
    assert {n.name: n.busy_gpus for n in work.nodes}["gpu2"] == 3


async def test_single_object_that_is_too_long_is_refused(site: Site) -> None:
    site.cluster.add_pod("other", "huge", "login", gpus=0, annotations={"note": "x" * (MOST_BYTES + 1)})
    with pytest.raises(WorkloadRefused, match=r"/api/v1/pods: more than 8 MiB") as refused:
        await site.pool().observe(0.0)
    assert refused.value.outcome is LeverOutcome.FAILED


async def test_silent_node_is_not_idle(site: Site) -> None:
    site.cluster.store.patch(NODES, "", "gpu2", {"status": {"conditions": [{"type": "Ready", "status": "Unknown"}]}})
    (silent,) = [n for n in (await site.pool().observe(0.0)).nodes if n.name == "gpu2"]
    assert not silent.answers and not silent.idle


@pytest.mark.parametrize("body", [b"", b"<html>a proxy</html>", b"[]", b'{"items": 7}', b'{"items": [5]}', b"{" * 5000])
async def test_answer_that_is_no_list_is_refused(site: Site, body: bytes) -> None:
    site.fail("list", "pods", status=200, body=body)
    with pytest.raises(WorkloadRefused, match="/api/v1/pods") as refused:
        await site.pool().observe(0.0)
    assert refused.value.outcome is LeverOutcome.FAILED


async def test_pod_on_a_node_that_is_no_name_is_refused(site: Site) -> None:
    site.cluster.add_pod("train", "odd", "gpu2")
    site.cluster.store.patch(PODS, "train", "odd", {"spec": {"nodeName": ["gpu2"]}})
    with pytest.raises(WorkloadRefused, match=r"Pod odd: spec\.nodeName"):
        await site.pool().observe(0.0)
