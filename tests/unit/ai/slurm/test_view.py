"""Records become a pool's work: whose jobs, who holds what, how much waits."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.ai.slurm.checkpoint import pattern_of
from agent.ai.slurm.marks import (
    ADMISSION,
    HOLD,
    JobNote,
    Mark,
    mark_of,
    read_mark,
    read_note,
    read_reservation_name,
    reservation_name,
)
from agent.ai.slurm.settings import SlurmSettings
from agent.ai.slurm.view import Cluster, class_of, pool_work
from agent.ai.workload import Order, WorkloadRefused
from gridpivot.settings import load
from gridpivot.vocabulary import AiPriority
from tests.conftest import ROOT

pytestmark = pytest.mark.unit

NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", fullmatch=True)
TIMES = st.integers(min_value=0, max_value=10**11)


def test_pool_shows_every_job_on_its_nodes_with_its_class(cluster: Cluster, settings: SlurmSettings) -> None:
    work = pool_work(cluster, settings, 5.0)
    assert {job.job_id: job.priority for job in work.jobs} == {"2": AiPriority.GUARANTEED, "3": AiPriority.STANDARD}
    assert [job.requeueable for job in work.jobs] == [False, True]
    assert work.jobs[1].running_s == pytest.approx(16) and work.jobs[1].due_in_s == pytest.approx(35983)


def test_nodes_say_who_holds_them(cluster: Cluster, settings: SlurmSettings) -> None:
    gpu1, gpu2, gpu3, gpu4 = pool_work(cluster, settings, 5.0).nodes
    assert (gpu1.held, gpu1.busy_gpus, gpu1.idle) == (False, 6, False)
    assert gpu2.held and not gpu2.ours and gpu2.held_by == "root: fan tray, ticket 311"
    assert gpu3.ours and gpu3.idle
    assert not gpu4.answers and gpu4.ours and not gpu4.idle  # silent is not idle


def test_reservation_past_its_end_holds_nothing(cluster: Cluster, settings: SlurmSettings) -> None:
    later = replace(cluster, unix_s=cluster.reservations[0].end_unix_s + 1.0)
    assert not pool_work(later, settings, 5.0).nodes[3].held


def test_what_waits_is_counted_up_to_its_limit(cluster: Cluster, settings: SlurmSettings) -> None:
    (waiting,) = pool_work(cluster, settings, 5.0).waiting
    assert waiting.priority is AiPriority.STANDARD
    assert waiting.running_gpu_h == pytest.approx(4 * (1795423719 - 1795421935) / 3600)
    assert waiting.pending_gpu_h == waiting.deferrable_gpu_h == pytest.approx(2 * 16 * 0.5)  # not what a user holds


def test_job_without_a_limit_makes_the_sum_unknown(cluster: Cluster) -> None:
    urgent = replace(cluster, partition=replace(cluster.partition, name="urgent"))
    (waiting,) = pool_work(urgent, SlurmSettings(partition="urgent"), 5.0).waiting
    assert (waiting.running_gpu_h, waiting.pending_gpu_h, waiting.deferrable_gpu_h) == (None, 0.0, 0.0)


def test_partition_that_settings_do_not_name_is_guaranteed(cluster: Cluster) -> None:
    work = pool_work(cluster, SlurmSettings(partition="train"), 5.0)
    assert {job.priority for job in work.jobs} == {AiPriority.GUARANTEED}


def test_job_outside_the_pools_filter_is_guaranteed(cluster: Cluster, settings: SlurmSettings) -> None:
    filtered = settings.model_copy(update={"qos": "cheap"})
    job = cluster.job("3")
    assert job is not None and class_of(job, filtered) is AiPriority.GUARANTEED
    assert class_of(replace(job, qos="cheap"), filtered) is AiPriority.STANDARD


def test_nodes_without_gres_count_as_settings_say(cluster: Cluster, settings: SlurmSettings) -> None:
    bare = replace(cluster, nodes=tuple(replace(node, gpus=None, busy_gpus=None) for node in cluster.nodes))
    nodes = pool_work(bare, settings.model_copy(update={"gpus_per_node": 4}), 5.0).nodes
    assert [(node.gpus, node.busy_gpus) for node in nodes] == [(4, 4), (4, 0), (4, 0), (4, 0)]


def test_deferred_job_is_ours_only_while_it_waits(cluster: Cluster, settings: SlurmSettings) -> None:
    note = str(JobNote(Mark("o-1", 1795422519, "train"), 1795421950, "ask Kim"))
    jobs = tuple(replace(job, admin_comment=note) if job.job_id in ("3", "4") else job for job in cluster.jobs)
    assert pool_work(replace(cluster, jobs=jobs), settings, 5.0).suspended == ("4",)


@given(NAMES, TIMES, NAMES, TIMES, st.text(max_size=30))
def test_marks_are_read_as_they_were_written(
    order_id: str, until: int, partition: str, earliest: int, before: str
) -> None:
    mark = Mark(order_id, until, partition)
    assert read_mark(str(mark)) == mark
    note = JobNote(mark, earliest, before)
    assert read_note(str(note)) == note
    for kind in (HOLD, ADMISSION):
        found = read_reservation_name(reservation_name(order_id, partition, kind))
        assert found is not None and (found.order_id, found.partition, found.kind) == (order_id, partition, kind)


@pytest.mark.parametrize(
    "reason",
    ["gridpivot is broken", "gridpivot", "gridpivot:o-1", "gridpivot:o-1:soon:train", " gridpivot:o:1:train", "x"],
)
def test_a_reason_that_only_looks_like_ours_is_an_admins(reason: str) -> None:
    assert read_mark(reason) is None


@pytest.mark.parametrize("order_id", ["", "a b", "a,b", "a:b", "x" * 65, "-rf"])
def test_order_that_cannot_stand_in_a_name_is_refused(order_id: str) -> None:
    with pytest.raises(WorkloadRefused, match="cannot stand"):
        mark_of(Order(order_id, "", 1.0), "train")


def test_evidence_pattern_takes_nothing_from_names(cluster: Cluster) -> None:
    job = cluster.job("3")
    assert job is not None
    assert pattern_of("/c/%u/%A_%a/%j*.pt", replace(job, user="../*")) == "/c/.._[*]/3_0/3*.pt"


@pytest.mark.parametrize("given_", ["relative/%j", "/no/number", "file"])
def test_evidence_that_no_job_owns_is_a_settings_error(given_: str) -> None:
    with pytest.raises(ValueError, match="absolute path"):
        SlurmSettings(partition="train", checkpoint_evidence=given_)


def test_the_pages_settings_load(tmp_path: Path) -> None:
    (example,) = re.findall(r"```toml\n(.*?)```", (ROOT / "docs" / "slurm.md").read_text(), re.DOTALL)
    path = tmp_path / "slurm.toml"
    path.write_text(example)
    assert load(SlurmSettings, path, "GRIDPIVOT_TEST").priority is AiPriority.STANDARD
