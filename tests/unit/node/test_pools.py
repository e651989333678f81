"""Pools over nodes: whoever is silent is charged what he may draw, and nobody else gets it."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.gpu.accounting import Members, account
from agent.node.report import report
from agent.nodes.authority import keep_boards, load_boards
from agent.nodes.reports import read_report
from gridpivot.curves import AiPool
from tests.unit.node.site_of_nodes import HOST_W, LEASE_S, FakeNode, Site

pytestmark = pytest.mark.unit

HOSTS_W = 16 * HOST_W


def test_pool_is_accounted_as_the_slow_way_does() -> None:
    site = Site()
    nodes = [site.node(name) for name in "abcd"]
    readings = {r.uuid: r for node in nodes for r in node.readings()}
    members = Members(site.pools.declared[0], tuple(readings), HOST_W)
    slow, fast = account(members, readings, {}, 0.0), site.reading
    assert (fast.power_w, fast.limit_w, fast.demand_w) == pytest.approx((slow.power_w, slow.limit_w, slow.demand_w))
    assert fast.gpus_present == 16


def test_node_that_never_came_is_charged_its_most_and_power_is_unknown_until_one_comes() -> None:
    site = Site()
    assert (site.reading.power_w, site.reading.limit_w) == (None, HOSTS_W + 16 * 700.0)
    site.node("a")
    assert site.reading.power_w == pytest.approx(HOSTS_W + 4 * 630.0 + 12 * 700.0)
    assert site.pools.declared[0].gpu_count == 16


def test_limits_go_to_every_node_equally_and_inside_the_wall_watts() -> None:
    site = Site()
    nodes = [site.node(name) for name in "abcd"]
    site.set_limit(HOSTS_W + 16 * 400.5)
    for node in nodes:
        node.take()
    assert {watts for node in nodes for watts in node.limit_w.values()} == {400.0}
    assert site.reading.limit_w == pytest.approx(HOSTS_W + 16 * 400.0)


def test_silent_node_keeps_its_charge_and_the_others_get_nothing_of_it() -> None:
    site = Site()
    nodes = [site.node(name) for name in "abcd"]
    site.set_limit(HOSTS_W + 16 * 400.0)
    for node in nodes:
        node.take()
    nodes[0].go()
    site.settle()
    for node in nodes[1:]:
        node.take()
    assert site.reading.limit_w == pytest.approx(HOSTS_W + 16 * 400.0)
    assert site.reading.power_w == pytest.approx(HOSTS_W + 4 * 400.0 + 12 * 360.0), "silent: its limit, not its draw"


def guarded_site(guarded_s: float | None) -> tuple[Site, list[FakeNode]]:
    site = Site()
    nodes = [site.node(name, guarded_s=guarded_s) for name in "abcd"]
    site.set_limit(HOSTS_W + 16 * 400.0)
    site.hold(HOSTS_W + 16 * 250.0)
    for node in nodes:
        node.take()
    nodes[0].go()
    return site, nodes


def fallback_w(site: Site, node: FakeNode) -> float:
    return float(site.pools.table.fallback_asked_w[node.node.index, 0])


def test_after_its_lease_and_its_guards_a_silent_node_is_charged_its_fallback_never_zero() -> None:
    site, nodes = guarded_site(20.0)
    site.clock.s += LEASE_S + 19.9
    for node in nodes[1:]:
        node.report()
    assert site.reading.limit_w == pytest.approx(HOSTS_W + 16 * 400.0)
    site.clock.s += 0.2
    held_w = fallback_w(site, nodes[0])
    assert 230.0 <= held_w <= 250.0
    assert site.reading.limit_w == pytest.approx(HOSTS_W + 12 * 400.0 + 4 * held_w)


def test_without_a_guard_nobody_is_believed_to_have_fallen_back() -> None:
    site, nodes = guarded_site(None)
    site.clock.s += 3600.0
    for node in nodes[1:]:
        node.report()
    assert site.reading.limit_w == pytest.approx(HOSTS_W + 16 * 400.0)


def test_what_a_silent_node_gave_up_goes_to_the_others() -> None:
    site, nodes = guarded_site(20.0)
    site.clock.s += LEASE_S + 21.0
    for node in nodes[1:]:
        node.report()
    site.settle()
    for node in nodes[1:]:
        node.take()
    assert min(nodes[1].limit_w.values()) > 440.0
    assert site.reading.limit_w <= HOSTS_W + 16 * 400.0


def test_node_that_joins_gets_its_share_only_after_the_others_have_given_it() -> None:
    site = Site()
    nodes = [site.node(name) for name in "abc"]  # d has not come: it is charged 4 x 700 W
    site.set_limit(HOSTS_W + 16 * 400.0)
    for node in nodes:
        node.take()
    assert {watts for node in nodes for watts in node.limit_w.values()} == {300.0}
    late = site.node("d")
    site.settle()
    raised = [site.pools.limits_of(node.node) for node in nodes]
    assert all(gpu.limit_w == 300.0 for limits in raised for gpu in limits.gpus), "d still draws up to 700 W each"
    late.take()
    site.settle()
    for node in nodes:
        node.take()
    assert {watts for node in (*nodes, late) for watts in node.limit_w.values()} == {400.0}


def test_gpus_that_refuse_limits_are_charged_what_they_have_and_others_make_room() -> None:
    site = Site()
    nodes = [site.node(name) for name in "abcd"]
    nodes[0].obeys = False
    site.set_limit(HOSTS_W + 16 * 400.0)
    for _ in range(3):
        for node in nodes:
            node.take()
        site.settle()
    assert set(nodes[0].limit_w.values()) == {700.0}
    assert {watts for node in nodes[1:] for watts in node.limit_w.values()} == {300.0}
    assert site.reading.limit_w == pytest.approx(HOSTS_W + 16 * 400.0)


def test_raise_that_is_on_its_way_counts_as_in_force() -> None:
    site = Site()
    nodes = [site.node(name) for name in "abcd"]
    site.set_limit(HOSTS_W + 16 * 300.0)
    for node in nodes:
        node.take()
    site.set_limit(HOSTS_W + 16 * 500.0)
    nodes[0].report()  # has not applied it
    assert site.reading.limit_w == pytest.approx(HOSTS_W + 16 * 500.0)
    site.set_limit(HOSTS_W + 16 * 300.0)
    nodes[0].report()
    assert site.reading.limit_w == pytest.approx(HOSTS_W + 16 * 500.0), "500 W may still be applied on the way"
    for node in nodes:
        node.take()
    assert site.reading.limit_w == pytest.approx(HOSTS_W + 16 * 300.0)


def test_governor_that_is_dead_renews_no_lease_however_alive_its_sessions_are() -> None:
    site = Site()
    node = site.node("a")
    assert site.pools.limits_of(node.node).echo_monotonic_ms > 0, "a site that only watches"
    site.hold(HOSTS_W + 16 * 250.0)
    site.clock.s += 9.0
    assert site.pools.echo_of(node.node) > 0
    site.clock.s += 2.0
    node.report()
    assert (site.pools.echo_of(node.node), site.pools.limits_of(node.node).echo_monotonic_ms) == (0, 0)


def test_lost_gpu_and_one_that_tells_no_power_are_charged_their_limit() -> None:
    site = Site(("a",))
    node = site.node("a")
    message = report(node.readings(), 2, 0, 0, 0, None)
    message.lost = b"\x01"
    message.power_w.known = b"\x0c"
    site.pools.take(node.node, read_report(message, 4))
    assert site.reading.power_w == pytest.approx(4 * HOST_W + 2 * 700.0 + 2 * 630.0)
    assert site.reading.gpus_present == 3


def test_host_that_measures_itself_is_believed_while_that_makes_sense() -> None:
    site = Site(("a",))
    node = site.node("a")
    node.report((3500.0, "bmc"))
    assert site.reading.power_w == 3500.0
    assert site.reading.by_hosts
    node.report((900.0, "bmc"))  # below what its GPUs draw
    assert site.reading.power_w == 3500.0, "the model, with the host's share as it was last measured"
    assert not site.reading.by_hosts
    site.clock.s += 86_401.0
    node.report((900.0, "bmc"))
    assert site.reading.power_w == pytest.approx(4 * HOST_W + 4 * 630.0)


def test_older_report_changes_nothing() -> None:
    site = Site(("a",))
    node = site.node("a")
    old = report(node.readings(), 1, 0, 0, 0, None)
    node.draw_ratio = 0.5
    node.report()
    before = site.reading
    site.pools.take(node.node, read_report(old, 4))
    assert site.reading == before


def test_more_gpus_than_declared_are_charged_too() -> None:
    site = Site(("a",), gpus_per_node=2)
    site.node("a", gpus=6)
    assert site.reading.limit_w == pytest.approx(6 * HOST_W + 6 * 700.0)


def test_boards_last_seen_stand_for_a_node_after_a_restart(tmp_path: Path) -> None:
    site = Site(("a", "b"), gpus_per_node=None)
    assert site.pools.declared == () and len(site.pools.missing) == 2
    node = site.node("a", gpus=8)
    keep_boards(tmp_path, {"a": node.node.boards})
    again = Site(("a", "b"), load_boards(tmp_path), gpus_per_node=None)
    assert [pool.gpu_count for pool in again.pools.declared] == [8]
    assert again.reading.limit_w == pytest.approx(8 * HOST_W + 8 * 700.0)
    (tmp_path / "inventory.json").write_text("{")
    assert load_boards(tmp_path) == {}


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from(["go", "come", "take", "report", "wait"]),
                          st.floats(0.0, 16_000.0)), max_size=40))  # fmt: skip
def test_whatever_nodes_do_limits_that_may_be_in_force_stay_inside_what_was_wanted_last(
    story: list[tuple[str, str, float]],
) -> None:
    """The sum of what GPUs really hold is never above the highest of the last limit and what could not be lowered."""
    site = Site()
    nodes = {name: site.node(name) for name in "abcd"}
    for name, what, wall_w in story:
        node = nodes[name]
        match what:
            case "go":
                node.go()
            case "come":
                node.come()
            case "take" if node.node.connected:
                node.take()
            case "report" if node.node.connected:
                node.report()
            case "wait":
                site.clock.s += 1.0
                site.set_limit(wall_w)
        site.settle()
        really_w = sum(sum(node.limit_w.values()) for node in nodes.values())
        believed_w = site.reading.limit_w - HOSTS_W
        assert really_w <= believed_w + 1e-3, "what may be drawn was charged"
    # Once everybody is there and has read back, the pool is inside what was wanted.
    site.set_limit(HOSTS_W + 16 * 333.0)
    for node in nodes.values():
        node.come()
    for _ in range(4):
        site.settle()
        for node in nodes.values():
            node.take()
    np.testing.assert_allclose([w for node in nodes.values() for w in node.limit_w.values()], 333.0)


def test_plan_lowers_the_fallback_of_a_node_and_never_raises_one() -> None:
    site = Site()
    nodes = [site.node(name) for name in "abcd"]
    site.hold(HOSTS_W + 16 * 400.0)
    derived_w = fallback_w(site, nodes[0])
    now = site.clock.now()
    caps = {"a": 4 * (HOST_W + 300.0), "b": 4 * (HOST_W + 690.0), "nobody": 1.0}
    site.pools.cap_fallbacks({site.pools.declared[0].name: caps, "other": {"c": 1.0}}, now)
    assert 270.0 <= fallback_w(site, nodes[0]) <= 300.0
    assert [fallback_w(site, node) for node in nodes[1:]] == [derived_w] * 3
    site.pools.cap_fallbacks({}, now)
    assert fallback_w(site, nodes[0]) == derived_w


def test_nodes_are_declared_with_what_their_limits_allow() -> None:
    (declared,) = Site().pools.declared
    assert [n.name for n in declared.nodes] == list("abcd")
    assert sum(n.gpu_count for n in declared.nodes) == declared.gpu_count
    assert sum(n.max_w for n in declared.nodes) == pytest.approx(declared.max_w)
    assert AiPool.from_proto(declared.to_proto()) == declared
