"""Slurm's output becomes records, or one line that says why not."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.ai.slurm import parse
from agent.ai.slurm.hostlist import expand
from agent.ai.workload import WorkloadRefused
from gridpivot.vocabulary import LeverOutcome
from tests.unit.ai.slurm.conftest import recorded

pytestmark = pytest.mark.unit

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


def entries(name: str, key: str) -> list[dict[str, Any]]:
    listed = json.loads(recorded(name))[key]
    assert isinstance(listed, list)
    return listed


def test_nodes_tell_gpus_state_and_who_drained_them() -> None:
    nodes = {node.name: node for node in parse.nodes(recorded("sinfo.json"))}
    assert [(node.gpus, node.busy_gpus) for node in nodes.values()] == [(8, 6), (8, 0), (8, 0), (8, 0)]
    assert nodes["gpu2"].drained and (nodes["gpu2"].reason, nodes["gpu2"].reason_by) == ("fan tray, ticket 311", "root")
    assert nodes["gpu4"].down and not nodes["gpu4"].drained and not nodes["gpu1"].down


def test_jobs_tell_what_they_have_and_what_they_ask_for() -> None:
    jobs = {job.job_id: job for job in parse.jobs(recorded("squeue.json"))}
    assert jobs["2"].running and (jobs["2"].nodes, jobs["2"].gpus, jobs["2"].limit_s) == (("gpu1",), 2, None)
    assert jobs["3"].limit_s == 1800 and jobs["3"].deadline_unix_s is not None
    assert jobs["4"].pending and not jobs["4"].held and (jobs["4"].gpus, jobs["4"].node_count) == (16, 2)
    assert jobs["5"].held and (jobs["5"].tasks, jobs["5"].gpus) == (5, 1)


def test_empty_list_beside_an_error_is_a_refusal_and_no_empty_cluster() -> None:
    with pytest.raises(WorkloadRefused, match="Unspecified error") as refused:
        parse.nodes(recorded("sinfo-unreachable.json"))
    assert refused.value.outcome is LeverOutcome.FAILED


def test_reservation_and_partition_are_read() -> None:
    (held,) = parse.reservations(recorded("reservations.txt"))
    assert (held.name, held.nodes, held.active) == ("gridpivot:o-1:train:hold", ("gpu3", "gpu4"), True)
    assert held.end_unix_s - held.start_unix_s == 600
    assert parse.reservations("No reservations in the system\n") == ()
    assert parse.partition(recorded("partition.txt")).up
    assert not parse.partition(recorded("partition.txt").replace("State=UP", "State=DOWN")).up


def test_newer_shape_reads_as_the_old_one() -> None:
    """Numbers as {"set", "infinite", "number"} and states as lists, as releases after 22.05 document them; not recorded."""

    def boxed(value: Any) -> Any:
        if isinstance(value, bool) or not isinstance(value, int | None):
            return value
        return {"set": value is not None, "infinite": False, "number": value or 0}

    jobs = [{key: boxed(value) for key, value in job.items()} for job in entries("squeue.json", "jobs")]
    for job in jobs:
        job["job_state"] = [job["job_state"]]
    assert parse.jobs(json.dumps({"jobs": jobs, "errors": []})) == parse.jobs(recorded("squeue.json"))
    nodes = [
        {**node, "state": [node["state"].upper(), *node.pop("state_flags")]} for node in entries("sinfo.json", "nodes")
    ]
    assert parse.nodes(json.dumps({"nodes": nodes})) == parse.nodes(recorded("sinfo.json"))


def test_unlimited_and_unset_are_none() -> None:
    (job, *_) = entries("squeue.json", "jobs")
    for value in (None, 0xFFFFFFFE, 0xFFFFFFFF, {"set": True, "infinite": True, "number": 0}):
        (read,) = parse.jobs(json.dumps({"jobs": [{**job, "time_limit": value}]}))
        assert read.limit_s is None


@pytest.mark.parametrize(
    ("text", "gpus"),
    [
        ("gpu:h100:8(IDX:0-7)", 8),
        ("gpu:8", 8),
        ("gpu", 1),
        ("gpu:h100", 1),
        ("nvme:2,gpu:a:3(S:0,1),gpu:b:1", 4),
        ("gres:gpu:2", 2),
        ("gres/gpu:h100:4", 4),
        ("nvme:2", None),
        ("", None),
        ("gpu:h100:0(IDX:N/A)", 0),
    ],
)
def test_gres_lists_are_counted(text: str, gpus: int | None) -> None:
    assert parse.gpus_in(text) == gpus


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("", ()),
        ("(null)", ()),
        ("login", ("login",)),
        ("gpu[1-3,07-08],x", ("gpu1", "gpu2", "gpu3", "gpu07", "gpu08", "x")),
        ("r[1-2]n[1-2]-gpu", ("r1n1-gpu", "r1n2-gpu", "r2n1-gpu", "r2n2-gpu")),
    ],
)
def test_host_lists_are_expanded(text: str, names: tuple[str, ...]) -> None:
    assert expand(text) == names


@pytest.mark.parametrize("text", ["gpu[1-", "gpu[3-1]", "gpu[1-999999999]", "a[1-9999]b[1-9999]", "a b", "x;rm", "[]"])
def test_host_list_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="host"):
        expand(text)


@given(st.text(max_size=60) | st.binary(max_size=60).map(lambda raw: raw.decode("latin-1")) | JSON.map(json.dumps))
def test_garbage_is_refused_in_one_line(text: str) -> None:
    for read in (parse.nodes, parse.jobs, parse.partition):
        with pytest.raises(WorkloadRefused) as refused:
            read(text)
        assert refused.value.outcome is LeverOutcome.FAILED and str(refused.value).isprintable()


@given(st.data())
def test_a_record_with_any_value_gone_wrong_is_read_or_refused(data: st.DataObject) -> None:
    name, key, read = data.draw(
        st.sampled_from([("sinfo.json", "nodes", parse.nodes), ("squeue.json", "jobs", parse.jobs)])
    )
    record = dict(data.draw(st.sampled_from(entries(name, key))))
    for field in data.draw(st.lists(st.sampled_from(sorted(record)), min_size=1, max_size=3)):
        record[field] = data.draw(JSON)
    try:
        (one,) = read(json.dumps({key: [record]}))  # type: ignore[operator]
    except WorkloadRefused as refused:
        assert str(refused).isprintable()
    else:
        assert one.gpus is None or one.gpus >= 0


def test_deep_nesting_is_refused() -> None:
    with pytest.raises(WorkloadRefused):
        parse.nodes("[" * 100_000)
