"""Per-node series: what is unknown has no sample, and a silent node is shown at what it may draw."""

import pytest

from agent.gpu.exporter import gpu_metrics
from agent.gpu.many import ManyPools
from agent.nodes.exporter import node_metrics
from tests.unit.node.site_of_nodes import Site

pytestmark = pytest.mark.unit


def samples(site: Site) -> dict[tuple[str, str], float]:
    return {
        (sample.name, next(iter(sample.labels.values()))): sample.value
        for family in node_metrics(ManyPools([(site.pools, 1)], [site.pools]))
        for sample in family.samples
    }


def test_node_that_reports_and_node_that_never_came() -> None:
    site = Site(("a", "b"))
    site.node("a").report((3000.0, "pdu"))
    found = samples(site)
    assert found["gridpivot_node_connected", "a"] == 1.0 and found["gridpivot_node_connected", "b"] == 0.0
    assert found["gridpivot_node_power_watts", "a"] == pytest.approx(4 * 630.0)
    assert found["gridpivot_node_host_power_watts", "a"] == 3000.0
    assert found["gridpivot_node_limit_watts", "b"] == 4 * 700.0
    assert ("gridpivot_node_power_watts", "b") not in found
    assert found["gridpivot_node_gpus_present", "b"] == 0.0 and found["gridpivot_node_gpus_expected", "b"] == 4.0


def test_silent_node_has_no_power_and_keeps_its_limit() -> None:
    site = Site(("a",))
    node = site.node("a")
    node.go()
    found = samples(site)
    assert found["gridpivot_node_connected", "a"] == 0.0
    assert found["gridpivot_node_limit_watts", "a"] == 4 * 700.0
    assert ("gridpivot_node_power_watts", "a") not in found


def test_gpus_of_nodes_have_their_series_on_their_node_alone() -> None:
    site = Site(("a",))
    site.node("a")
    assert [s for family in gpu_metrics(site.pools) for s in family.samples] == []
